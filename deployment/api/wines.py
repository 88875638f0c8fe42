"""Parse a request body into wines, or into the reasons for a refusal.

The number of objects in a body is checked before they are created: half a megabyte can hold 250,000 of them.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import isnan
from typing import Annotated

from pydantic import FailFast, TypeAdapter, ValidationError
from pydantic_core import from_json

from commands import BadInputError
from deployment.api.problems import ProblemError, Refusals, refuse_body, refuse_field
from wine_data.schema import FEATURES, FLAGS, MEASUREMENTS, ROW, ROWS, WineQuality, feature_values
from wine_data.table.columns import BLANKS, NO_COLOUR, ONE_COLOUR
from wine_data.table.dialect import GZIP
from wine_data.table.rows import TextTable, explain_width, read_number, read_table

WINES = TypeAdapter(Annotated[list[WineQuality], FailFast()])
NO_WINE, NO_WINES = f"The body is not a {ROW}", f"The body is not an array or a table of {ROWS}"
MOST_FIELDS = 2 * len(FEATURES)  # of one wine, including unknown fields, which the refusal names
MOST_LETTERS = 500  # of a message that quotes a header

Fills = Mapping[str, float]  # by measurement, the value for a blank; empty: a blank is refused


@dataclass
class Wines:
    """The wines of a batch: their values, the names of their filled measurements, and notes on the body."""

    fills: Fills
    values: list[tuple[float, ...]] = field(default_factory=list)
    filled: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusals: Refusals = field(default_factory=Refusals)

    def add(self, number: str, wine: object, where: str = "") -> None:
        """Validate a wine; add it, or the reasons for its refusal."""
        wine, filled = _fill_nulls(wine, self.fills)
        try:
            self.values.append(feature_values(WineQuality.model_validate(wine)))
            self.filled.append(filled)
        except ValidationError as error:
            self.refusals.add_errors(error, number, where)

    def add_row(self, number: str, row: int, cells: Sequence[str], table: TextTable) -> None:
        """Validate the cells of a row; add its wine, or the reasons for its refusal."""
        where, columns = f" (row {row} of the table)", table.columns
        if len(cells) != len(table.dialect.names):
            self.refusals.add(number, explain_width(len(cells), len(table.dialect.names)) + where)
            return
        wine: dict[str, object] = {}
        for flag in FLAGS:
            cell = cells[columns.colour or 0].strip()
            colour = columns.read_colour(cell)
            if colour is None:
                reason = "is missing" if cell in BLANKS else f"{cell[:50]} {NO_COLOUR}"
                self.refusals.add(f"{number}.{columns.name}", reason + where)
            wine[flag] = colour or 0.0  # the other cells are checked even if the colour is wrong
        for name in MEASUREMENTS:
            cell = cells[columns.fields[name]]
            value = read_number(cell, table.dialect.decimal)
            if value is None or not isnan(value):
                wine[name] = cell if value is None else value
            elif self.fills:
                wine[name] = None
        self.add(number, wine, where)


def fill_wine(body: bytes, fills: Fills) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Fill the nulls of one wine in JSON; return its values and the filled names. Raises ProblemError."""
    try:
        wine, filled = _fill_nulls(from_json(body), fills)
        return feature_values(WineQuality.model_validate(wine)), filled
    except ValidationError as error:
        raise refuse_body(error, NO_WINE) from error
    except ValueError as error:
        raise refuse_field("body", f"this is not JSON ({error})", NO_WINE) from error


def read_json(body: bytes, most: int, fills: Fills) -> Wines:
    """Read an array of up to `most` wines. Raises ProblemError."""
    # A wine contains no list, object or text, so these characters count the objects that parsing would create.
    if body.count(b"{") > most:
        raise _refuse_size(f"more than {most:,}", most)
    if body.count(b",") + body.count(b"[") > MOST_FIELDS * (most + 1):
        raise refuse_field("body", f"has more values than {most:,} {ROWS} have", NO_WINES)
    try:
        rows = from_json(body)
    except ValueError as error:
        raise refuse_field("body", f"this is not JSON ({error})", NO_WINES) from error
    if not isinstance(rows, list):
        raise refuse_field("body", f"send a JSON array of {ROWS}", NO_WINES)
    if not 1 <= len(rows) <= most:
        raise _refuse_size(f"{len(rows):,}", most)
    with suppress(ValidationError):  # validating all at once, if all are valid, takes half the time
        values = [feature_values(wine) for wine in WINES.validate_python(rows)]
        return Wines(fills, values, [()] * len(values))
    wines = Wines(fills)
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict) and len(row) > MOST_FIELDS:
            wines.refusals.add(str(number), f"has {len(row):,} fields, and a {ROW} {len(FEATURES)}")
        else:
            wines.add(str(number), row)
    wines.refusals.require_none(NO_WINES)
    return wines


def read_csv(body: bytes, most: int, fills: Fills) -> Wines:
    """Read a CSV table of up to `most` wines, in the same way as files of wines. Raises ProblemError."""
    if body.startswith(GZIP):  # the reader would decompress it without a size limit
        raise ProblemError(415, "The table is packed by gzip: send it once with the header Content-Encoding: gzip")
    try:
        table = read_table(body, "the table")
    except BadInputError as error:
        reason = str(error).removesuffix(ONE_COLOUR)  # a client cannot use this advice
        place = "header" if body.strip() else "body"
        raise refuse_field(place, reason[:MOST_LETTERS], NO_WINES) from error
    wines, number, blank, last = Wines(fills), 0, 0, table.dialect.row
    try:
        for number, (row, cells) in enumerate(table.rows, 1):
            if number > most:
                raise _refuse_size(f"more than {most:,}", most)
            blank += row - last - 1
            last = row
            wines.add_row(str(number), row, cells, table)
    except BadInputError as error:
        raise refuse_field("body", str(error), NO_WINES) from error
    if not number:
        raise _refuse_size("0", most)
    wines.refusals.require_none(NO_WINES)
    notes = [
        *table.dialect.describe(),
        *table.columns.describe(),
        *([f"blank rows between {ROWS}: {blank}"] if blank else []),
    ]
    wines.notes = [note[:MOST_LETTERS] for note in notes]
    return wines


def _fill_nulls(wine: object, fills: Fills) -> tuple[object, tuple[str, ...]]:
    """Fill the nulls of a wine; return it and the filled names. A wine with no measurement at all is unchanged."""
    if not fills or not isinstance(wine, dict) or all(wine.get(name) is None for name in MEASUREMENTS):
        return wine, ()
    filled = tuple(name for name in MEASUREMENTS if name in wine and wine[name] is None and name in fills)
    return wine | {name: fills[name] for name in filled}, filled


def _refuse_size(found: str, most: int) -> ProblemError:
    return refuse_field("body", f"has {found} {ROWS}; send 1 to {most:,}", "The batch is empty or too large")
