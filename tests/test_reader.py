import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from commands import BadInputError, NotThereError
from tests.messages import naming
from wine_data.schema import MEASUREMENTS
from wine_data.table.wines import COLUMNS, read_wines

pytestmark = pytest.mark.fast

HEADER = (  # in full, so that these files stay what they are where the schema has fewer features
    "type,fixed_acidity,volatile_acidity,citric_acid,residual_sugar,chlorides,free_sulfur_dioxide,"
    "total_sulfur_dioxide,density,pH,sulphates,alcohol,quality"
)
WHITE = "white,7,0.27,0.36,20.7,0.045,45,170,1.001,3,0.45,8.8,6"
RED = "red,7.4,0.7,0,1.9,0.076,11,34,0.9978,3.51,0.56,9.4,5"


def write(folder: Path, *lines: str) -> Path:
    path = folder / "wines.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_plain_file_is_read_with_its_colour_encoded(tmp_path: Path) -> None:
    wines = read_wines(write(tmp_path, HEADER, WHITE, RED))
    assert wines["red_wine"].tolist() == [0, 1]
    assert wines["quality"].tolist() == [6, 5]
    assert wines["density"].tolist() == [1.001, 0.9978]


def test_an_original_without_type_column_takes_the_colour_it_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER.removeprefix("type,"), WHITE.removeprefix("white,"))
    assert read_wines(path, wine_type="white")["red_wine"].tolist() == [0]
    original = path.rename(tmp_path / "winequality-white.csv")
    assert read_wines(original)["red_wine"].tolist() == [0]


def test_a_blank_cell_is_a_hole(tmp_path: Path) -> None:
    wines = read_wines(write(tmp_path, HEADER, WHITE.replace("0.27", "")))
    assert wines["volatile_acidity"].isna().tolist() == [True]


@pytest.mark.parametrize(
    ("lines", "facts"),
    [
        ((), ["empty"]),
        ((HEADER,), ["no wines"]),
        ((WHITE, RED), ["no header"]),
        ((HEADER.replace("pH,", ""), WHITE.replace("3,", "")), ["pH"]),
        ((HEADER.removeprefix("type,"), WHITE.removeprefix("white,")), ["type", "WINE_TYPE=red", "--type red"]),
        ((HEADER.replace("type", "kind"), WHITE.replace("white", "0")), ["type", "kind"]),
        ((HEADER.replace("type", "colour"), WHITE.replace("white", "0")), ["colour", "0", "is_red"]),
        ((HEADER + ",type", WHITE + ",red"), ["type", "more than once"]),
        ((HEADER, WHITE, WHITE + ",9"), ["row 3", "14", "13"]),
        ((HEADER, *[RED.replace("9.4", "strong")] * 7), ["alcohol", "row 2", "row 6", "2 more"]),
        ((HEADER, WHITE, RED.replace("0.9978", "light")), ["density", "row 3", "light"]),
        ((HEADER, WHITE.replace("1.001", "inf")), ["density", "row 2", "inf"]),
        ((HEADER, WHITE.replace("white", "pink")), ["type", "row 2", "pink"]),
        ((HEADER, WHITE + "0"), ["quality", "row 2", "60"]),
        ((HEADER, WHITE, RED[:40]), ["row 3", "10 fields", "13"]),
        ((HEADER, WHITE, RED[:-1]), ["quality", "row 3", "missing"]),
        ((HEADER, WHITE, RED + ",1,2"), ["13", "15"]),  # fields
    ],
)
def test_a_bad_file_is_refused_with_file_column_and_row(
    tmp_path: Path, lines: tuple[str, ...], facts: list[str]
) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(BadInputError, match=naming(str(path), *facts)):
        read_wines(path)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wines.csv"
    path.write_bytes(b"PK\x03\x04\0\0wines")
    with pytest.raises(BadInputError, match="binary"):
        read_wines(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=naming("none.csv", "No such file or directory")):
        read_wines(tmp_path / "none.csv")


CELLS = st.floats(0, 1000, allow_nan=False).map(lambda value: f"{value:.5g}") | st.just("")
ROWS = st.lists(
    st.tuples(st.sampled_from(["red", "white", "Red", "WHITE"]), *[CELLS] * len(MEASUREMENTS), st.integers(0, 10)),
    min_size=1,
    max_size=8,
)


@given(rows=ROWS, separator=st.sampled_from(",;"), order=st.permutations(range(len(COLUMNS))), mark=st.booleans())
def test_any_table_of_wines_comes_back_cell_by_cell(
    rows: list[tuple[object, ...]], separator: str, order: list[int], mark: bool
) -> None:
    lines = [separator.join(str(row[position]) for position in order) for row in [COLUMNS, *rows]]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "wines.csv"
        path.write_text("\n".join(lines), encoding="utf-8-sig" if mark else "utf-8")
        wines = read_wines(path)
    assert wines["type"].tolist() == [str(row[0]).lower() for row in rows]
    assert wines["quality"].tolist() == [row[-1] for row in rows]
    for position, name in enumerate(MEASUREMENTS, start=1):
        expected = [float(str(row[position]) or "nan") for row in rows]
        assert wines[name].tolist() == pytest.approx(expected, nan_ok=True, rel=0, abs=0)


@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
@example(content=HEADER.encode() + b"\n\xff\xfe")
@example(content=HEADER.encode() + b'\n"white')
@example(content=(HEADER + "\n" + WHITE[:-2]).encode())
@example(content=b"\n\n \n")
@example(content=b"," * 200)
def test_any_other_file_is_refused_and_never_breaks_the_reader(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "wines.csv"
        path.write_bytes(content)
        with pytest.raises(BadInputError, match=re.escape(str(path))):
            read_wines(path)


@given(cut=st.integers(1, len(HEADER) + len(WHITE) + len(RED) - 1))
def test_a_file_cut_off_anywhere_is_refused_or_ends_at_a_row(cut: int) -> None:
    whole = "\n".join([HEADER, WHITE, RED]) + "\n"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "wines.csv"
        path.write_text(whole[:cut])
        try:
            wines = read_wines(path)
        except BadInputError:
            return
        assert whole[: cut + 1].count("\n") == 1 + len(wines)
