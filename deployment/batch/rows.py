"""Divide the rows of a chunk into wines and refusals, and score the wines.

The schema validates cells, as in the API. Nearly all rows are valid, so whole columns are compared with the schema's
bounds first. The schema then checks only the failing rows one by one: it gives the reasons, or accepts the row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from deployment.batch.chunks import RawRows
from deployment.predictor import PART_PLACES, Predictor
from wine_data.schema import (
    BOUNDS,
    FEATURES,
    FLAG_PLACES,
    FLAGS,
    MEASUREMENTS,
    TYPE,
    TYPES,
    WineQuality,
    feature_values,
)
from wine_data.table.columns import NO_COLOUR
from wine_quality_training.bundle.grade_sets import name_percent

SAME = ("model", "version", "run_id")  # columns with the same value in all rows
# Spellings that Arrow and Python read as the same number; the schema reads all others.
PLAIN_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class CheckedRows:
    """The wines among some rows, shape (wines, 12), their row numbers, and the reasons for refused rows.

    `filled` marks cells that were blank, shape (wines, 12); `blank` counts empty rows.
    """

    rows: np.ndarray
    wines: np.ndarray
    refusals: dict[int, str]
    filled: np.ndarray
    blank: int


def check_rows(raw: RawRows, fills: Mapping[str, float]) -> CheckedRows:
    """Divide rows into wines and refusals.

    Args:
        raw: the cells.
        fills: by measurement, the model's value for a blank cell; a blank without one means its row is refused.
    """
    numbers = read_numbers(raw)
    blanks = _find_blanks(raw)
    empty = blanks.all(axis=1)
    filled = blanks & np.isin(FEATURES, list(fills)) & ~blanks[:, : len(MEASUREMENTS)].all(axis=1, keepdims=True)
    numbers = np.where(filled, [fills.get(name, np.nan) for name in FEATURES], numbers) if filled.any() else numbers
    good = _lie_within(numbers, BOUNDS)
    for at in FLAG_PLACES:
        good &= (numbers[:, at] == 0) | (numbers[:, at] == 1)
    refusals = dict(raw.malformed)
    doubtful = np.flatnonzero(~good & ~empty)
    for at, cells in zip(doubtful.tolist(), raw.table.take(doubtful).to_pylist(), strict=True):
        reasons = _explain_colour(raw, cells)
        try:
            values = feature_values(WineQuality.model_validate_strings(_read_texts(cells, numbers[at])))
        except ValidationError as error:
            reasons += [f"{problem['loc'][0]}: {_explain(dict(problem))}" for problem in error.errors()]
        if reasons:
            refusals[int(raw.rows[at])] = "; ".join(reasons)
        else:
            numbers[at], good[at] = values, True
    blank = raw.blank + int(empty.sum())
    if good.all():
        return CheckedRows(raw.rows, numbers, refusals, filled, blank)
    return CheckedRows(raw.rows[good], numbers[good], dict(sorted(refusals.items())), filled[good], blank)


def read_numbers(raw: RawRows) -> np.ndarray:
    """The features of rows, shape (rows, 12); NaN if a cell is missing, or not a number or colour."""
    numbers = np.empty((raw.table.num_rows, len(FEATURES)), order="F")  # each column is contiguous in memory
    for at, name in enumerate(MEASUREMENTS):
        numbers[:, at] = _read_column(raw.table[name])
    for at in FLAG_PLACES:
        numbers[:, at] = _read_colours(raw)
    return numbers


def score_rows(predictor: Predictor, checked: CheckedRows, batch: str, explain: bool = False) -> pa.Table:
    """Score the wines of a part, one row per wine: row in the file, request id, prediction, warnings, model.

    A request id is the batch's digest and the row, so the same wine has the same id for the same model. With `explain`,
    there are also the effects of the features.
    """
    metadata, wines = predictor.metadata, checked.wines
    grades = np.array(predictor.grades, dtype="int64")
    probabilities = predictor.predict_probabilities(wines) if len(wines) else np.empty((0, len(grades)))
    decided, expected = predictor.decide(probabilities)
    row = pa.array(checked.rows, type=pa.int64())
    columns: dict[str, pa.Array] = {
        "row": row,
        "request_id": pc.binary_join_element_wise(batch, row.cast(pa.string()), "-"),
        "prediction": pa.array(grades[decided]),
        "likeliest": pa.array(grades[probabilities.argmax(axis=1)]),
        "expected_quality": pa.array(expected),
    }
    columns |= {f"probability_{grade}": pa.array(probabilities[:, at]) for at, grade in enumerate(predictor.grades)}
    for level, ends in predictor.find_sets(probabilities, decided).items():
        names = (f"set_{name_percent(level)}_{end}" for end in ("low", "high"))
        columns |= {name: pa.array(grades[places]) for name, places in zip(names, ends, strict=True)}
    if explain:
        columns |= _list_effects(predictor, wines, expected)
    columns["warnings"] = _list_warnings(predictor, checked)
    nothing = pa.array(np.zeros(len(wines), dtype="int8"))
    same = (metadata.name, metadata.version, metadata.run_id)
    columns |= {name: pa.DictionaryArray.from_arrays(nothing, [value]) for name, value in zip(SAME, same, strict=True)}
    return pa.table(columns)


def _read_column(column: pa.ChunkedArray) -> np.ndarray:
    """A measurement as float64; NaN if a cell is missing or not a plain number."""
    if pa.types.is_string(column.type):
        plain = pc.match_substring_regex(column, PLAIN_NUMBER)
        column = pc.if_else(plain, column, pa.scalar(None, column.type))
    return _as_numpy(column.cast(pa.float64(), safe=False))


def _read_colours(raw: RawRows) -> np.ndarray | float:
    """1.0 for red, 0.0 for white, NaN for neither; each distinct colour is read once."""
    if raw.columns.colour is None:
        return float(raw.columns.wine_type == TYPES[0])
    coded = raw.table[TYPE].combine_chunks().dictionary_encode()
    colours = [raw.columns.read_colour(cell) for cell in coded.dictionary.to_pylist()]
    values = np.array([np.nan if colour is None else colour for colour in [*colours, None]])
    return np.asarray(values[coded.indices.fill_null(len(colours)).to_numpy(zero_copy_only=False)])


def _find_blanks(raw: RawRows) -> np.ndarray:
    """The blank cells, shape (rows, 12)."""
    blanks = np.zeros((raw.table.num_rows, len(FEATURES)), dtype=bool)
    for at, name in enumerate((*MEASUREMENTS, TYPE)[: len(FEATURES)]):
        if name in raw.table.column_names:
            column = raw.table[name]
            if column.null_count:
                blanks[:, at] = column.is_null().to_numpy()
        else:
            blanks[:, at] = blanks[:, :at].all(axis=1)  # one colour for all wines: an empty row stays empty
    return blanks


def _as_numpy(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy())  # missing values become NaN


def _lie_within(numbers: np.ndarray, ranges: Mapping[str, Sequence[float]]) -> np.ndarray:
    """The rows whose features are all within their ranges; NaN is never within."""
    within = np.ones(len(numbers), dtype=bool)
    for at, name in enumerate(FEATURES):
        low, high = ranges[name]
        within &= (numbers[:, at] >= low) & (numbers[:, at] <= high)
    return within


def _explain_colour(raw: RawRows, cells: Mapping[str, object]) -> list[str]:
    cell = cells.get(TYPE)
    known = cell is None or raw.columns.read_colour(cell) is not None
    return [] if known else [f"{raw.columns.name}: {cell} {NO_COLOUR}"]


def _read_texts(cells: Mapping[str, object], numbers: np.ndarray) -> dict[str, str]:
    """A row as text for the schema: as in the file, else as it was read; without blank cells."""
    read = {name: repr(number) for name, number in zip(FEATURES, numbers.tolist(), strict=True) if number == number}
    for flag in FLAGS if cells.get(TYPE) is not None else ():
        read.setdefault(flag, "0")  # _explain_colour reports an unknown colour
    return read | {name: str(cells[name]) for name in MEASUREMENTS if cells[name] is not None}


def _list_effects(predictor: Predictor, wines: np.ndarray, expected: np.ndarray) -> dict[str, pa.Array]:
    """What each feature adds to the expected quality, one column per feature."""
    effects = predictor.explain(wines, expected)
    return {f"effect_{name}": pa.array(column) for name, column in zip(FEATURES, effects.T, strict=True)}


def _list_warnings(predictor: Predictor, checked: CheckedRows) -> pa.Array:
    """Warnings about filled and unusual measurements; "" for most wines."""
    unusual = ~_lie_within(checked.wines, predictor.metadata.ranges) | checked.filled.any(axis=1)
    for part, whole in PART_PLACES:
        unusual |= checked.wines[:, part] > checked.wines[:, whole]
    places = np.flatnonzero(unusual).tolist()
    texts = [""]
    for at in places:
        filled = [name for name, was_blank in zip(FEATURES, checked.filled[at], strict=True) if was_blank]
        texts.append("; ".join(predictor.list_warnings(tuple(checked.wines[at].tolist()), filled)))
    locations = np.zeros(len(checked.wines), dtype="int32")
    locations[places] = np.arange(1, len(texts))
    return pa.DictionaryArray.from_arrays(locations, texts).cast(pa.string())


def _explain(problem: dict[str, object]) -> str:
    return "there is no value" if problem["type"] == "missing" else f"{problem['msg']}, not {problem['input']}"
