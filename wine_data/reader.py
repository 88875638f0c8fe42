"""One file of wines into one table, whatever way people downloaded it.

Accepted: names with spaces or underscores in any case, `,` or `;`, a byte order mark, colours in
any case, an index column, blank lines. Anything else is refused with file, column and row.
"""

import csv
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from commands import BadInputError
from wine_data.schema import MEASUREMENTS, RED, SCALE, TARGET, TYPE, TYPES, UNUSED, encode_type

COLUMNS = (TYPE, *MEASUREMENTS, TARGET)
_INDEX_NAMES = ("", "index", "id")
_OTHER_NAMES = {"color": TYPE, "colour": TYPE} | {name.lower(): name for name in (*COLUMNS, *UNUSED)}


def read_wines(path: Path, wine_type: str | None = None) -> pd.DataFrame:
    """Read one file of wines: CSV with a header, or Parquet.

    Args:
        path: the file; one that ends in .parquet is that.
        wine_type: the colour of every wine, for the UCI originals, which have no `type` column.

    Returns:
        A table with the columns type, the eleven measurements (float64, holes as NaN), quality
        (int64) and red_wine, one row a wine, in the file's order.

    Raises:
        BadInputError: names the file, the column and the row (the header is row 1).
    """
    table = read_cells(path)
    if wine_type is not None:
        table[TYPE] = wine_type
    _require_columns(table, path)
    wines = pd.DataFrame({TYPE: _read_types(table[TYPE], path)})
    for column in (*MEASUREMENTS, TARGET):
        wines[column] = _read_numbers(table[column], path)
    wines[TARGET] = _read_grades(wines[TARGET], path)
    return encode_type(wines.reset_index(drop=True))


@dataclass(frozen=True)
class Header:
    """The first row of a file: its names as in the schema, what separates them, its length in bytes."""

    names: list[str]
    separator: str
    length: int


def read_header(start: bytes, name: str) -> Header:
    """Read the header from the first bytes of a file.

    Raises:
        BadInputError: there is no header there.
    """
    _require_text(start, name)
    line, end, _ = start.partition(b"\n")
    separator = _find_separator(line)
    try:
        names = next(csv.reader([line.decode("utf-8-sig").rstrip("\r")], delimiter=separator))
    except (UnicodeDecodeError, StopIteration) as error:
        raise BadInputError(f"{name} is not a table of text: its first row cannot be read") from error
    return Header(_require_names(canonical_names(names), name), separator, len(line) + len(end))


def read_cells(path: Path) -> pd.DataFrame:
    """Read one file, its columns named as in the schema; the index counts its rows from 0. Cells of CSV are text.

    Raises:
        BadInputError: it holds no table, or one without a header.
    """
    return _name_columns(_read_parquet(path) if path.suffix == ".parquet" else _read_text(path), path)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path).reset_index(drop=True)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise BadInputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if table.empty:
        raise BadInputError(f"{path} holds no wines")
    return table


def _read_text(path: Path) -> pd.DataFrame:
    """Read all cells as text; the index counts the rows of the file, so that an error can name one."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
    _require_text(start, path)
    separator = _find_separator(start.lstrip().splitlines()[0])
    try:
        with warnings.catch_warnings():
            # Rows that are longer than the header would lose their last fields, with only a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, sep=separator, dtype=str, encoding="utf-8-sig", index_col=False, skip_blank_lines=False
            )
    except pd.errors.ParserWarning as error:
        raise BadInputError(f"{path} has more fields in its rows than names in its header") from error
    except (ValueError, pd.errors.ParserError) as error:  # also: not UTF-8
        raise BadInputError(f"{path} is not a table of text: {str(error).strip()}") from error
    table = table.dropna(how="all")
    if table.empty:
        raise BadInputError(f"{path} holds a header and no wines")
    return table


def _require_text(start: bytes, name: object) -> None:
    if not start.strip():
        raise BadInputError(f"{name} is empty; it should hold wines, one a row under a header")
    if b"\0" in start:
        raise BadInputError(f"{name} is a binary file; wines are read from CSV text")


def _find_separator(header: bytes) -> str:
    return ";" if header.count(b";") > header.count(b",") else ","


def _require_names(names: list[str], path: object) -> list[str]:
    if all(name in TYPES or re.fullmatch(r"[\d.]+", name) for name in names):
        raise BadInputError(f"{path} has no header: its first row is {', '.join(names[:4])}, …")
    return names


def _name_columns(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    names = _require_names(canonical_names(map(str, table.columns)), path)
    table = table.set_axis(names, axis="columns")
    return table.drop(columns=[name for name in names if name in _INDEX_NAMES])


def canonical_names(names: Iterable[str]) -> list[str]:
    """The names of columns as the schema writes them; "" for one that pandas made up for an index."""
    return [_canonical_name(name) for name in names]


def _canonical_name(name: str) -> str:
    name = re.sub(r"[\s_\-]+", "_", name.strip().lower()).strip("_")
    if name.startswith("unnamed:"):
        return ""
    return _OTHER_NAMES.get(name, name.replace("sulphur", "sulfur"))


def _require_columns(table: pd.DataFrame, path: Path) -> None:
    missing = [name for name in COLUMNS if name not in table.columns]
    unknown = [name for name in table.columns if name not in (*COLUMNS, *UNUSED)]
    repeated = sorted(set(table.columns[table.columns.duplicated()]))
    found = f"found {', '.join(table.columns)}"
    if missing:
        hint = (
            f". {RED}, 0 or 1, is what the API takes; a file has {TYPE}, {' or '.join(TYPES)}" if RED in table else ""
        )
        raise BadInputError(f"{path} lacks the column {', '.join(missing)}; {found}{hint}")
    if unknown:
        raise BadInputError(
            f"{path} has the unknown column {', '.join(unknown)}; remove it, or put it among UNUSED in "
            f"wine_data/schema.py. Known: {', '.join(COLUMNS)}"
        )
    if repeated:
        raise BadInputError(f"{path} has the column {', '.join(repeated)} twice; {found}")


def _read_types(column: pd.Series, path: Path) -> pd.Series:
    types = column.str.strip().str.lower()
    _refuse_first(~types.isin(TYPES), column, path, f"is neither {TYPES[0]} nor {TYPES[1]}")
    return types


def _read_numbers(column: pd.Series, path: Path) -> pd.Series:
    """Read numbers to the last bit, as JSON is read in the API: pandas' own parser is off by one bit at times."""
    numbers = pd.to_numeric(column, errors="coerce")
    _refuse_first(column.notna() & numbers.isna(), column, path, "is not a number")
    _refuse_first(numbers.abs() == np.inf, column, path, "is not a finite number")
    exact = np.fromiter(map(float, column.fillna("nan")), dtype="float64", count=len(column))
    return pd.Series(exact, index=column.index, name=column.name)


def _read_grades(column: pd.Series, path: Path) -> pd.Series:
    _refuse_first(column.isna(), column, path, "is missing; is the file cut off there?")
    _refuse_first(~column.between(*SCALE) | (column % 1 != 0), column, path, "is not a grade from 0 to 10")
    return column.astype("int64")


def _refuse_first(wrong: pd.Series, column: pd.Series, path: Path, problem: str) -> None:
    if wrong.any():
        first = int(np.argmax(wrong.to_numpy()))
        value = "the value" if pd.isna(column.iloc[first]) else column.iloc[first]
        raise BadInputError(f"{path}, column {column.name}, row {column.index[first] + 2}: {value} {problem}")
