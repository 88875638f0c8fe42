"""Read one file of wines into one table, for training: CSV in any dialect of wine_data/table, or Parquet.

No row is left out: if a row or cell cannot be read, the file is refused, with one message for all problems.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from commands import BadInputError, unreadable
from wine_data.schema import MEASUREMENTS, ROWS, SCALE, TARGET, TYPE, TYPES, encode_type
from wine_data.table.columns import BLANKS, NO_COLOUR, Columns, match_columns
from wine_data.table.dialect import SAMPLE_ROWS, is_parquet
from wine_data.table.rows import explain_width, read_number, read_table

COLUMNS = (TYPE, *MEASUREMENTS, TARGET)
SHOWN = 5  # problems that a message lists


def read_wines(path: Path, wine_type: str = "") -> pd.DataFrame:
    """Read one file of graded wines.

    Args:
        path: the file; it is Parquet if its name ends in .parquet, otherwise text.
        wine_type: the colour of every wine, for a file without such a column.

    Returns:
        A table with the columns type, the eleven measurements (float64, blank cells as NaN), quality
        (int64) and red_wine, one row per wine, in the file's order.

    Raises:
        BadInputError: names the file, the column and the rows (the first line of the file is row 1).
    """
    return read_described_wines(path, wine_type)[0]


def read_described_wines(path: Path, wine_type: str = "") -> tuple[pd.DataFrame, str]:
    """Read a file like read_wines, and describe in one line what is unusual about it; "" if nothing is."""
    columns, cells = _read_parquet(path, wine_type) if is_parquet(path.name) else _read_text(path, wine_type)
    wines = pd.DataFrame({TYPE: _read_colours(columns, cells)})
    for name in (*MEASUREMENTS, TARGET):
        wines[name] = cells.read_numbers(name)
    _check_grades(wines[TARGET], cells)
    cells.require_no_problem()
    return encode_type(wines.astype({TARGET: "int64"})), "; ".join([*cells.unusual, *columns.describe()])


@dataclass(frozen=True)
class _Cells:
    """The cells of a file by column, with the number of each row, and the problems found so far."""

    path: Path
    rows: Sequence[int]
    by_name: dict[str, Sequence[object]]
    decimal: str
    unusual: Sequence[str] = ()  # about the format
    problems: list[str] = field(default_factory=list)

    def read_numbers(self, name: str) -> np.ndarray:
        """A column's numbers, exact to the last bit like the API's; NaN if a cell is blank or not a number."""
        cells = self.by_name[name]
        try:
            plain = np.fromiter(map(float, cells), "float64", len(cells))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            plain = np.array([np.nan])
        if np.isfinite(plain).all() and not any(isinstance(cell, bool) or "_" in str(cell) for cell in cells):
            return plain
        numbers = [_read_cell(cell, self.decimal) for cell in cells]
        self.note(name, [number is None for number in numbers], "is not a number")
        return np.array([np.nan if number is None else number for number in numbers])

    def note(self, name: str, wrong: Iterable[bool], problem: str) -> None:
        """Record the wrong cells of a column as problems."""
        cells = self.by_name[name]
        for at, is_wrong in enumerate(wrong):
            if is_wrong:
                value = "the value" if str(cells[at]).strip() in BLANKS else str(cells[at])
                self.problems.append(f"column {name}, row {self.rows[at]}: {value} {problem}")

    def require_no_problem(self) -> None:
        """If there are problems, raise BadInputError with the first ones and the number of others."""
        if self.problems:
            more = len(self.problems) - SHOWN
            shown = "; ".join(self.problems[:SHOWN])
            raise BadInputError(f"{self.path}, {shown}" + (f"; and {more:,} more" if more > 0 else ""))


def _read_text(path: Path, wine_type: str) -> tuple[Columns, _Cells]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    table = read_table(content, path, wine_type, graded=True)
    width = len(table.dialect.names)
    numbered = list(table.rows)
    if not numbered:
        raise BadInputError(f"{path} holds a header and no {ROWS}")
    malformed = [f"row {number}: {explain_width(len(row), width)}" for number, row in numbered if len(row) != width]
    fitting = [(number, row) for number, row in numbered if len(row) == width]
    by_field = list(zip(*(row for _, row in fitting), strict=True)) or [()] * width
    rows, dialect = [number for number, _ in fitting], table.dialect
    cells = _Cells(path, rows, {}, dialect.decimal, dialect.describe(), malformed)
    cells.by_name.update(_pick(table.columns, lambda at: by_field[at]))
    return table.columns, cells


def _read_parquet(path: Path, wine_type: str) -> tuple[Columns, _Cells]:
    try:
        table = pd.read_parquet(path).reset_index(drop=True)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors, or OSErrors without a number
        if isinstance(error, OSError) and error.errno:
            raise unreadable(path, error) from error
        raise BadInputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if table.empty:
        raise BadInputError(f"{path} holds no {ROWS}")
    columns = match_columns([str(name) for name in table.columns], path, wine_type, graded=True)
    cells = _Cells(path, range(2, len(table) + 2), {}, ".")
    cells.by_name.update(_pick(columns, lambda at: table.iloc[:, at].astype(object).tolist()))
    if columns.colour is not None:
        columns.require_colours(cells.by_name[TYPE][:SAMPLE_ROWS], path)
    return columns, cells


def _pick(columns: Columns, read: Callable[[int], Sequence[object]]) -> dict[str, Sequence[object]]:
    found = {name: read(at) for name, at in columns.fields.items()}
    return found if columns.colour is None else found | {TYPE: read(columns.colour)}


def _read_cell(cell: object, decimal: str) -> float | None:
    if cell is None or cell is pd.NA:
        return np.nan
    if isinstance(cell, bool):
        return None
    if isinstance(cell, float | int | np.number):
        return None if np.isinf(float(cell)) else float(cell)
    return read_number(str(cell), decimal)


def _read_colours(columns: Columns, cells: _Cells) -> list[str]:
    if columns.colour is None:
        return [columns.wine_type] * len(cells.rows)
    known = {cell: columns.read_colour(cell) for cell in set(cells.by_name[TYPE])}
    colours = [known[cell] for cell in cells.by_name[TYPE]]
    cells.note(TYPE, [colour is None for colour in colours], NO_COLOUR)
    return [TYPES[0] if colour else TYPES[1] for colour in colours]


def _check_grades(grades: pd.Series, cells: _Cells) -> None:
    blank = [str(cell).strip() in BLANKS or cell is pd.NA for cell in cells.by_name[TARGET]]
    cells.note(TARGET, blank, "is missing; is the file cut off there?")
    off_scale = grades.notna() & (~grades.between(*SCALE) | (grades % 1 != 0))
    cells.note(TARGET, off_scale, f"is not a grade from {SCALE[0]} to {SCALE[1]}")
