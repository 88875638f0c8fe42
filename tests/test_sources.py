import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from commands import BadInputError, NotThereError
from tests.folders import isolated_environment
from tests.messages import assert_failed, find_lines, list_missing, naming
from tests.running import run_here
from tests.wines import NOWHERE, load_as_default
from wine_data.schema import MEASUREMENTS
from wine_data.sources import load
from wine_data.sources.download import download_uci
from wine_data.sources.load import ORIGINALS, TRAIN_FILE, VALIDATION_FILE, WineData, load_wines
from wine_data.sources.pair import BLANKS
from wine_data.sources.partitions import read_partitions
from wine_data.split import drop_duplicates
from wine_data.table.wines import COLUMNS

pytestmark = pytest.mark.fast
Change = Callable[[pd.DataFrame], pd.DataFrame]


def count_blanks(wines: pd.DataFrame) -> dict[object, int]:
    blanks = wines[list(MEASUREMENTS)].isna().sum()
    return blanks[blanks > 0].to_dict()


def write_pair(folder: Path, data: WineData) -> None:
    for name, wines in ((TRAIN_FILE, data.train), (VALIDATION_FILE, data.validation)):
        wines[[column for column in COLUMNS if column in wines]].to_csv(folder / name, index=False)


def assert_published_shape(data: WineData) -> None:
    assert (len(data.train), len(data.validation)) == (32485, 6497)
    assert count_blanks(data.validation) == BLANKS


def test_the_twin_has_the_published_shapes_and_blanks(twin: WineData) -> None:
    assert_published_shape(twin)
    assert twin.train.notna().all().all()


def test_the_twin_is_the_same_for_a_seed_and_another_for_another(twin: WineData) -> None:
    again, other = (load_wines("twin", seed, Path("nowhere"), "") for seed in (42, 43))
    assert again.fingerprint == twin.fingerprint
    assert other.fingerprint != twin.fingerprint
    assert twin.source == "twin (synthetic, seed 42)"


def test_a_folder_gives_back_what_was_written_to_it(tmp_path: Path, twin: WineData) -> None:
    write_pair(tmp_path, twin)
    read = load_as_default(str(tmp_path))
    pd.testing.assert_frame_equal(read.train, twin.train)
    assert read.fingerprint == twin.fingerprint
    assert read.source == f"folder {tmp_path.name}"


def test_the_fingerprint_changes_with_one_digit_and_with_the_order(twin: WineData) -> None:
    changed = twin.train.assign(density=twin.train["density"].where(twin.train.index != 7, 0.99999))
    prints = {load.fingerprint_wines(table) for table in (twin.train, changed, twin.train.iloc[::-1])}
    assert len(prints) == 3


def test_a_folder_without_the_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=naming(str(tmp_path), TRAIN_FILE, VALIDATION_FILE, *ORIGINALS.values())):
        load_as_default(str(tmp_path))
    with pytest.raises(NotThereError, match=naming("WINE_DATA", str(tmp_path / "none"))):
        load_as_default(str(tmp_path / "none"))


def test_a_source_that_is_no_source_is_refused() -> None:
    with pytest.raises(BadInputError, match=naming("WINE_DATA", "tween", "auto", "uci", "kaggle", "twin")):
        load_as_default("tween")


@pytest.mark.parametrize(
    ("train", "validation", "facts"),
    [
        (lambda wines: wines[wines["type"] == "white"], lambda wines: wines, (TRAIN_FILE, "white", "only")),
        (lambda wines: wines.assign(pH=float("nan")), lambda wines: wines, (TRAIN_FILE, "pH")),
        (lambda wines: wines, lambda wines: wines.drop(columns="pH"), (VALIDATION_FILE, "pH")),
    ],
    ids=["one colour", "a column without any value", "a column in one file only"],
)
def test_a_pair_with_a_fault_is_refused_by_file(
    tmp_path: Path, twin: WineData, train: Change, validation: Change, facts: tuple[str, ...]
) -> None:
    write_pair(tmp_path, replace(twin, train=train(twin.train), validation=validation(twin.validation)))
    with pytest.raises(BadInputError, match=naming(*facts)):
        load_as_default(str(tmp_path))


