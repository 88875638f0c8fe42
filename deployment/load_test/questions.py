"""The load test's requests, and the checks of their responses.

Half of the wines are rows of the available data, half are drawn from the ranges of published wines. Other bodies are
invalid: 422 is their correct status.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd

from commands import NotThereError
from wine_data.schema import BOUNDS, FEATURES, FLAGS, GRADES, MEASUREMENTS, SEEN
from wine_data.sources.load import DROP_FOLDER, read_folder
from wine_data.twin.sample import sample_twin

ROWS = 2_000  # too many for a cache
TOLERANCE = 1e-6
POSITIVE = next((name for name in MEASUREMENTS if BOUNDS[name][0] > 0), MEASUREMENTS[0])
CUT_OFF, MISSING = "cut off", "missing field"
REPLACED: dict[str, tuple[Sequence[str], object]] = {  # one of these fields gets this value
    f"negative {POSITIVE}": ([POSITIVE], min(-1.0, BOUNDS[POSITIVE][0] - 1)),
    "word for number": (FEATURES, "strong"),
    "unknown field": (["taste"], 9),
    "NaN": (MEASUREMENTS, math.nan),
}
SPOILERS = (*REPLACED, MISSING, CUT_OFF)

Wine = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A body for POST /predict; `field` is the one that a refusal must name, None for a valid wine."""

    kind: str
    body: str
    field: str | None = None


GREETING = Question("greeting", "")  # GET /


def read_rows(source: str, downloads: Path, seed: int) -> list[Wine]:
    """Read the wines of a source (as in WINE_DATA) from disk, else draw them from the twin.

    Nothing is downloaded; `downloads` is the folder of the UCI originals. The rows are valid for the API: without
    missing values, within the bounds.

    Raises:
        BadInputError: the files exist but are invalid.
    """
    wines = _read_wines(source, downloads, seed).loc[:, list(FEATURES)].dropna()
    fine = pd.concat([wines[name].between(*BOUNDS[name]) for name in FEATURES], axis="columns").all(axis="columns")
    rows = wines[fine].sample(min(ROWS, int(fine.sum())), random_state=seed).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _read_wines(source: str, downloads: Path, seed: int) -> pd.DataFrame:
    folders = {"auto": (DROP_FOLDER, downloads), "uci": (downloads,), "kaggle": (), "twin": ()}
    for folder in folders.get(source, (Path(source).expanduser(),)):
        try:
            return pd.concat(read_folder(folder, seed))
        except (NotThereError, FileNotFoundError):  # no such folder yet
            continue
    return sample_twin(ROWS, seed)


def ask_for_wine(rows: list[Wine], random: Random) -> Question:
    """Take a wine from the rows or, equally often, draw one from the ranges of published wines."""
    return Question("a wine", json.dumps(_choose_wine(rows, random)))


def ask_for_refusal(rows: list[Wine], random: Random) -> Question:
    """Make an invalid body with a random kind of mistake."""
    return spoil_wine(_choose_wine(rows, random), random.choice(SPOILERS), random)


def _choose_wine(rows: list[Wine], random: Random) -> Wine:
    if rows and random.random() < 0.5:
        return dict(random.choice(rows))
    return {name: random.uniform(*SEEN[name]) for name in MEASUREMENTS} | {flag: random.randint(0, 1) for flag in FLAGS}


def spoil_wine(wine: Wine, kind: str, random: Random) -> Question:
    """Make an invalid body from a wine; `kind` is one of SPOILERS."""
    if kind == CUT_OFF:
        text = json.dumps(wine)
        return Question(kind, text[: random.randrange(1, len(text))], "body")
    if kind == MISSING:
        field = random.choice(FEATURES)
        return Question(kind, json.dumps({name: value for name, value in wine.items() if name != field}), field)
    fields, value = REPLACED[kind]
    field = random.choice(fields)
    return Question(kind, json.dumps(wine | {field: value}), field)


def find_fault(question: Question, status: int, content_type: str, text: str) -> str | None:
    """What is wrong with a response; None if it is correct.

    The text contains no values of the response, so that equal faults are counted together.
    """
    if not status:
        return "no answer"
    expected = 200 if question.field is None else 422
    if status != expected:
        return f"status {status}, not {expected}"
    answer = _read_object(text)
    if question is GREETING:
        return None if "predict" in answer else "has no entry predict"
    if question.field is None:
        return _find_fault_in_prediction(answer)
    return _find_fault_in_refusal(question.field, content_type, answer)


def _find_fault_in_prediction(answer: dict[str, Any]) -> str | None:
    probabilities = answer.get("probabilities")
    if answer.get("prediction") not in GRADES:
        return f"prediction is no grade from {GRADES[0]} to {GRADES[-1]}"
    if not isinstance(probabilities, dict) or not all(isinstance(p, int | float) for p in probabilities.values()):
        return "probabilities are no numbers by grade"
    if abs(sum(probabilities.values()) - 1) > TOLERANCE:
        return "probabilities do not add up to 1"
    if str(answer["prediction"]) not in probabilities:
        return "prediction is a grade without a probability"
    if probabilities.get(str(answer.get("likeliest"))) != max(probabilities.values()):
        return "likeliest is not the grade with the highest probability"
    return None


def _find_fault_in_refusal(field: str, content_type: str, answer: dict[str, Any]) -> str | None:
    if content_type.partition(";")[0] != "application/problem+json":
        return f"content type is {content_type or 'not given'}, not application/problem+json"
    errors = answer.get("errors")
    named = {error.get("field") for error in errors if isinstance(error, dict)} if isinstance(errors, list) else set()
    return None if named == {field} else "names another field than the one that is wrong"


def _read_object(text: str) -> dict[str, Any]:
    """Read a JSON object; an empty one if the text is not a JSON object."""
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
