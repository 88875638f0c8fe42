"""A file of wines in parts that are read by themselves: CSV by the megabyte, Parquet by its row groups.

A file lies in a folder or in a bucket, s3://bucket/path. Its columns may be named as wine_data/reader.py allows, and
it may hold more.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from commands import BadInputError
from deployment.batch.storage import Location, find_name, open_file
from wine_data.reader import Header, canonical_names, read_header
from wine_data.schema import MEASUREMENTS, RED, TYPE

CHUNK_BYTES = 16_000_000  # of CSV: about 250,000 wines; a forest takes 20 ms a call, whatever the number
SLICE_ROWS = 250_000  # of a Parquet row group, which may have millions
READ_BYTES = 4_000_000
HEADER_BYTES = 65_536
NEWLINE, QUOTE = b'\n"'
SUFFIXES = (".csv", ".parquet")
NO_WINES = "holds a header and no wines"


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file: bytes from `start` on in CSV, one row group in Parquet. The header of a file is row 1."""

    number: int
    start: int
    length: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class RawRows:
    """The cells of a part, and the number of each row in the file; `malformed` says why others are no rows at all."""

    table: pa.Table
    rows: np.ndarray
    malformed: dict[int, str]


def divide_file(address: Location) -> tuple[str, list[Chunk]]:
    """Read a file once, in little memory; return its SHA-256 and its parts.

    Raises:
        NotThereError: there is no such file.
        BadInputError: it is no file of wines: a column is missing or there twice, or nothing in it can be read.
    """
    with open_file(address) as file:
        if _is_parquet(address):
            layout = _read_parquet(file, address)
            _require_types(layout.schema_arrow, address)
            return _hash(file), list(_divide_parquet(layout, address))
        header = _read_csv_header(file, address)
        sha = hashlib.sha256()
        chunks = list(_divide_csv(file, header, address, sha))
        return sha.hexdigest(), chunks


def read_chunk(address: Location, chunk: Chunk) -> Iterator[RawRows]:
    """Read the cells of one part, at most some 100,000 rows at a time.

    Measurements are float64 where all of them are numbers, else text.

    Raises:
        NotThereError: the file is gone.
        BadInputError: it cannot be read, or is not text.
    """
    with open_file(address) as file:
        if _is_parquet(address):
            yield from _read_row_group(_read_parquet(file, address), chunk, address)
            return
        header = _read_csv_header(file, address)
        file.seek(chunk.start)
        data = file.read(chunk.length)
    yield _parse(data, header, chunk, address)


def _is_parquet(address: Location) -> bool:
    return find_name(address).endswith(".parquet")


def _read_row_group(layout: parquet.ParquetFile, chunk: Chunk, address: Location) -> Iterator[RawRows]:
    names = layout.schema_arrow.names
    columns = _find_columns(canonical_names(names), address)
    first = chunk.first_row
    for batch in layout.iter_batches(SLICE_ROWS, [chunk.start], [names[at] for at in columns.values()]):
        raw = {name: batch.column(names[at]) for name, at in columns.items()}
        table = pa.table({name: cell.cast(pa.string()) if _is_text(cell.type) else cell for name, cell in raw.items()})
        yield RawRows(table, np.arange(first, first + table.num_rows), {})
        first += table.num_rows


def _read_parquet(file: pa.NativeFile, address: Location) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise BadInputError(f"{address} is no Parquet file: {str(error).splitlines()[0]}") from error


def _read_csv_header(file: pa.NativeFile, address: Location) -> Header:
    file.seek(0)
    header = read_header(file.read(HEADER_BYTES), str(address))
    _find_columns(header.names, address)
    return header


def _find_columns(names: list[str], address: Location) -> dict[str, int]:
    """The position of each column that a wine needs, red_wine rather than type."""
    wanted = [*MEASUREMENTS, RED if RED in names else TYPE]
    repeated = [name for name in wanted if names.count(name) > 1]
    if repeated:
        raise BadInputError(
            f"{address} has the column {', '.join(repeated)} more than once: keep the one that is meant"
        )
    missing = [f"{TYPE} (or {RED})" if name == TYPE else name for name in wanted if name not in names]
    if missing:
        raise BadInputError(f"{address} lacks the column {', '.join(missing)}; found {', '.join(filter(None, names))}")
    return {name: names.index(name) for name in wanted}


