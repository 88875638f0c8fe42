"""Divide text at the ends of rows, and parse it with Arrow.

Both use the quoting rule of Arrow and Python's csv: a quotation mark opens a cell only at the cell's start. Elsewhere
it is an ordinary character.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from commands import BadInputError
from wine_data.schema import TYPE
from wine_data.table.columns import BLANKS
from wine_data.table.dialect import Dialect, unwrap
from wine_data.table.rows import explain_width

RETURN, NEWLINE, QUOTE = b'\r\n"'


@dataclass(frozen=True)
class ParsedText:
    """The columns of a wine; `rows` and `skipped` count from 0. A skipped row without a reason is blank."""

    table: pa.Table
    rows: np.ndarray
    skipped: dict[int, str]


def divide_text(
    blocks: Iterable[bytes], dialect: Dialect, size: int, name: object
) -> Iterator[tuple[int, int, int, int, int]]:
    """Divide text into chunks of about `size` bytes, one if not divisible: number, start, length, first row, rows."""
    number, start, row = 0, dialect.length, dialect.row + 1
    whole = [0, 0]
    for data, rows in split_rows(drop_start(blocks, dialect.length), dialect.separator, size, name, row):
        if dialect.is_divisible:
            yield number, start, len(data), row, rows
            number, start, row = number + 1, start + len(data), row + rows
        else:
            whole = [whole[0] + len(data), whole[1] + rows]
    if whole[1]:
        yield 0, start, whole[0], row, whole[1]


def split_rows(
    blocks: Iterable[bytes], separator: str, size: int, name: object, first_row: int = 2
) -> Iterator[tuple[bytes, int]]:
    """Join blocks into pieces of whole rows; each piece but the last has at least `size` bytes.

    Raises:
        BadInputError: a quotation mark is never closed.
    """
    begins = {NEWLINE, RETURN, ord(separator)}
    pending: list[bytes] = []
    length, rows, quoted, previous = 0, 0, False, NEWLINE
    for block in _hold_back(blocks):
        ends, quoted = _find_row_ends(block, quoted, previous, begins)
        previous = block[-1]
        if length + len(block) >= size and ends.size:
            after = int(ends[-1]) + 1
            yield b"".join([*pending, block[:after]]), rows + ends.size
            first_row += rows + ends.size
            pending, length, rows = [block[after:]], len(block) - after, 0
        else:
            pending, length, rows = [*pending, block], length + len(block), rows + ends.size
    if quoted:
        raise BadInputError(f"{name} has a quotation mark after row {first_row + rows - 1} that is never closed")
    if length:
        yield b"".join(pending), rows + (previous not in (NEWLINE, RETURN))


def drop_start(blocks: Iterable[bytes], length: int) -> Iterator[bytes]:
    """Drop the first `length` bytes."""
    for block in blocks:
        if length < len(block):
            yield block[length:]
        length = max(length - len(block), 0)


def tidy_rows(data: bytes, dialect: Dialect) -> bytes:
    """Normalise rows for Arrow: remove quotation marks around whole rows, and merge repeated spaces."""
    if dialect.wrapped:
        data = "".join(map(unwrap, io.StringIO(data.decode("utf-8", "replace"), newline=""))).encode()
    if dialect.separator == " ":
        data = re.sub(rb"(^|[\r\n]) +", rb"\1", re.sub(rb" +", b" ", data))
    return data


def parse_text(data: bytes, dialect: Dialect, fields: Mapping[str, int], colour: int | None, where: str) -> ParsedText:
    """Parse rows: measurements as numbers if all of them are, else as text for the schema."""
    try:
        return _parse_as(data, dialect, fields, colour, pa.float64())
    except pa.ArrowInvalid:
        pass  # a cell is not a number: the rows are checked one by one
    try:
        parsed = _parse_as(data, dialect, fields, colour, pa.string())
    except pa.ArrowInvalid as error:
        raise BadInputError(f"{where}: this is not a table of text: {str(error).splitlines()[0]}") from error
    texts = {name: _tidy_cells(parsed.table[name], dialect.decimal) for name in fields}
    others = {name: parsed.table[name] for name in parsed.table.column_names if name not in fields}
    return ParsedText(pa.table(texts | others), parsed.rows, parsed.skipped)


def _parse_as(
    data: bytes, dialect: Dialect, fields: Mapping[str, int], colour: int | None, number: pa.DataType
) -> ParsedText:
    wanted = dict(fields) if colour is None else {**fields, TYPE: colour}
    names = {at: name for name, at in wanted.items()}
    skipped: dict[int, str] = {}

    def skip(row: csv.InvalidRow) -> str:
        width = explain_width(row.actual_columns, row.expected_columns)
        skipped[row.number - 1] = width if row.text.strip() else ""
        return "skip"

    table = csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(
            use_threads=False,  # the chunks run in parallel; Arrow numbers rows only on one thread
            block_size=len(data) + 1,
            column_names=[names.get(at, f"other {at}") for at in range(len(dialect.names))],
        ),
        parse_options=csv.ParseOptions(
            delimiter=dialect.separator, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
        ),
        convert_options=csv.ConvertOptions(
            include_columns=list(wanted),
            column_types={name: pa.string() if name == TYPE else number for name in wanted},
            null_values=list(BLANKS),
            strings_can_be_null=True,
            decimal_point=dialect.decimal,
        ),
    )
    rows = np.delete(np.arange(table.num_rows + len(skipped)), sorted(skipped))
    return ParsedText(table, rows, skipped)


def _tidy_cells(cells: pa.ChunkedArray, decimal: str) -> pa.ChunkedArray:
    """Trim text, replace blanks by null and a decimal comma by a point."""
    cells = pc.utf8_trim_whitespace(cells)
    if decimal == ",":
        cells = pc.replace_substring_regex(cells, r"^([+-]?\d*),(\d+([eE][+-]?\d+)?)$", r"\1.\2")
    return pc.if_else(pc.is_in(cells, pa.array(BLANKS)), pa.scalar(None, pa.string()), cells)


def _hold_back(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Let only the last block end with a quotation mark or a return: their meaning depends on the next character."""
    held = b""
    for block in blocks:
        block = held + block
        cut = len(block.rstrip(b'"\r'))
        held = block[cut:]
        if cut:
            yield block[:cut]
    if held:
        yield held


def _find_row_ends(block: bytes, quoted: bool, previous: int, begins: set[int]) -> tuple[np.ndarray, bool]:
    """Find the ends of rows in a block that may start inside a quoted cell, and whether it ends inside one."""
    letters = np.frombuffer(block, dtype="uint8")
    is_end = letters == NEWLINE
    if b"\r" in block:
        is_end |= (letters == RETURN) & (np.append(letters[1:], 0) != NEWLINE)
    ends = np.flatnonzero(is_end)
    marks = np.flatnonzero(letters == QUOTE) if b'"' in block else ends[:0]
    if not marks.size:
        return (ends[:0] if quoted else ends), quoted
    opened, closed, doubled = [-1] if quoted else [], [], -1
    for at in marks.tolist():
        if at == doubled:
            continue
        if not quoted and (block[at - 1] if at else previous) in begins:
            quoted = True
            opened.append(at)
        elif quoted and block[at + 1 : at + 2] == b'"':
            doubled = at + 1
        elif quoted:
            quoted = False
            closed.append(at)
    outside = np.searchsorted(opened, ends) == np.searchsorted(closed, ends)
    return ends[outside], quoted
