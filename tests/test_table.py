"""Shapes of tables that people have: training, batch scoring and reports read each of them as they read a plain one."""

import csv
import gzip
import io
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from commands import BadInputError, NotThereError
from deployment.batch import chunks
from deployment.batch.chunks import divide_file, read_chunk
from deployment.batch.rows import CheckedRows, check_rows
from wine_data.schema import MEASUREMENTS, TYPE
from wine_data.table.wines import read_described_wines, read_wines
from wine_data.twin.sample import sample_twin

pytestmark = pytest.mark.fast

Rows = list[list[str]]
COLUMNS = (*MEASUREMENTS, "quality", TYPE)


@cache
def sample_once() -> pd.DataFrame:
    return sample_twin(40, seed=3)[list(COLUMNS)]


def sample_rows(count: int = 40) -> Rows:
    """A header and synthetic wines, as text."""
    wines = sample_once()[:count]
    return [list(COLUMNS), *([str(cell) for cell in row] for row in wines.itertuples(index=False))]


def join(rows: Rows, separator: str = ",", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def rename(rows: Rows, change: Callable[[str], str]) -> Rows:
    return [[change(name) for name in rows[0]], *rows[1:]]


def change_colour(rows: Rows, name: str, red: str, white: str) -> Rows:
    words = {"red": red, "white": white}
    return [[*rows[0][:-1], name], *([*row[:-1], words[row[-1]]] for row in rows[1:])]


def write_decimal_commas(rows: Rows) -> Rows:
    return [rows[0], *([cell.replace(".", ",") for cell in row] for row in rows[1:])]


def wrap(line: str) -> str:
    return '"' + line.replace('"', '""') + '"'


def number(rows: Rows, name: str | None) -> Rows:
    """A column that counts the rows before the others; None: the header does not name it."""
    first = [] if name is None else [name]
    return [first + rows[0], *([str(at), *row] for at, row in enumerate(rows[1:], start=1))]


SHAPES: dict[str, Callable[[Rows], str | bytes]] = {
    "plain": join,
    "semicolons, decimal commas, Excel": lambda rows: "\ufeff" + join(write_decimal_commas(rows), ";", "\r\n"),
    "decimal commas in quotes": lambda rows: join(write_decimal_commas(rows), quoting=csv.QUOTE_ALL),
    "tabs": lambda rows: join(rows, "\t"),
    "bars": lambda rows: join(rows, "|"),
    "spaces": lambda rows: "\n".join("  ".join(row) + " " for row in rows) + "\n",
    "R's write.table": lambda rows: join(number(rows, None), " ", quoting=csv.QUOTE_NONNUMERIC),
    "R's write.csv": lambda rows: join(number(rename(rows, lambda name: name.replace("_", ".")), ""), end="\r\n"),
    "UTF-16": lambda rows: join(rows, "\t", "\r\n").encode("utf-16"),
    "UTF-16, big-endian": lambda rows: ("\ufeff" + join(rows)).encode("utf-16-be"),
    "Latin-1": lambda rows: join([[*row, "ros\u00e9"] for row in rows]).encode("latin-1"),
    "old Mac": lambda rows: join(rows, end="\r"),
    "gzip": lambda rows: gzip.compress(join(rows).encode()),
    "two gzips in one": lambda rows: gzip.compress(join(rows[:9]).encode()) + gzip.compress(join(rows[9:]).encode()),
    "sep= line": lambda rows: "sep=;\r\n" + join(rows, ";"),
    "comments and blank lines": lambda rows: "\n# from the cellar\n\n" + join(rows),
    "header in a comment": lambda rows: "# " + join(rows),
    "blank lines": lambda rows: join(rows).replace("\n", "\n\n"),
    "comma after each row": lambda rows: join([rows[0], *([*row, ""] for row in rows[1:])]),
    "comma after the header": lambda rows: join([[*rows[0], ""], *rows[1:]]),
    "all quoted": lambda rows: join(rows, quoting=csv.QUOTE_ALL),
    "rows quoted as a whole": lambda rows: "".join(wrap(line) + "\n" for line in join(rows, ";").splitlines()),
    "header quoted as a whole": lambda rows: (
        wrap(join(rows[:1], ";", quoting=csv.QUOTE_ALL).strip()) + "\n" + join(rows[1:], ";")
    ),
    "index": lambda rows: join(number(rows, "Unnamed: 0")),
    "Id": lambda rows: join(number(rows, "Id")),
    "units": lambda rows: join(rename(rows, lambda name: f"{name.title().replace('_', ' ')} (g/dm3)")),
    "camel case": lambda rows: join(rename(rows, lambda name: name.title().replace("_", ""))),
    "sulphur": lambda rows: join(rename(rows, lambda name: name.replace("sulfur", "sulphur").upper())),
    "spaces around cells": lambda rows: "\n".join(" , ".join(row) for row in rows),
    "colour": lambda rows: join(change_colour(rows, "Colour", "Red Wine", "white wine")),
    "wine_type": lambda rows: join(change_colour(rows, "wine_type", "R", "W")),
    "is_red": lambda rows: join(change_colour(rows, "is_red", "1", "0")),
    "red_wine": lambda rows: join(change_colour(rows, "red_wine", "True", "False")),
    "red_wine as decimal": lambda rows: join(change_colour(rows, "red_wine", "1.0", "0.0")),
    "other columns": lambda rows: join(
        [[*row, "label" if at == 0 else 'the "good" one'] for at, row in enumerate(rows)]
    ),
    "inches": lambda rows: join(rows).replace("\n", ',12" bottle\n').replace(',12" bottle', ",bottle", 1),
}


def write(folder: Path, content: str | bytes, name: str = "wines.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_batch(path: Path, wine_type: str = "") -> list[CheckedRows]:
    parts = divide_file(path, wine_type).chunks
    return [check_rows(raw, {}) for part in parts for raw in read_chunk(path, part, wine_type)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_reads_as_a_plain_file_for_training_and_for_batch(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = sample_rows()
    plain = read_wines(write(tmp_path, join(rows), "plain.csv"))
    path = write(tmp_path, SHAPES[shape](rows))
    pd.testing.assert_frame_equal(read_wines(path), plain)
    monkeypatch.setattr(chunks, "READ_BYTES", 100)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 300)
    parts = read_batch(path)
    assert [part.refusals for part in parts] == [{}] * len(parts)
    np.testing.assert_array_equal(np.concatenate([part.wines for part in parts]), plain[[*MEASUREMENTS, "red_wine"]])
    numbers = np.concatenate([part.rows for part in parts]).tolist()
    assert len(set(numbers)) == 40


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("plain", ""),
        ("semicolons, decimal commas, Excel", "semicolons; decimal comma"),
        ("UTF-16", "tabs; UTF-16"),
        ("wine_type", "colour from wine_type"),
        ("other columns", "not used: label"),
        ("gzip", "gzip"),
    ],
)
def test_one_line_says_what_was_taken_for_what(tmp_path: Path, shape: str, said: str) -> None:
    path = write(tmp_path, SHAPES[shape](sample_rows()))
    description = read_described_wines(path)[1]
    assert said in description
    assert bool(said) == bool(description)
    assert description == divide_file(path).description


UNREADABLE = [
    (join(change_colour(sample_rows(), "type", "0", "1")), "is_red"),
    (join(change_colour(sample_rows(), "colour", "1", "2")), "is_red"),
    (join(change_colour(sample_rows(), "type", "rouge", "blanc")), "neither red nor white"),
    (join([sample_rows()[0], *[["1,234"] * 11 + ["5", "red"]] * 3], ";"), "1.234 or 1234"),
    ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    (b"PAR1\0\0", ".parquet"),
    (b"PK\x03\x04\0\0", "binary"),
    (gzip.compress(join(sample_rows()).encode())[:-30], "unpacked"),
    (join([[f"x{at}" for at in range(501)], ["1"] * 501]), "501 columns"),
]


@pytest.mark.parametrize(("content", "fact"), UNREADABLE, ids=[fact for _, fact in UNREADABLE])
def test_what_could_be_read_in_two_ways_or_in_none_is_refused_once(
    tmp_path: Path, content: str | bytes, fact: str
) -> None:
    path = write(tmp_path, content)
    for read in (read_wines, read_batch):
        with pytest.raises(BadInputError, match=re.escape(fact)):
            read(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (sample_rows()[1][:5], "5 fields"),
        ([*sample_rows()[1], "9", ""], "15 fields"),
        ([*sample_rows()[1][:-1], "1"], "neither red nor white"),
        (["7,0", *sample_rows()[1][1:]], "fixed_acidity"),
    ],
)
def test_a_row_among_good_ones_is_refused_and_never_lost(tmp_path: Path, row: list[str], reason: str) -> None:
    rows = sample_rows(3)
    path = write(tmp_path, join([*rows, row]))
    with pytest.raises(BadInputError, match="row 5"):
        read_wines(path)
    (part,) = read_batch(path)
    assert (len(part.wines), list(part.refusals)) == (3, [5])
    assert reason in part.refusals[5]


