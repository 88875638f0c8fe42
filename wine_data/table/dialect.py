"""The dialect of a table file: compression, encoding, lines before the header, separator, decimal sign.

It is found from the first bytes of the file. An ambiguous file is refused.
"""

import codecs
import csv
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from commands import BadInputError
from wine_data.schema import MEASUREMENTS, ROWS, TYPES
from wine_data.table.columns import find_known, is_known

SAMPLE_BYTES, SAMPLE_ROWS = 65_536, 100
MOST_COLUMNS = 500
FEWEST_KNOWN = 3  # known names that make a comment line a header
GZIP = b"\x1f\x8b"
PARQUET = ".parquet"
TEXTS = (".csv", ".tsv", ".txt")
COMMENTS = ("#", "%", "//")
SEPARATORS = (",", ";", "\t", "|", " ")
SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
FOREIGN = {
    b"version https://git-lfs": "is a pointer of Git LFS and not the file itself: run git lfs pull",
    b"PK\x03\x04": "is an Excel or zip file and holds binary data: save it as CSV, or unpack it",
    b"PAR1": "is a Parquet file: let its name end in .parquet",
}
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_WRAPPED = re.compile(r'[ \t]*"((?:[^"\r\n]|"")*)"[ \t]*([\r\n]*)')


@dataclass(frozen=True)
class Dialect:
    """The dialect of one file.

    `names` has one entry for each field of a row, "" for a field that the header does not name. `row` is the
    header's line, from 1. `length` counts the bytes of decode_blocks up to the end of the header. In a
    `wrapped` file, each row is also quoted as a whole. `sample` has the cells of the first rows.
    """

    names: tuple[str, ...]
    separator: str
    decimal: str
    encoding: str
    compressed: bool
    wrapped: bool
    row: int
    length: int
    sample: list[list[str]] = field(repr=False, compare=False)

    @property
    def is_divisible(self) -> bool:
        """Whether rows can be read from the middle of the file, without the bytes before."""
        return not (self.compressed or self.wrapped or self.separator == " " or self.encoding == "utf-16")

    def describe(self) -> list[str]:
        """Describe, for people, what is unusual about the dialect."""
        unusual = {
            f"separated by {SEPARATOR_NAMES.get(self.separator, repr(self.separator))}": self.separator != ",",
            "decimal comma": self.decimal == ",",
            self.encoding.upper(): self.encoding != "utf-8",
            "gzip": self.compressed,
            "rows quoted as a whole": self.wrapped,
            f"header in line {self.row}": self.row > 1,
        }
        return [text for text, applies in unusual.items() if applies]


def has_wine_suffix(name: str) -> bool:
    """Whether a file's name has a table's suffix: .csv, .tsv, .txt, each also with .gz, or .parquet."""
    return is_parquet(name) or name.lower().removesuffix(".gz").endswith(TEXTS)


def is_parquet(name: str) -> bool:
    """Whether a file's name ends in .parquet, in any case."""
    return name.lower().endswith(PARQUET)


def find_dialect(start: bytes, name: object) -> Dialect:
    """Find the dialect of a file.

    Args:
        start: its first SAMPLE_BYTES bytes; fewer bytes are the whole file.
        name: its name in errors.

    Raises:
        BadInputError: it is not text, has no header, or is ambiguous.
    """
    for content, problem in FOREIGN.items():
        if start.startswith(content):
            raise BadInputError(f"{name} {problem}")
    compressed = start.startswith(GZIP)
    sample = _unzip_sample(start, name) if compressed else start
    encoding = _find_encoding(sample, name)
    lines = list(io.StringIO(_decode(sample, encoding), newline=""))
    if len(sample) >= SAMPLE_BYTES and len(lines) > 1:
        del lines[-1]  # it may be incomplete
    at, separator = _find_header(lines, name)
    header, rows = unwrap(lines[at].lstrip("\ufeff")), lines[at + 1 :]
    separator = separator or max(SEPARATORS, key=lambda candidate: _count_known(header, candidate))
    wrapped = any(unwrap(line) != line for line in rows)
    try:
        names = _split(header, separator)
        cells = [row for row in read_cells(rows, separator, wrapped) if any(row)][:SAMPLE_ROWS]
    except csv.Error as error:
        raise BadInputError(f"{name} is not a table of text: {error}") from error
    names = _fit_names(_require_names(names, name), cells)
    return Dialect(
        names=tuple(names),
        separator=separator,
        decimal=_find_decimal(names, cells, name),
        encoding=encoding,
        compressed=compressed,
        wrapped=wrapped,
        row=at + 1,
        length=len("".join(lines[: at + 1]).encode("latin-1" if encoding == "latin-1" else "utf-8")),
        sample=cells,
    )


