"""Divide a file of wines into chunks that can be read independently: text by size, Parquet by row groups.

A file is in a folder or in a bucket (s3://bucket/path). Text may have any dialect of wine_data/table. Text that cannot
be divided by bytes (gzip, UTF-16) is one chunk, read in pieces.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from commands import BadInputError
from deployment.batch.storage import Location, find_name, open_file
from deployment.batch.text import divide_text, drop_start, parse_text, split_rows, tidy_rows
from wine_data.schema import CATEGORY, ROWS, TYPE
from wine_data.table.columns import Columns, match_columns
from wine_data.table.dialect import SAMPLE_BYTES, SAMPLE_ROWS, Dialect, decode_blocks, is_parquet
from wine_data.table.rows import explain_packing, read_header

CHUNK_BYTES = 16_000_000  # of text: about 250,000 wines; a forest takes 20 ms per call for any number of them
SLICE_ROWS = 250_000  # read at once from a Parquet row group, which may have millions
READ_BYTES = 4_000_000
NO_WINES = f"holds a header and no {ROWS}"


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file: bytes of text from `start`, or one Parquet row group. The first line is row 1."""

    number: int
    start: int
    length: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class RawRows:
    """The cells of some rows: measurements as float64 or text, the colour as `type`, as it is in the file.

    `rows` has the number of each row in the file. `malformed` has the reason for each malformed row. `blank` counts
    blank lines.
    """

    table: pa.Table
    columns: Columns
    rows: np.ndarray
    malformed: dict[int, str]
    blank: int = 0


@dataclass(frozen=True)
class Layout:
    """The SHA-256 of a file, its chunks, and what is unusual about it."""

    sha: str
    chunks: tuple[Chunk, ...]
    description: str


def divide_file(address: Location, wine_type: str = "") -> Layout:
    """Read a file once, with little memory, and divide it into chunks.

    Args:
        address: the file.
        wine_type: the colour of all its wines, if it has no such column.

    Raises:
        NotThereError: the file does not exist.
        BadInputError: it is not a file of wines: a column is missing or duplicated, or nothing can be read.
    """
    with open_file(address) as file:
        if is_parquet(find_name(address)):
            content = _open_parquet(file, address)
            columns = _match_parquet(content, address, wine_type)
            chunks = tuple(_divide_parquet(content, address))
            sha = hashlib.sha256()
            for block in _read_blocks(file):
                sha.update(block)
            return Layout(sha.hexdigest(), chunks, "; ".join(columns.describe()))
        dialect, columns = read_header(file.read(SAMPLE_BYTES), address, wine_type)
        sha = hashlib.sha256()
        with explain_packing(address):
            blocks = decode_blocks(_read_blocks(file, sha.update), dialect)
            chunks = tuple(Chunk(*place) for place in divide_text(blocks, dialect, CHUNK_BYTES, address))
        if not chunks:
            raise BadInputError(f"{address} {NO_WINES}")
        return Layout(sha.hexdigest(), chunks, "; ".join([*dialect.describe(), *columns.describe()]))


def read_chunk(address: Location, chunk: Chunk, wine_type: str = "") -> Iterator[RawRows]:
    """Read the cells of one chunk, at most about 250,000 rows at a time; errors as in divide_file."""
    with open_file(address) as file:
        if is_parquet(find_name(address)):
            yield from _read_row_group(_open_parquet(file, address), chunk, address, wine_type)
            return
        dialect, columns = read_header(file.read(SAMPLE_BYTES), address, wine_type)
        first = chunk.first_row
        for data, count in _read_pieces(file, chunk, dialect, address):
            parsed = parse_text(data, dialect, columns.fields, columns.colour, f"{address}, rows {first:,} and on")
            require_rows(len(parsed.rows) + len(parsed.skipped), count, first, address)
            malformed = {row + first: reason for row, reason in parsed.skipped.items() if reason}
            blank = len(parsed.skipped) - len(malformed)
            yield RawRows(parsed.table, columns, parsed.rows + first, malformed, blank)
            first += count


def _read_pieces(file: pa.NativeFile, chunk: Chunk, dialect: Dialect, address: Location) -> Iterator[tuple[bytes, int]]:
    """Yield the text of a chunk in pieces of whole rows, and the number of rows in each."""
    if dialect.is_divisible:
        file.seek(chunk.start)
        yield file.read(chunk.length), chunk.rows
        return
    with explain_packing(address):
        blocks = decode_blocks(_read_blocks(file), dialect)
        for data, count in split_rows(drop_start(blocks, dialect.length), dialect.separator, CHUNK_BYTES, address):
            yield tidy_rows(data, dialect), count


def _read_blocks(file: pa.NativeFile, see: Callable[[bytes], None] = lambda block: None) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(READ_BYTES):
        see(block)
        yield block


def require_rows(found: int, counted: int, first: int, address: Location) -> None:
    """Raise BadInputError unless every counted row was read, as a wine, a refusal or a blank line."""
    if found != counted:
        raise BadInputError(
            f"{address}, rows {first:,} to {first + counted - 1:,}: {found:,} rows were read, but {counted:,} were "
            "counted. If the file changed meanwhile, score it again"
        )


def _open_parquet(file: pa.NativeFile, address: Location) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise BadInputError(f"{address} is no Parquet file: {str(error).splitlines()[0]}") from error


def _match_parquet(content: parquet.ParquetFile, address: Location, wine_type: str) -> Columns:
    """Match the columns; refuse measurements that are neither numbers nor text, and unknown colours."""
    schema = content.schema_arrow
    columns = match_columns(schema.names, address, wine_type)
    plain = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null, _is_text)
    for name, at in columns.fields.items():
        if not any(is_kind(schema.types[at]) for is_kind in plain):
            raise BadInputError(f"{address}, column {name}: {schema.types[at]} is neither a number nor text")
    if columns.colour is not None:
        kind = schema.types[columns.colour]
        if not (pa.types.is_boolean(kind) or any(is_kind(kind) for is_kind in plain)):
            raise BadInputError(f"{address}, column {columns.name}: {kind} is not a {CATEGORY}")
        first = next(content.iter_batches(SAMPLE_ROWS, columns=[schema.names[columns.colour]]), None)
        columns.require_colours(first.column(0).to_pylist() if first else (), address)
    return columns


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _divide_parquet(content: parquet.ParquetFile, address: Location) -> Iterator[Chunk]:
    number, row = 0, 2
    for group in range(content.num_row_groups):
        rows = content.metadata.row_group(group).num_rows
        if rows:
            yield Chunk(number, group, 1, row, rows)
            number, row = number + 1, row + rows
    if number == 0:
        raise BadInputError(f"{address} {NO_WINES}")


def _read_row_group(content: parquet.ParquetFile, chunk: Chunk, address: Location, wine_type: str) -> Iterator[RawRows]:
    names = content.schema_arrow.names
    columns = match_columns(names, address, wine_type)
    places = columns.fields if columns.colour is None else columns.fields | {TYPE: columns.colour}
    first = chunk.first_row
    for batch in content.iter_batches(SLICE_ROWS, [chunk.start], [names[at] for at in places.values()]):
        raw = {name: batch.column(names[at]) for name, at in places.items()}
        table = pa.table({name: cell.cast(pa.string()) if _is_text(cell.type) else cell for name, cell in raw.items()})
        yield RawRows(table, columns, np.arange(first, first + table.num_rows), {})
        first += table.num_rows
