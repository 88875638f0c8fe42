"""Wines and artifacts in a bucket, on an S3 server that checks signatures."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from prefect_aws.s3 import S3Bucket

from commands import BadInputError, NotThereError
from experiment_tracking.registry.versions import load_version, register_model
from experiment_tracking.runs.store import open_store
from experiment_tracking.runs.tracking import track_model
from orchestration.s3 import Location, fetch_folder, load_source, parse_location, upload_folder
from settings import load_settings
from tests.conftest import NOWHERE, isolated_environment, run_here
from tests.test_sources import write_pair
from tests.told import assert_told, find_lines, naming
from tests.waiting import free_port, wait_for_port
from wine_data.reader import COLUMNS
from wine_data.schema import feature_frame
from wine_data.sources.load import TRAIN_FILE, VALIDATION_FILE, WineData
from wine_data.split import Split
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import make_model

pytestmark = pytest.mark.usefixtures("store")
KEY, SECRET = "a-key-for-tests", "a-secret-for-tests"
PLACE = Location("wines", "published/2026")


@dataclass(frozen=True)
class Store:
    """A running S3 server: its address, and the folder whose folders are its buckets."""

    address: str
    folder: Path

    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": self.address}


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A server of the test's own, with an empty bucket, and its keys in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    port, folder, rclone = free_port(), tmp_path_factory.mktemp("s3"), Path(sys.executable).with_name("rclone")
    running = Store(f"http://127.0.0.1:{port}", folder)
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    (folder / PLACE.bucket).mkdir()
    options = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}", "--config", os.devnull]
    with subprocess.Popen([rclone, "serve", "s3", *options, folder], stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            yield running
        finally:
            process.terminate()


@pytest.fixture
def pair(tmp_path: Path, twin: WineData) -> Path:
    """A folder with a data set."""
    (tmp_path / "pair").mkdir()
    write_pair(tmp_path / "pair", twin)
    return tmp_path / "pair"


class Proxy:
    """A proxy before the server: counts the bytes that come back, and cuts a connection after so many."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self.target, self.cut_after, self.came_back = (host, int(port)), float("inf"), 0
        self.requests: list[bytes] = []  # their first lines
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.target)
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        carried, inward = 0, source.getpeername() == self.target
        with suppress(OSError):
            while carried <= self.cut_after and (part := source.recv(65536)):
                target.sendall(part)
                carried += len(part)
                if inward:
                    self.came_back += len(part)
                else:
                    self.requests += re.findall(rb"^(?:GET|PUT|POST) /.*", part, re.MULTILINE)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    between = Proxy(store.address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.address)
    yield between
    between.close()


def load_place(downloads: Path, block: str = "") -> WineData:
    return load_source(str(PLACE), 42, downloads, NOWHERE, block)


def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run_here("orchestration.s3", more, *map(str, arguments))


def test_an_uploaded_data_set_is_loaded_as_the_folder_is(pair: Path, tmp_path: Path, twin: WineData) -> None:
    done = run("upload", pair, str(PLACE))
    assert done.returncode == 0, done.stderr
    assert find_lines(done.stdout, str(PLACE), TRAIN_FILE, VALIDATION_FILE)
    assert find_lines(done.stdout, f"WINE_DATA={PLACE} make pipeline")
    data = load_place(tmp_path / "downloads")
    assert (data.fingerprint, data.source) == (twin.fingerprint, str(PLACE))


@pytest.mark.full
def test_a_bucket_without_a_prefix_will_do(pair: Path, tmp_path: Path, twin: WineData) -> None:
    upload_folder(pair, Location("wines", ""))
    assert load_source("s3://wines", 42, tmp_path, NOWHERE).fingerprint == twin.fingerprint


def test_only_what_changed_is_fetched_again(proxy: Proxy, pair: Path, tmp_path: Path, twin: WineData) -> None:
    train_bytes = (pair / TRAIN_FILE).stat().st_size
    upload_folder(pair, PLACE)
    load_place(tmp_path)
    assert proxy.came_back > train_bytes
    proxy.came_back = 0
    load_place(tmp_path)
    assert 0 < proxy.came_back < 5_000  # a list
    twin.validation.head(3000)[list(COLUMNS)].to_csv(pair / VALIDATION_FILE, index=False)
    upload_folder(pair, PLACE)
    proxy.came_back = 0
    assert len(load_place(tmp_path).validation) == 3000
    assert proxy.came_back < train_bytes
    (fetch_folder(PLACE, tmp_path) / TRAIN_FILE).write_text("wine")
    assert load_place(tmp_path).train.equals(twin.train)


