"""Large files: divided, read, divided into wines and refusals, scored on cores, killed and taken up again."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from commands import BadInputError, NotThereError
from deployment.batch import __main__ as batch
from deployment.batch import chunks
from deployment.batch.chunks import divide_file, read_chunk
from deployment.batch.file import ScoredFile, map_chunks, score_file
from deployment.batch.rows import CheckedRows, check_rows
from executors import open_executor
from settings import ROOT
from tests.conftest import isolated_environment
from tests.messages import find_lines, list_missing, naming
from tests.test_batch import read_files, read_refused
from tests.test_s3 import BUCKET, Store, store  # noqa: F401  (a fixture)
from tests.waiting import wait_until
from wine_data.schema import BOUNDS, FEATURES, MEASUREMENTS, TYPE, WineQuality, feature_values
from wine_data.table.columns import match_columns
from wine_data.twin.sample import sample_twin

HEADER = ",".join((TYPE, *MEASUREMENTS))
GOOD = "7.0,0.27,0.36,20.7,0.045,45,170,1.001,3.0,0.45,8.8"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of about five rows, read in pieces of one or two."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 300)
    monkeypatch.setattr(chunks, "READ_BYTES", 100)


def read_all(path: Path) -> list[CheckedRows]:
    chunks = divide_file(path).chunks
    return [check_rows(cells, {}) for chunk in chunks for cells in read_chunk(path, chunk)]


def write_rows(path: Path, rows: list[str], header: str = HEADER, end: str = "\n") -> Path:
    path.write_bytes(("\ufeff" + end.join((header, *rows)) + end).encode())
    return path


def write_twin(path: Path, rows: int) -> Path:
    wines = sample_twin(rows, seed=5)[[TYPE, *MEASUREMENTS]]
    if path.suffix == ".csv":
        wines.to_csv(path, index=False)
    else:
        wines.to_parquet(path, index=False, row_group_size=25_000)
    return path


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_keep_their_numbers_whatever_part_they_come_to_lie_in(tmp_path: Path, end: str) -> None:
    rows = [f"white,{GOOD},a"] * 3 + [f'red,{GOOD},"two{end}lines, and ""more"""', f"red,{GOOD}", f"rose,{GOOD},x"]
    rows += [f"red,{GOOD},x,y,z", f" Red ,{GOOD.replace('8.8', ' 8.8')},", f"white,{GOOD.replace('3.0', 'NA')},"]
    rows += [f"red,{GOOD},"] * 20
    path = write_rows(tmp_path / "wines.csv", rows, f"{HEADER},note".replace("fixed_acidity", "Fixed acidity"), end)
    parts = read_all(path)
    assert len(parts) > 4
    assert np.concatenate([part.rows for part in parts]).tolist() == [2, 3, 4, 5, 9, *range(11, 31)]
    found = {row: reason for part in parts for row, reason in part.refusals.items()}
    metadata = {6: ("12", "13"), 7: ("type", "rose"), 8: ("15", "13"), 10: ("pH",)}
    assert found.keys() == metadata.keys()
    assert [reason for row, reason in found.items() if list_missing(reason, *metadata[row])] == []


@pytest.mark.usefixtures("small_parts")
def test_blank_lines_count_as_rows_and_are_not_refused(tmp_path: Path) -> None:
    (part,) = read_all(write_rows(tmp_path / "wines.csv", [f"white,{GOOD}", "", f"white,{GOOD}"]))
    assert (part.rows.tolist(), part.refusals) == ([2, 4], {})


@pytest.mark.usefixtures("small_parts")
def test_a_quotation_mark_that_is_never_closed_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "wines.csv", [f"white,{GOOD},fine", f'white,{GOOD},"cut off'], f"{HEADER},note")
    with pytest.raises(BadInputError, match=naming("wines.csv", "quotation", "row 2")):
        divide_file(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "empty"),
        ("b.csv", f"{HEADER}\n".encode(), "no wines"),
        ("c.csv", b"PK\x03\x04\0\0", "binary"),
        ("d.csv", f"white,{GOOD}\n".encode(), "no header"),
        ("e.parquet", b"white wine", "magic bytes"),  # as Arrow calls what a Parquet file begins and ends with
    ],
)
def test_what_is_no_file_of_wines_is_told_by_name(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInputError, match=naming(name, reason)):
        divide_file(tmp_path / name)


def test_a_parquet_file_without_wines_or_with_other_things_than_numbers_is_refused(tmp_path: Path) -> None:
    wines = pa.table({name: pa.array([], pa.float64()) for name in FEATURES})
    pyarrow.parquet.write_table(wines, tmp_path / "none.parquet")
    with pytest.raises(BadInputError, match=naming("none.parquet", "no wines")):
        divide_file(tmp_path / "none.parquet")
    lists = wines.set_column(3, "residual_sugar", pa.array([], pa.list_(pa.float64())))
    pyarrow.parquet.write_table(lists, tmp_path / "lists.parquet")
    with pytest.raises(BadInputError, match=naming("lists.parquet", "residual_sugar", "list<")):
        divide_file(tmp_path / "lists.parquet")


