"""Read all rows of a text table, cell by cell, from files that fit into memory and from request bodies."""

import csv
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from commands import BadInputError
from wine_data.table.columns import BLANKS, Columns, match_columns
from wine_data.table.dialect import SAMPLE_BYTES, Dialect, decode_blocks, find_dialect, read_cells

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class TextTable:
    """A text table whose header was read; `rows` yields each row's number in the file and its cells."""

    dialect: Dialect
    columns: Columns
    rows: Iterator[tuple[int, list[str]]]


def read_header(start: bytes, name: object, wine_type: str = "", graded: bool = False) -> tuple[Dialect, Columns]:
    """Find dialect and columns from the first SAMPLE_BYTES bytes of a file; arguments as in match_columns.

    Raises:
        BadInputError: it is not a table of wines, or none of its first colours can be read.
    """
    dialect = find_dialect(start, name)
    columns = match_columns(dialect.names, name, wine_type, graded)
    if columns.colour is not None:
        fitting = [row for row in dialect.sample if len(row) == len(dialect.names)]
        columns.require_colours([row[columns.colour] for row in fitting], name)
    return dialect, columns


def read_table(content: bytes, name: object, wine_type: str = "", graded: bool = False) -> TextTable:
    """Read a table of wines from the whole content of a file; arguments and errors as in read_header.

    Blank lines are counted as rows but left out. A row may be shorter or longer than the header.
    """
    dialect, columns = read_header(content[:SAMPLE_BYTES], name, wine_type, graded)
    with explain_packing(name):
        text = b"".join(decode_blocks([content], dialect))[dialect.length :].decode("utf-8", "replace")
    return TextTable(dialect, columns, _read_rows(text, dialect, name))


@contextmanager
def explain_packing(name: object) -> Iterator[None]:
    """Turn an error of the decompressor into a BadInputError that names the file."""
    try:
        yield
    except zlib.error as error:
        raise BadInputError(f"{name} cannot be unpacked: {error}") from error


def _read_rows(text: str, dialect: Dialect, name: object) -> Iterator[tuple[int, list[str]]]:
    number = dialect.row
    try:
        for number, row in enumerate(
            read_cells(io.StringIO(text, newline=""), dialect.separator, dialect.wrapped), dialect.row + 1
        ):
            if any(cell.strip() for cell in row):
                yield number, row
    except csv.Error as error:
        raise BadInputError(f"{name}, after row {number}: not a table of text: {error}") from error


def read_number(cell: str, decimal: str) -> float | None:
    """The number in a cell; NaN if it is blank, None if it is anything else."""
    text = cell.strip()
    if text in BLANKS:
        return float("nan")
    if decimal == "," and "." not in text:
        text = text.replace(",", ".")
    return float(text) if _NUMBER.fullmatch(text) else None


def explain_width(fields: int, expected: int) -> str:
    """The error for a row whose number of fields differs from the header's."""
    return f"the row has {fields} fields, the header {expected}"