def read_cells(lines: Iterable[str], separator: str, wrapped: bool) -> Iterator[list[str]]:
    """Divide lines into rows of cells. A quotation mark inside a cell is an ordinary character."""
    lines = map(unwrap, lines) if wrapped else lines
    return csv.reader(lines, delimiter=separator, skipinitialspace=separator == " ")


def unwrap(line: str) -> str:
    """Remove the quotation marks around a whole line; return a line without them as it is."""
    match = _WRAPPED.fullmatch(line)
    if match and any(separator in match[1] for separator in SEPARATORS[:-1]):
        return match[1].replace('""', '"') + match[2]
    return line


def decode_blocks(blocks: Iterable[bytes], dialect: Dialect) -> Iterator[bytes]:
    """The content of a file as UTF-8, block by block; bytes that are invalid in UTF-16 become U+FFFD."""
    if dialect.compressed:
        blocks = _unzip(blocks)
    if dialect.encoding != "utf-16":  # names and numbers have the same bytes in UTF-8 and Latin-1
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(dialect.encoding)("replace")
    for block in blocks:
        yield decoder.decode(block).encode()
    yield decoder.decode(b"", final=True).encode()


def _unzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    unzip = zlib.decompressobj(wbits=31)
    for block in blocks:
        while block:
            yield unzip.decompress(block)
            block = unzip.unused_data
            if block:  # another gzip file is appended
                unzip = zlib.decompressobj(wbits=31)
    if not unzip.eof:
        raise zlib.error("it ends in the middle")


def _unzip_sample(start: bytes, name: object) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(start, SAMPLE_BYTES)
    except zlib.error as error:
        raise BadInputError(f"{name} cannot be unpacked: {error}") from error


def _find_encoding(sample: bytes, name: object) -> str:
    if not sample.strip():
        raise BadInputError(f"{name} is empty; it should hold {ROWS}, one a row under a header")
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in sample:
        raise BadInputError(f"{name} is a binary file; {ROWS} are read from CSV text")
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=len(sample) < SAMPLE_BYTES)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _decode(sample: bytes, encoding: str) -> str:
    return codecs.getincrementaldecoder(encoding)("replace").decode(sample)


def _find_header(lines: Sequence[str], name: object) -> tuple[int, str]:
    """The position of the header in the lines, and the separator if a line before it names one."""
    separator = ""
    for at, line in enumerate(lines):
        text = line.strip("\ufeff\r\n")
        if named := re.fullmatch(r'"?sep=(.)"?', text, re.IGNORECASE):
            separator = named[1]
        elif text.strip() and not (text.startswith(COMMENTS) and not _is_header(text)):
            return at, separator
    raise BadInputError(f"{name} is empty; it should hold {ROWS}, one a row under a header")


def _is_header(line: str) -> bool:
    return max(_count_known(line, separator) for separator in SEPARATORS) >= FEWEST_KNOWN


def _count_known(line: str, separator: str) -> int:
    return sum(map(is_known, _split(line, separator)))


def _split(line: str, separator: str) -> list[str]:
    return next(read_cells([line], separator, wrapped=False), [])


def _require_names(names: list[str], name: object) -> list[str]:
    if all(text.strip() in TYPES or re.fullmatch(r"[\d.,]+", text.strip()) for text in names):
        raise BadInputError(f"{name} has no header: its first row is {', '.join(names[:4])}, …")
    if len(names) > MOST_COLUMNS:
        raise BadInputError(f"{name} has {len(names):,} columns; at most {MOST_COLUMNS} are read")
    return names


def _fit_names(names: list[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Add or drop an empty name where all rows differ from the header by one field: a last comma, or R's row names."""
    if rows and all(len(row) == len(names) + 1 for row in rows):
        if not any(row[-1].strip() for row in rows):
            return [*names, ""]
        if names[0].strip() and all(re.fullmatch(r"\d{1,12}", row[0]) for row in rows) and _counts_rows(rows):
            return ["", *names]
    if rows and not names[-1].strip() and all(len(row) == len(names) - 1 for row in rows):
        return names[:-1]
    return names


def _counts_rows(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first cells number the rows, from 0 or 1."""
    first = int(rows[0][0])
    return first in (0, 1) and [int(row[0]) for row in rows] == list(range(first, first + len(rows)))


def _find_decimal(names: Sequence[str], rows: Sequence[Sequence[str]], name: object) -> str:
    measured = [at for at, text in enumerate(names) if find_known(text) in MEASUREMENTS]
    cells = [row[at].strip() for row in rows if len(row) == len(names) for at in measured]
    commas = [cell for cell in cells if "," in cell]
    if not commas or any("." in cell for cell in cells):
        return "."
    if all(_THOUSANDS.fullmatch(cell) for cell in commas):
        raise BadInputError(
            f"{name} has the number {commas[0]}, which could be {commas[0].replace(',', '.')} or "
            f"{commas[0].replace(',', '')}: write numbers with a decimal point, and thousands without a comma"
        )
    return ","
