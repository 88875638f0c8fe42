"""Wines and artifacts in a bucket, on an S3 server that checks signatures."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from prefect_aws.s3 import S3Bucket

from commands import BadInputError, NotThereError
from experiment_tracking.registry.versions import load_version, register_model
from experiment_tracking.runs.store import open_store
from experiment_tracking.runs.tracking import start_parent, track_model
from orchestration.s3 import check_address, fetch_folder, load_bucket, open_bucket, upload_folder
from settings import load_settings
from tests.conftest import NOWHERE, isolated_environment, run_here
from tests.messages import assert_failed, naming
from tests.test_sources import write_pair
from tests.waiting import free_port, wait_for_port
from wine_data.schema import feature_frame
from wine_data.sources.load import TRAIN_FILE, VALIDATION_FILE, WineData
from wine_data.split import Split
from wine_data.table.wines import COLUMNS
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import make_model

KEY, SECRET = "a-key-for-tests", "a-secret-for-tests"
BUCKET, PREFIX = "wines", "published/2026"
PLACE = f"s3://{BUCKET}/{PREFIX}"


@dataclass(frozen=True)
class Store:
    """A running S3 server: its address, and the folder whose folders are its buckets."""

    address: str
    folder: Path

    def environment(self, secret: str = SECRET) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": secret, "AWS_ENDPOINT_URL": self.address}


@contextmanager
def serve_s3(folder: Path) -> Iterator[Store]:
    """An S3 server on a folder, with one empty bucket."""
    port, rclone = free_port(), Path(sys.executable).with_name("rclone")
    (folder / BUCKET).mkdir()
    process = subprocess.Popen(
        [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}",
         "--config", os.devnull, folder],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(port)
        yield Store(f"http://127.0.0.1:{port}", folder)
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A server of the test's own, with an empty bucket, and its keys."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with serve_s3(tmp_path_factory.mktemp("s3")) as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def pair(tmp_path: Path, twin: WineData) -> Path:
    """A folder with a data set."""
    folder = tmp_path / "pair"
    folder.mkdir()
    write_pair(folder, twin)
    return folder


class Proxy:
    """Stands between client and server: counts what comes back, and cuts a connection after so many bytes."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self.target, self.cut_after, self.came_back = (host, int(port)), float("inf"), 0
        self.asked: list[bytes] = []  # the first lines of requests
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.target) as server:
            outward = threading.Thread(target=self._pump, args=(client, server), daemon=True)
            outward.start()
            self._pump(server, client)
            outward.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        carried, inward = 0, source.getpeername() == self.target
        with suppress(OSError):
            while carried <= self.cut_after and (part := source.recv(65536)):
                target.sendall(part)
                carried += len(part)
                self.came_back += len(part) if inward else 0
                self.asked += re.findall(rb"^(?:GET|PUT|POST) /.*", part, re.MULTILINE) if not inward else []
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
    return load_bucket(PLACE, 42, downloads, block)