def _require_types(schema: pa.Schema, address: Location) -> None:
    """Refuse columns that are neither numbers nor text, such as lists."""
    for name, at in _find_columns(canonical_names(schema.names), address).items():
        kind = schema.types[at]
        plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_null)
        if not (_is_text(kind) or any(is_kind(kind) for is_kind in plain)):
            raise BadInputError(f"{address}, column {name}: {kind} is neither a number nor text")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _divide_parquet(layout: parquet.ParquetFile, address: Location) -> Iterator[Chunk]:
    number, row = 0, 2
    for group in range(layout.num_row_groups):
        rows = layout.metadata.row_group(group).num_rows
        if rows:
            yield Chunk(number, group, 1, row, rows)
            number, row = number + 1, row + rows
    if number == 0:
        raise BadInputError(f"{address} {NO_WINES}")


def _hash(file: pa.NativeFile) -> str:
    sha = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(READ_BYTES):
        sha.update(chunk)
    return sha.hexdigest()


def _divide_csv(file: pa.NativeFile, header: Header, address: Location, sha: "hashlib._Hash") -> Iterator[Chunk]:
    file.seek(0)
    sha.update(file.read(header.length))
    number, start, row, rows, here, quoted = 0, header.length, 2, 0, header.length, False
    while chunk := file.read(READ_BYTES):
        sha.update(chunk)
        ends, quoted = _find_line_ends(chunk, quoted)
        if here + len(chunk) - start >= CHUNK_BYTES and ends.size:
            after = here + int(ends[-1]) + 1
            yield Chunk(number, start, after - start, row, rows + ends.size)
            number, start, row, rows = number + 1, after, row + rows + ends.size, 0
        else:
            rows += ends.size
        here += len(chunk)
    if quoted:
        raise BadInputError(f"{address} opens a quotation mark after row {row + rows - 1} and never closes it")
    if here > start:
        yield Chunk(number, start, here - start, row, rows + 1)
    elif row == 2:
        raise BadInputError(f"{address} {NO_WINES}")


def _find_line_ends(chunk: bytes, quoted: bool) -> tuple[np.ndarray, bool]:
    """Where rows end in a piece of CSV, given whether it begins within quotation marks, and whether it ends so."""
    letters = np.frombuffer(chunk, dtype="uint8")
    ends, quotes = np.flatnonzero(letters == NEWLINE), np.flatnonzero(letters == QUOTE)
    within = (np.searchsorted(quotes, ends) + quoted) % 2 == 1
    return ends[~within], bool((quotes.size + quoted) % 2)


def _parse(data: bytes, header: Header, chunk: Chunk, address: Location) -> RawRows:
    columns = _find_columns(header.names, address)
    try:
        return _parse_as(data, header, chunk, columns, pa.float64())
    except pa.ArrowInvalid:
        pass  # a cell is no number: the rows are checked one by one
    try:
        return _parse_as(data, header, chunk, columns, pa.string())
    except pa.ArrowInvalid as error:
        rows = f"rows {chunk.first_row:,} to {chunk.first_row + chunk.rows - 1:,}"
        raise BadInputError(f"{address}, {rows}: no table of text: {str(error).splitlines()[0]}") from error


def _parse_as(data: bytes, header: Header, chunk: Chunk, columns: dict[str, int], number: pa.DataType) -> RawRows:
    """Parse CSV, numbers as this type; a colour is text."""
    locations = {at: name for name, at in columns.items()}
    malformed: dict[int, str] = {}
    empty: list[int] = []

    def skip(row: csv.InvalidRow) -> str:
        if row.text.strip():
            malformed[row.number] = f"the row has {row.actual_columns} fields, the header {row.expected_columns}"
        else:
            empty.append(row.number)
        return "skip"

    table = csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(
            use_threads=False,  # parts are what is parallel, and rows are numbered only so
            block_size=len(data) + 1,
            column_names=[locations.get(at, f"other {at}") for at in range(len(header.names))],
        ),
        parse_options=csv.ParseOptions(
            delimiter=header.separator, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
        ),
        convert_options=csv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: pa.string() if name == TYPE else number for name in columns},
            strings_can_be_null=True,
        ),
    )
    skipped = np.array(sorted([*malformed, *empty]), dtype="int64") - 1
    rows = np.delete(np.arange(table.num_rows + skipped.size), skipped) + chunk.first_row
    return RawRows(table, rows, {number - 1 + chunk.first_row: why for number, why in malformed.items()})