def test_a_parquet_file_may_hold_whole_numbers_text_and_categories(tmp_path: Path) -> None:
    wine = dict(zip(MEASUREMENTS, GOOD.split(","), strict=True))
    table = pd.DataFrame([wine, wine | {"alcohol": "strong"}]).astype(
        {"total_sulfur_dioxide": "int64", "pH": "float32"}
    )
    table.assign(type=pd.Categorical(["red", "white"])).to_parquet(tmp_path / "wines.parquet")
    (part,) = read_all(tmp_path / "wines.parquet")
    assert part.wines.tolist() == [[*map(float, wine.values()), 1.0]]
    assert list(part.refusals) == [3]


def test_text_in_another_encoding_is_read(tmp_path: Path) -> None:
    (tmp_path / "wines.csv").write_bytes(f"{HEADER},note\nred,{GOOD},ros\u00e9\n".encode("latin-1"))
    (part,) = read_all(tmp_path / "wines.csv")
    assert (len(part.wines), part.refusals) == (1, {})


CELLS = st.one_of(
    st.floats(-1, 400).map(repr),
    st.sampled_from(
        ["", "NA", "nan", "inf", "-inf", " 7 ", "7.", "+7", "1e1", "1_0", "0x7", "7,0", "\u0667", "strong", "0", "1"]
    ),
)


@given(st.lists(st.tuples(st.sampled_from(MEASUREMENTS), CELLS), min_size=1, max_size=6))
def test_a_row_is_a_wine_here_where_it_is_one_for_the_schema(changes: list[tuple[str, str]]) -> None:
    """Bounds on whole columns and the schema on single rows come to one verdict, and to the same numbers."""
    wine = dict(zip(MEASUREMENTS, GOOD.split(","), strict=True)) | {"red_wine": "1"}
    rows = [wine, *(wine | {name: cell} for name, cell in changes)]
    names = dict(zip(FEATURES, (*MEASUREMENTS, TYPE), strict=True))
    table = pa.table({names[name]: pa.array([row[name] or None for row in rows], pa.string()) for name in FEATURES})
    checked = check_rows(chunks.RawRows(table, match_columns(FEATURES, "wines"), np.arange(len(rows)), {}), {})
    expected = {}
    for row, cells in enumerate(rows):
        try:
            given_cells = {name: cell for name, cell in cells.items() if cell}
            expected[row] = feature_values(WineQuality.model_validate_strings(given_cells))
        except ValidationError:
            assert row in checked.refusals
    assert dict(zip(checked.rows.tolist(), map(tuple, checked.wines.tolist()), strict=True)) == expected


@given(st.data())
def test_numbers_of_a_csv_file_are_read_to_the_last_bit(data: st.DataObject) -> None:
    values = {name: repr(data.draw(st.floats(*BOUNDS[name]), name)) for name in MEASUREMENTS}
    text = f"{','.join(FEATURES)}\n{','.join(values.values())},1\n".encode()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "wines.csv"
        path.write_bytes(text)
        (part,) = read_all(path)
    assert part.wines.tolist() == [[*map(float, values.values()), 1.0]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_parts_on_two_cores_answer_as_one_process_does(
    bundles: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1_000_000)
    monkeypatch.setattr(chunks, "READ_BYTES", 500_000)
    wines = write_twin(tmp_path / f"wines{suffix}", 60_000)
    seen: list[tuple[int, int]] = []
    with open_executor(2) as executor:
        scored = score_file(
            wines, bundles, tmp_path / "two", map_chunks(executor, lambda done, of: seen.append((done, of)))
        )
    alone = score_file(wines, bundles, tmp_path / "one")
    assert (scored.manifest.scored, scored.manifest.refused, scored.refused) == (60_000, 0, None)
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]
    assert len(seen) >= 3
    assert read_files(scored.answers) == read_files(alone.answers)
    assert pd.read_parquet(scored.answers)["row"].tolist() == list(range(2, 60_002))


def test_csv_and_parquet_of_the_same_wines_get_the_same_answers(bundles: Path, tmp_path: Path) -> None:
    files = [write_twin(tmp_path / f"wines{suffix}", 2_000) for suffix in (".csv", ".parquet")]
    both = [score_file(file, bundles, tmp_path / "answers") for file in files]
    one, other = (pd.read_parquet(scored.answers).drop(columns="request_id") for scored in both)
    pd.testing.assert_frame_equal(one, other)