def run(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return run_here("orchestration.s3", more, *map(str, arguments))


@pytest.mark.usefixtures("store")
def test_an_uploaded_data_set_is_loaded_as_the_folder_is(pair: Path, tmp_path: Path, twin: WineData) -> None:
    done = run("upload", pair, PLACE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"s3://wines/published/2026 holds {TRAIN_FILE} and {VALIDATION_FILE}",
        "Next: WINE_DATA=s3://wines/published/2026 make pipeline",
    ]
    data = load_place(tmp_path / "downloads")
    assert (data.fingerprint, data.source) == (twin.fingerprint, "s3://wines/published/2026")


@pytest.mark.full
@pytest.mark.usefixtures("store")
def test_a_bucket_without_a_prefix_will_do(pair: Path, tmp_path: Path, twin: WineData) -> None:
    upload_folder(pair, "s3://wines")
    assert load_bucket("s3://wines", 42, tmp_path).fingerprint == twin.fingerprint


def test_a_second_load_transfers_a_list_and_no_wines(proxy: Proxy, pair: Path, tmp_path: Path) -> None:
    upload_folder(pair, PLACE)
    load_place(tmp_path)
    first, proxy.came_back = proxy.came_back, 0
    load_place(tmp_path)
    assert first > (pair / TRAIN_FILE).stat().st_size
    assert 0 < proxy.came_back < 5_000


def test_a_file_that_changed_in_the_bucket_is_fetched_again_and_the_other_is_kept(
    proxy: Proxy, pair: Path, tmp_path: Path, twin: WineData
) -> None:
    upload_folder(pair, PLACE)
    load_place(tmp_path)
    with open_bucket(PLACE).open_output_stream(f"{BUCKET}/{PREFIX}/{VALIDATION_FILE}") as stream:
        stream.write(twin.validation.head(3000)[list(COLUMNS)].to_csv(index=False).encode())
    proxy.came_back = 0
    assert len(load_place(tmp_path).validation) == 3000
    assert proxy.came_back < (pair / TRAIN_FILE).stat().st_size


@pytest.mark.full
@pytest.mark.usefixtures("store")
def test_a_kept_file_that_was_changed_is_fetched_again(pair: Path, tmp_path: Path, twin: WineData) -> None:
    upload_folder(pair, PLACE)
    folder = fetch_folder(PLACE, tmp_path)
    (folder / TRAIN_FILE).write_text("wine")
    assert load_place(tmp_path).fingerprint == twin.fingerprint


def test_wrong_keys_are_told_and_not_shown(store: Store, pair: Path) -> None:
    done = run("upload", pair, PLACE, AWS_SECRET_ACCESS_KEY="a-wrong-secret")
    assert_failed(done, 2, PLACE, "SIGNATURE_DOES_NOT_MATCH", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    assert "a-wrong-secret" not in done.stderr + done.stdout
    assert not list((store.folder / BUCKET).iterdir())


@pytest.mark.usefixtures("store")
def test_keys_that_nobody_set_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(BadInputError, match=naming(PLACE, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")):
        load_place(tmp_path)


@pytest.mark.usefixtures("store")
def test_a_bucket_that_is_not_there_ends_with_3(pair: Path) -> None:
    for order in (["upload", pair], ["download"]):
        assert_failed(run(*order, "s3://cellar/published"), 3, "s3://cellar/published", "bucket")


@pytest.mark.usefixtures("store")
def test_a_place_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=naming(PLACE, TRAIN_FILE, VALIDATION_FILE)):
        load_place(tmp_path)


@pytest.mark.usefixtures("store")
def test_a_server_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
    with pytest.raises(NotThereError, match=naming(PLACE, "NETWORK_CONNECTION")):
        load_place(tmp_path)


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_tried_again(
    proxy: Proxy, pair: Path, tmp_path: Path, twin: WineData
) -> None:
    upload_folder(pair, PLACE)
    proxy.cut_after = 500_000
    with pytest.raises(NotThereError, match=naming(PLACE)):
        load_place(tmp_path / "downloads")
    assert [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()] == []
    proxy.cut_after = float("inf")
    assert load_place(tmp_path / "downloads").fingerprint == twin.fingerprint


def test_a_download_that_breaks_off_leaves_what_was_there(proxy: Proxy, pair: Path, tmp_path: Path) -> None:
    upload_folder(pair, PLACE)
    folder = fetch_folder(PLACE, tmp_path)
    before = (folder / TRAIN_FILE).read_bytes()
    (pair / TRAIN_FILE).write_bytes(before + before.splitlines(keepends=True)[-1])
    upload_folder(pair, PLACE)
    proxy.cut_after = 500_000
    with pytest.raises(NotThereError):
        fetch_folder(PLACE, tmp_path)
    assert (folder / TRAIN_FILE).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == [VALIDATION_FILE, TRAIN_FILE]


def test_an_upload_that_breaks_off_leaves_the_object_that_was_there(proxy: Proxy, store: Store, pair: Path) -> None:
    upload_folder(pair, PLACE)
    there = store.folder / BUCKET / PREFIX / TRAIN_FILE
    before = there.read_bytes()
    (pair / TRAIN_FILE).write_bytes(before + before.splitlines(keepends=True)[-1])
    proxy.cut_after = 500_000
    with pytest.raises(NotThereError, match=naming(PLACE)):
        upload_folder(pair, PLACE)
    assert there.read_bytes() == before


@pytest.mark.full
def test_12_mb_go_up_in_parts_and_come_back_the_same(proxy: Proxy, pair: Path, tmp_path: Path, twin: WineData) -> None:
    pd.concat([twin.train] * 7)[list(COLUMNS)].to_csv(pair / TRAIN_FILE, index=False)
    assert (pair / TRAIN_FILE).stat().st_size > 12_000_000
    upload_folder(pair, PLACE)
    assert re.findall(rb"PUT \S+train_wine_data.csv\?\S*partNumber=(\d)", b"\n".join(proxy.asked)) in (
        [b"1", b"2"],
        [b"2", b"1"],
    )
    folder = fetch_folder(PLACE, tmp_path / "downloads")
    assert (folder / TRAIN_FILE).read_bytes() == (pair / TRAIN_FILE).read_bytes()


def test_a_broken_data_set_is_not_uploaded(store: Store, pair: Path) -> None:
    good = pd.read_csv(pair / TRAIN_FILE)
    good.assign(quality=(good["quality"] > 5).astype(int)).to_csv(pair / TRAIN_FILE, index=False)
    with pytest.raises(BadInputError, match=naming(TRAIN_FILE, "quality", "0 and 1")):
        upload_folder(pair, PLACE)
    (pair / TRAIN_FILE).write_text("a,b\n1,2\n")
    with pytest.raises(BadInputError, match=naming(TRAIN_FILE, "pH")):
        upload_folder(pair, PLACE)
    assert not list((store.folder / BUCKET).iterdir())


@pytest.mark.parametrize("address", ["s3://", "s3:///prefix", "s3://A/b", "s3://key:hush@wines/published"])
def test_an_address_that_is_none_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(BadInputError, match=naming("s3://bucket/prefix", "AWS_ACCESS_KEY_ID")) as refused:
        check_address(address)
    assert "hush" not in str(refused.value)


def test_a_command_that_reads_folders_says_how_to_get_one(tmp_path: Path) -> None:
    done = run_here("wine_data.audit", isolated_environment(tmp_path) | {"WINE_DATA": "s3://wines/published"})
    assert_failed(done, 2, "python -m orchestration.s3 download")


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
    parent_id = start_parent(experiment_id, twin, {})
    tracked = track_model(experiment_id, parent_id, twin, twin_split, [evaluation])
    model = load_version(register_model(tracked.run_id)).pipeline
    wines = feature_frame(twin_split.holdout)
    assert (model.predict(wines) == evaluation.pipeline.predict(wines)).all()
    assert mlflow.get_run(tracked.run_id).info.artifact_uri.startswith("s3://wines/mlflow/")
    assert list((store.folder / "wines" / "mlflow").rglob("model.pkl"))