@pytest.fixture
def drop_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of the one that `auto` looks into first."""
    monkeypatch.setattr(load, "DROP_FOLDER", tmp_path)
    return tmp_path


def test_auto_takes_the_files_that_were_dropped_in(drop_folder: Path, twin: WineData) -> None:
    write_pair(drop_folder, twin)
    assert load_as_default("auto").source == f"folder {drop_folder.name}"


def test_auto_refuses_a_fault_in_the_files_that_were_dropped_in(drop_folder: Path) -> None:
    (drop_folder / TRAIN_FILE).write_text("a,b\n1,2\n")
    with pytest.raises(NotThereError, match=naming(str(drop_folder), VALIDATION_FILE)):
        load_as_default("auto")
    (drop_folder / VALIDATION_FILE).write_text("a,b\n1,2\n")
    with pytest.raises(BadInputError, match=naming(TRAIN_FILE, "column")):
        load_as_default("auto")


def test_auto_falls_back_to_the_twin_and_says_so(drop_folder: Path) -> None:
    data = load_as_default("auto")
    assert data.source.startswith("twin")
    assert list_missing(data.note, drop_folder.name, NOWHERE, "synthetic") == []
    assert list_missing(data.introduce(), data.note, "no connection", "wine_data/", "WINE_UCI_URL") == []


@pytest.mark.real_data
def test_the_real_folder_is_read_whole(real_data: WineData) -> None:
    assert_published_shape(real_data)


@pytest.mark.real_data
def test_the_two_originals_make_a_pair_of_the_published_shape(real_folder: Path, tmp_path: Path) -> None:
    for name in ORIGINALS.values():
        shutil.copy(real_folder / name, tmp_path)
    data = load_as_default(str(tmp_path))
    assert_published_shape(data)
    assert len(drop_duplicates(data.validation)) == 5320
    assert len(drop_duplicates(data.train)) == pytest.approx(5288, abs=15)


class Handler(BaseHTTPRequestHandler):
    """A server of the real files, with one fault or none."""

    fault = ""
    folder: Path

    def do_GET(self) -> None:
        content = (self.folder / Path(self.path).name).read_bytes()
        if self.fault == "late":
            time.sleep(2)
        self.send_response(404 if self.fault == "not found" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        sent = content.replace(b"7.4", b"7.5", 1) if self.fault == "another" else content
        self.wfile.write(sent[: len(sent) // 2] if self.fault == "half" else sent)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def uci(real_folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of that server; the test's parameter is its fault."""
    faulty = type("Faulty", (Handler,), {"folder": real_folder, "fault": getattr(request, "param", "")})
    with ThreadingHTTPServer(("127.0.0.1", 0), faulty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.real_data
def test_uci_is_downloaded_once_and_then_kept(uci: str, tmp_path: Path) -> None:
    first = load_wines("uci", 42, tmp_path / "kept", uci)
    second = load_wines("uci", 42, tmp_path / "kept", NOWHERE)
    assert first.fingerprint == second.fingerprint
    assert first.source == "uci (pair made with seed 42)"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted(ORIGINALS.values())


@pytest.mark.real_data
def test_a_kept_file_that_was_changed_is_downloaded_again(uci: str, tmp_path: Path) -> None:
    download_uci(tmp_path, uci, timeout=5)
    (tmp_path / ORIGINALS["red"]).write_text("wine")
    download_uci(tmp_path, uci, timeout=5)
    assert len((tmp_path / ORIGINALS["red"]).read_text()) > 80_000


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("uci", "kind", "reason"),
    [
        ("another", BadInputError, "SHA-256"),
        ("half", NotThereError, "WINE_UCI_URL"),
        ("not found", NotThereError, "HTTP 404"),
        ("late", NotThereError, "too long"),
    ],
    indirect=["uci"],
)
def test_a_download_that_fails_says_why_and_leaves_nothing(
    uci: str, kind: type[Exception], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=naming(f"{uci}{ORIGINALS['red']}", reason)):
        download_uci(tmp_path / "kept", uci, timeout=0.5)
    assert list((tmp_path / "kept").iterdir()) == []


def test_the_command_says_what_a_source_holds(tmp_path: Path) -> None:
    done = run_here("wine_data.sources", isolated_environment(tmp_path), "twin")
    assert done.returncode == 0
    assert find_lines(done.stdout, "32,485", "6,497")


def test_a_server_that_cannot_be_reached_ends_make_data_with_3(tmp_path: Path) -> None:
    done = run_here("wine_data.sources", isolated_environment(tmp_path) | {"WINE_UCI_URL": NOWHERE}, "uci")
    assert_failed(done, 3, f"{NOWHERE}{ORIGINALS['red']}", "no connection", "WINE_UCI_URL")


def test_kaggle_out_of_reach_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAGGLE_API_ENDPOINT", NOWHERE.rstrip("/"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    with pytest.raises(NotThereError, match="subhajournal/wine-quality-data-combined"):
        load_as_default("kaggle")


def test_two_grades_are_refused_in_a_folder_and_in_partitions(twin: WineData, tmp_path: Path) -> None:
    train, validation = (
        wines.head(1000).assign(quality=(wines["quality"] > 5).astype(int)) for wines in (twin.train, twin.validation)
    )
    write_pair(tmp_path, replace(twin, train=train, validation=validation))
    for read in (load_as_default, lambda folder: read_partitions(Path(folder))):
        with pytest.raises(BadInputError, match=naming("quality", "0 and 1")):
            read(str(tmp_path))