def test_quotation_marks_within_cells_neither_shift_nor_repeat_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "READ_BYTES", 64)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 256)
    rows = sample_rows(30)
    notes = ["note", *['12" bottle', '"a, quoted', "", 'say ""x""', '7" x 3"', '"two\nlines"'] * 5]
    text = join(rows).splitlines()
    for at, note in enumerate(notes):
        text[at] += "," + ('"a, quoted"' if note == '"a, quoted' else note)
    parts = read_batch(write(tmp_path, "\n".join(text) + "\n"))
    assert len(parts) > 3
    assert np.concatenate([part.rows for part in parts]).tolist() == list(range(2, 32))
    assert [part.refusals for part in parts] == [{}] * len(parts)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_without_a_colour_takes_the_one_it_is_given(tmp_path: Path, suffix: str) -> None:
    wines = read_wines(write(tmp_path, join(sample_rows()), "plain.csv"))[[*MEASUREMENTS, "quality"]]
    path = tmp_path / f"wines{suffix}"
    wines.to_csv(path, index=False) if suffix == ".csv" else wines.to_parquet(path)
    assert set(read_wines(path, "red")["red_wine"]) == {1}
    assert set(np.concatenate([part.wines[:, -1] for part in read_batch(path, "red")])) == {1.0}
    for read in (read_wines, read_batch):
        with pytest.raises(BadInputError, match=r"WINE_TYPE=red.*--type red"):
            read(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda wines: wines.assign(red_wine=wines[TYPE] == "red").drop(columns=TYPE),
        lambda wines: wines.assign(red_wine=(wines[TYPE] == "red").astype("Int8")).drop(columns=TYPE),
        lambda wines: wines.astype({"density": "Float64", "quality": "Int64", "alcohol": "float32"}),
        lambda wines: wines.astype({TYPE: "category"}),
    ],
    ids=["booleans", "integers", "nullable", "categories"],
)
def test_parquet_types_are_read(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    plain = read_wines(write(tmp_path, join(sample_rows()), "plain.csv")).drop(columns="red_wine").round({"alcohol": 0})
    path = tmp_path / "WINES.PARQUET"
    change(plain).to_parquet(path)
    assert len(read_wines(path)) == sum(len(part.wines) for part in read_batch(path)) == 40


def test_a_boolean_is_no_measurement(tmp_path: Path) -> None:
    wines = read_wines(write(tmp_path, join(sample_rows()), "plain.csv"))
    wines.assign(pH=True).to_parquet(tmp_path / "wines.parquet")
    for read in (read_wines, read_batch):
        with pytest.raises(BadInputError, match="pH"):
            read(tmp_path / "wines.parquet")


def test_a_place_that_cannot_be_read_is_an_outside_failure_for_training_and_for_batch(tmp_path: Path) -> None:
    failing = tmp_path / "wines.csv"
    failing.symlink_to("/proc/self/mem")  # opens, and answers the first read with an input/output error
    for read in (read_wines, read_batch):
        with pytest.raises(NotThereError, match=failing.name):
            read(failing)
