"""The rows of a chunk divided into wines and refusals, and wines into answers.

A cell is judged by the schema, as in the API. Nearly all rows pass, so whole columns are compared with the schema's
bounds, and only rows that fail there are put to the schema one by one, for the reasons or for a reprieve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from deployment.batch.chunks import RawRows
from deployment.predictor import Predictor
from wine_data.schema import BOUNDS, FEATURES, MEASUREMENTS, RED, TYPE, TYPES, WineQuality, feature_values

SAME = ("model", "version", "run_id")  # columns that have one value in all rows
# What Arrow and Python read as the same number; other spellings are left to the schema.
PLAIN_NUMBER = r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class CheckedRows:
    """The wines of a part, shape (wines, 12), with their row numbers, and the reasons for the rows that are none."""

    rows: np.ndarray
    wines: np.ndarray
    refusals: dict[int, str]


def check_rows(raw: RawRows) -> CheckedRows:
    """Tell wines from rows that are none."""
    numbers = read_numbers(raw)
    good = _lie_within(numbers, BOUNDS)
    good &= (numbers[:, -1] == 0) | (numbers[:, -1] == 1)
    refusals = dict(raw.malformed)
    doubtful = np.flatnonzero(~good)
    for at, given in zip(doubtful.tolist(), _read_texts(raw.table.take(doubtful)), strict=True):
        if not given:
            continue  # a blank line
        try:
            numbers[at] = feature_values(WineQuality.model_validate_strings(given))
            good[at] = True
        except ValidationError as error:
            reasons = [f"{problem['loc'][0]}: {_explain(dict(problem))}" for problem in error.errors()]
            refusals[int(raw.rows[at])] = "; ".join(reasons)
    if not good.all():
        return CheckedRows(raw.rows[good], numbers[good], dict(sorted(refusals.items())))
    return CheckedRows(raw.rows, numbers, {})


def read_numbers(raw: RawRows) -> np.ndarray:
    """The features of a part's rows, shape (rows, 12), NaN where a cell is missing, no number, or no colour."""
    numbers = np.empty((raw.table.num_rows, len(FEATURES)), order="F")  # a column is one piece of memory
    for at, name in enumerate(FEATURES):
        numbers[:, at] = _read_column(raw.table, name)
    return numbers


def score_rows(predictor: Predictor, checked: CheckedRows, batch: str) -> pa.Table:
    """Answer the wines of a part, one row a wine: its row in the file, a request id, the answer, warnings, the model.

    A request id is the batch's digest and the row, so the same question to the same model has the same id.
    """
    metadata, wines = predictor.metadata, checked.wines
    grades = np.array(predictor.grades, dtype="int64")
    probabilities = predictor.predict_probabilities(wines) if len(wines) else np.empty((0, len(grades)))
    row = pa.array(checked.rows, type=pa.int64())
    columns: dict[str, pa.Array] = {
        "row": row,
        "request_id": pc.binary_join_element_wise(batch, row.cast(pa.string()), "-"),
        "prediction": pa.array(grades[probabilities.argmax(axis=1)]),
        "expected_quality": pa.array(probabilities @ grades.astype("float64")),
    }
    columns |= {f"probability_{grade}": pa.array(probabilities[:, at]) for at, grade in enumerate(predictor.grades)}
    columns["warnings"] = _list_warnings(predictor, wines)
    nothing = pa.array(np.zeros(len(wines), dtype="int8"))
    same = (metadata.name, metadata.version, metadata.run_id)
    columns |= {name: pa.DictionaryArray.from_arrays(nothing, [value]) for name, value in zip(SAME, same, strict=True)}
    return pa.table(columns)


def _read_column(table: pa.Table, name: str) -> np.ndarray:
    """A feature as float64, NaN where a cell is missing or no plain number."""
    if name == RED and TYPE in table.column_names:
        colour = pc.utf8_lower(pc.utf8_trim_whitespace(table[TYPE].cast(pa.string())))
        known = pc.if_else(pc.equal(colour, TYPES[0]), 1.0, pc.if_else(pc.equal(colour, TYPES[1]), 0.0, float("nan")))
        return _as_numpy(known)
    column = table[name]
    if pa.types.is_string(column.type):
        plain = pc.match_substring_regex(column, PLAIN_NUMBER)
        column = pc.if_else(plain, column, pa.scalar(None, column.type))
    return _as_numpy(column.cast(pa.float64(), safe=False))


def _as_numpy(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy())  # what is missing becomes NaN


def _lie_within(numbers: np.ndarray, ranges: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Rows whose every feature lies in its range; NaN lies in none."""
    within = np.ones(len(numbers), dtype=bool)
    for at, name in enumerate(FEATURES):
        low, high = ranges[name]
        within &= (numbers[:, at] >= low) & (numbers[:, at] <= high)
    return within


def _read_texts(table: pa.Table) -> list[dict[str, str]]:
    """Rows as the schema reads text: a cell that is missing is left out, a colour is put as red_wine."""
    rows = []
    for raw in table.to_pylist():
        given = {name: str(raw[name]) for name in (*MEASUREMENTS, RED) if raw.get(name) is not None}
        colour = raw.get(TYPE)
        if colour is not None:
            given[RED] = {TYPES[0]: "1", TYPES[1]: "0"}.get(str(colour).strip().lower(), str(colour))
        rows.append(given)
    return rows


def _list_warnings(predictor: Predictor, wines: np.ndarray) -> pa.Array:
    """What lies outside of what the model was fitted on, "" for most wines."""
    outside = np.flatnonzero(~_lie_within(wines, predictor.metadata.ranges)).tolist()
    texts = ["", *("; ".join(predictor.list_warnings(tuple(wines[at].tolist()))) for at in outside)]
    locations = np.zeros(len(wines), dtype="int32")
    locations[outside] = np.arange(1, len(texts))
    return pa.DictionaryArray.from_arrays(locations, texts).cast(pa.string())


def _explain(problem: dict[str, object]) -> str:
    return "there is no value" if problem["type"] == "missing" else f"{problem['msg']}, not {problem['input']}"