def score_in_process(wines: Path, models: Path, answers: Path) -> "subprocess.Popen[str]":
    """The command on two cores, in small parts."""
    small = "import deployment.batch.chunks as p; p.CHUNK_BYTES = 400_000; p.READ_BYTES = 100_000"
    command = "from commands import run_command; from deployment.batch.__main__ import main; run_command(main)"
    places = {"WINE_SERVING_MODELS": str(models), "WINE_BATCH_ANSWERS": str(answers), "WINE_BATCH_CORES": "2"}
    return subprocess.Popen(
        [sys.executable, "-c", f"{small}\nif __name__ == '__main__':\n    {command}", str(wines)],
        cwd=ROOT, env=isolated_environment(answers.parent) | places,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for_parts(answers: Path, number: int) -> None:
    def are_written() -> bool:
        return len(list(answers.glob("*/answers/*.parquet"))) >= number

    wait_until(are_written, f"{number} parts in {answers}", seconds=120, every=0.01)


def list_session(leader: int) -> list[int]:
    """The processes of a session that are alive."""
    done = subprocess.run(["ps", "-o", "pid=,stat=", "--sid", str(leader)], capture_output=True, text=True, check=False)
    return [int(line.split()[0]) for line in done.stdout.splitlines() if "Z" not in line.split()[1]]


@pytest.mark.full
def test_a_run_that_was_killed_leaves_no_process_and_goes_on_where_it_was(bundles: Path, tmp_path: Path) -> None:
    wines, answers = write_twin(tmp_path / "wines.csv", 100_000), tmp_path / "answers"
    killed = score_in_process(wines, bundles, answers)
    wait_for_parts(answers, 2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    wait_until(lambda: not list_session(killed.pid), "the end of its processes")
    done = {path: path.stat().st_mtime_ns for path in answers.glob("*/answers/part-*.parquet")}
    (manifest,) = answers.glob("*/manifest.json")
    assert '"done": false' in manifest.read_text()
    again = score_in_process(wines, bundles, answers)
    output, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert find_lines(output, "wines.csv", "100,000", "version 1")
    assert 2 <= len(done) < len(list(answers.glob("*/answers/part-*.parquet")))
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert '"done": true' in manifest.read_text()
    table = pd.read_parquet(manifest.parent / "answers")
    assert table["row"].tolist() == list(range(2, 100_002))


@pytest.mark.full
def test_ctrl_c_ends_it_without_a_traceback(bundles: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers"
    stopped = score_in_process(write_twin(tmp_path / "wines.csv", 200_000), bundles, answers)
    wait_for_parts(answers, 1)
    os.killpg(stopped.pid, signal.SIGINT)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's count of a process's peak memory")
def test_memory_does_not_grow_with_the_file(bundles: Path, tmp_path: Path) -> None:
    """Ten times the wines, in one process; its own count of its peak, since getrusage counts the parent's too."""
    peaks = []
    for rows in (100_000, 1_000_000):
        wines = write_twin(tmp_path / f"{rows}.parquet", rows)
        places = {"WINE_SERVING_MODELS": str(bundles), "WINE_BATCH_ANSWERS": str(tmp_path), "WINE_BATCH_CORES": "1"}
        measured = "from pathlib import Path\nfrom deployment.batch.__main__ import main\nmain()\n"
        measured += "print(Path('/proc/self/status').read_text())"
        done = subprocess.run(
            [sys.executable, "-c", measured, str(wines)],
            cwd=ROOT, env=isolated_environment(tmp_path) | places, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks.append(int(re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)[0]) / 1024)
    assert peaks[1] - peaks[0] < 100


def test_a_folder_of_files_in_a_bucket_is_scored_into_the_bucket(
    bundles: Path,
    store: Store,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = store.folder / BUCKET / "may"
    folder.mkdir()
    write_twin(folder / "a.csv", 400)
    write_twin(folder / "b.parquet", 400)
    write_rows(folder / "c.csv", [f"white,{GOOD}", f"rose,{GOOD}"])
    monkeypatch.setenv("WINE_SERVING_MODELS", str(bundles))
    monkeypatch.setenv("WINE_BATCH_WINES", f"s3://{BUCKET}/may")
    monkeypatch.setenv("WINE_BATCH_ANSWERS", f"s3://{BUCKET}/answers")
    monkeypatch.setenv("WINE_BATCH_CORES", "1")
    monkeypatch.setattr(sys, "argv", ["batch"])
    assert batch.main() == 0
    assert find_lines(capsys.readouterr().out, "a.csv", "400", "version 1", "s3://wines/answers/a.1.")
    answers = sorted((store.folder / BUCKET / "answers").glob("*/answers/*.parquet"))
    assert [pyarrow.parquet.ParquetFile(path).metadata.num_rows for path in answers] == [400, 400, 1]
    (refused,) = (store.folder / BUCKET / "answers").glob("c.*/refused/*.csv")
    assert "rose" in refused.read_text()
    written = [path.stat().st_mtime_ns for path in answers]
    batch.main()
    assert len(find_lines(capsys.readouterr().out, "version 1", "s3://wines/answers/")) == 3
    assert [path.stat().st_mtime_ns for path in answers] == written


def test_a_file_that_is_not_there_is_refused(bundles: Path, tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=naming("none.csv")):
        score_file(tmp_path / "none.csv", bundles, tmp_path / "answers")


def test_refusals_of_every_part_are_kept(bundles: Path, tmp_path: Path, small_parts: None) -> None:  # noqa: ARG001
    wines = write_rows(tmp_path / "wines.csv", [f"white,{GOOD}", f"rose,{GOOD}"] * 20)
    scored: ScoredFile = score_file(wines, bundles, tmp_path / "answers")
    assert (scored.manifest.scored, scored.manifest.refused) == (20, 20)
    assert read_refused(scored).index.tolist() == list(range(3, 42, 2))