def test_wrong_keys_are_refused_and_not_shown(store: Store, pair: Path) -> None:
    done = run("upload", pair, str(PLACE), AWS_SECRET_ACCESS_KEY="a-wrong-secret")
    assert_told(done, 2, str(PLACE), "SignatureDoesNotMatch", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert "a-wrong-secret" not in done.stderr + done.stdout
    assert not list((store.folder / PLACE.bucket).iterdir())


def test_keys_that_nobody_set_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(BadInputError, match=naming(str(PLACE), "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")):
        load_place(tmp_path)


def test_a_bucket_that_is_not_there_ends_with_3(pair: Path) -> None:
    for order in (["upload", pair], ["download"]):
        assert_told(run(*order, "s3://cellar/published"), 3, "s3://cellar/published", "bucket")


def test_a_place_without_the_files_or_the_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInputError, match=naming(str(PLACE), TRAIN_FILE, VALIDATION_FILE)):
        load_place(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    with pytest.raises(NotThereError, match=naming(str(PLACE), "EndpointConnectionError")):
        load_place(tmp_path)


def test_a_broken_download_leaves_what_was_there(proxy: Proxy, pair: Path, tmp_path: Path) -> None:
    upload_folder(pair, PLACE)
    downloads, before = tmp_path / "downloads", (pair / TRAIN_FILE).read_bytes()
    proxy.cut_after = 500_000
    with pytest.raises(NotThereError, match=naming(str(PLACE))):
        fetch_folder(PLACE, downloads)
    assert [path for path in downloads.rglob("*") if path.is_file()] == []
    proxy.cut_after = float("inf")
    folder = fetch_folder(PLACE, downloads)
    (pair / TRAIN_FILE).write_bytes(before + before.splitlines(keepends=True)[-1])
    upload_folder(pair, PLACE)
    proxy.cut_after = 500_000
    with pytest.raises(NotThereError):
        fetch_folder(PLACE, downloads)
    assert (folder / TRAIN_FILE).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == [".etags.json", VALIDATION_FILE, TRAIN_FILE]


def test_a_broken_upload_leaves_what_was_there(proxy: Proxy, store: Store, pair: Path) -> None:
    upload_folder(pair, PLACE)
    there, before = store.folder / PLACE.bucket / PLACE.prefix / TRAIN_FILE, (pair / TRAIN_FILE).read_bytes()
    (pair / TRAIN_FILE).write_bytes(before + before.splitlines(keepends=True)[-1])
    proxy.cut_after = 500_000
    with pytest.raises(NotThereError, match=naming(str(PLACE))):
        upload_folder(pair, PLACE)
    assert there.read_bytes() == before


@pytest.mark.full
def test_12_mb_go_up_in_parts_and_come_back_the_same(proxy: Proxy, pair: Path, tmp_path: Path, twin: WineData) -> None:
    pd.concat([twin.train] * 7)[list(COLUMNS)].to_csv(pair / TRAIN_FILE, index=False)
    assert (pair / TRAIN_FILE).stat().st_size > 12_000_000
    upload_folder(pair, PLACE)
    parts = re.findall(rb"PUT \S+train_wine_data.csv\?\S*partNumber=(\d)", b"\n".join(proxy.requests))
    assert sorted(parts) == [b"1", b"2"]
    folder = fetch_folder(PLACE, tmp_path / "downloads")
    assert (folder / TRAIN_FILE).read_bytes() == (pair / TRAIN_FILE).read_bytes()


def test_a_broken_data_set_is_not_uploaded(store: Store, pair: Path) -> None:
    (pair / TRAIN_FILE).write_text("a,b\n1,2\n")
    with pytest.raises(BadInputError, match=naming(TRAIN_FILE, "pH")):
        upload_folder(pair, PLACE)
    assert not list((store.folder / PLACE.bucket).iterdir())


@pytest.mark.parametrize("address", ["s3://", "s3:///prefix", "s3://A/b", "s3://key:hush@wines/published"])
def test_a_bad_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(BadInputError, match=naming("s3://bucket/prefix", "AWS_ACCESS_KEY_ID")) as refused:
        parse_location(address)
    assert "hush" not in str(refused.value)


def test_a_command_that_reads_folders_says_how_to_get_one(tmp_path: Path) -> None:
    done = run_here("wine_data.audit", isolated_environment(tmp_path) | {"WINE_DATA": "s3://wines/published"})
    assert_told(done, 2, "python -m orchestration.s3 download")


@pytest.mark.full
@pytest.mark.usefixtures("prefect")
def test_keys_from_a_saved_block_open_the_bucket_too(
    store: Store, pair: Path, tmp_path: Path, twin: WineData, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_folder(pair, PLACE)
    for name in store.environment():
        monkeypatch.delenv(name)
    parameters = AwsClientParameters(endpoint_url=store.address)
    keys = AwsCredentials(aws_access_key_id=KEY, aws_secret_access_key=SECRET, aws_client_parameters=parameters)
    S3Bucket(bucket_name="any", credentials=keys).save("cellar-keys", overwrite=True)
    assert load_place(tmp_path, block="cellar-keys").fingerprint == twin.fingerprint
    with pytest.raises(NotThereError, match=naming("WINE_S3_BLOCK", "lost-keys")):
        load_place(tmp_path, block="lost-keys")


@pytest.mark.full
def test_mlflow_keeps_a_model_in_the_bucket_and_gives_it_back(
    store: Store, tmp_path: Path, twin: WineData, twin_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", store.address)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("WINE_MLFLOW_ARTIFACTS", "s3://wines/mlflow")
    experiment_id = open_store(f"sqlite:///{tmp_path / 'mlflow.db'}", load_settings().mlflow_artifacts)
    evaluation = evaluate_leak_free("DecisionTreeClassifier", make_model("DecisionTreeClassifier", seed=42), twin_split)
    tracked = track_model(experiment_id, None, twin, twin_split, [evaluation])
    model = load_version(register_model(tracked.run_id)).pipeline
    wines = feature_frame(twin_split.holdout)
    assert (model.predict(wines) == evaluation.pipeline.predict(wines)).all()
    assert list((store.folder / "wines" / "mlflow").rglob("model.pkl"))
