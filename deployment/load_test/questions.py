"""What the load test asks, and which answers to it are right.

Half of the wines are rows of the data at hand, half are drawn from the ranges that published wines have.
Other bodies are no wine: their 422 is the right answer.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd

from commands import NotThereError
from wine_data.schema import BOUNDS, FEATURES, GRADES, MEASUREMENTS, RED, SEEN
from wine_data.sources.load import DROP_FOLDER, read_folder
from wine_data.twin.sample import sample_twin

ROWS = 2_000  # enough that no cache would know them
POSITIVE = next((name for name in MEASUREMENTS if BOUNDS[name][0] > 0), MEASUREMENTS[0])
TOLERANCE = 1e-6

Wine = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A body for POST /predict; `field` is the one that a refusal must name, None where it is a wine."""

    kind: str
    body: str
    field: str | None


def read_rows(source: str, downloads: Path, seed: int) -> list[Wine]:
    """Read wines of a source that lie on disk, else draw them from the twin; nothing is downloaded.

    Args:
        source: as in WINE_DATA.
        downloads: where the UCI originals are kept.
        seed: decides which rows, and what the twin draws.

    Raises:
        BadInputError: the files are there and not what they should be.
    """
    folders = {"auto": (DROP_FOLDER, downloads), "uci": (downloads,), "kaggle": (), "twin": ()}
    for folder in folders.get(source, (Path(source).expanduser(),)):
        try:
            return _lay_out_rows(pd.concat(read_folder(folder, seed)), seed)
        except NotThereError:
            continue
    return _lay_out_rows(sample_twin(ROWS, seed), seed)


def _lay_out_rows(wines: pd.DataFrame, seed: int) -> list[Wine]:
    """Lay out rows as the API takes them: without holes, inside the bounds."""
    wines = wines.loc[:, list(FEATURES)].dropna()
    fine = pd.concat([wines[name].between(*BOUNDS[name]) for name in FEATURES], axis="columns").all(axis="columns")
    wines = wines[fine]
    return [
        {str(name): value for name, value in row.items()}
        for row in wines.sample(min(ROWS, len(wines)), random_state=seed).to_dict("records")
    ]


def ask_for_wine(rows: list[Wine], random: Random) -> Question:
    """Take a wine of the rows or, as often, draw one from the ranges seen."""
    return Question("a wine", json.dumps(_choose_wine(rows, random)), field=None)


def ask_for_refusal(rows: list[Wine], random: Random) -> Question:
    """Spoil a wine in one of the ways that users do."""
    kind = random.choice(list(SPOILERS))
    body, field = SPOILERS[kind](_choose_wine(rows, random), random)
    return Question(kind, body, field)


def _choose_wine(rows: list[Wine], random: Random) -> Wine:
    if rows and random.random() < 0.5:
        return dict(random.choice(rows))
    return {name: random.uniform(*SEEN[name]) for name in MEASUREMENTS} | {RED: random.randint(0, 1)}


def _negate(wine: Wine, _: Random) -> tuple[str, str]:
    return json.dumps(wine | {POSITIVE: min(-wine[POSITIVE], BOUNDS[POSITIVE][0] - 1)}), POSITIVE


def _leave_field_out(wine: Wine, random: Random) -> tuple[str, str]:
    left_out = random.choice(FEATURES)
    return json.dumps({name: value for name, value in wine.items() if name != left_out}), left_out


def _write_word(wine: Wine, random: Random) -> tuple[str, str]:
    name = random.choice(FEATURES)
    return json.dumps(wine | {name: "strong"}), name


def _add_field(wine: Wine, _: Random) -> tuple[str, str]:
    return json.dumps(wine | {"taste": 9}), "taste"


def _write_nan(wine: Wine, random: Random) -> tuple[str, str]:
    name = random.choice(MEASUREMENTS)
    return json.dumps(wine | {name: float("nan")}), name


def _cut_off(wine: Wine, random: Random) -> tuple[str, str]:
    text = json.dumps(wine)
    return text[: random.randrange(1, len(text))], "body"


SPOILERS: dict[str, Callable[[Wine, Random], tuple[str, str]]] = {
    f"negative {POSITIVE}": _negate,
    "missing field": _leave_field_out,
    "word for number": _write_word,
    "unknown field": _add_field,
    "NaN": _write_nan,
    "cut off": _cut_off,
}


def find_fault_in_greeting(status: int, text: str) -> str | None:
    """Say what is wrong with an answer to GET /; None where nothing is.

    Faults are reported without the values of the one answer, so that equal ones are counted together.
    """
    if status != 200:
        return f"status {status}, not 200"
    return None if "predict" in _read_object(text) else "does not say where to predict"


def find_fault(question: Question, status: int, content_type: str, text: str) -> str | None:
    """Say what is wrong with an answer to POST /predict; None where nothing is."""
    if question.field is None:
        return _find_fault_in_prediction(status, text)
    return _find_fault_in_refusal(question.field, status, content_type, text)


def _find_fault_in_prediction(status: int, text: str) -> str | None:
    if status != 200:
        return f"status {status}, not 200"
    answer = _read_object(text)
    probabilities = answer.get("probabilities")
    if answer.get("prediction") not in GRADES:
        return f"prediction is no grade from {GRADES[0]} to {GRADES[-1]}"
    if not isinstance(probabilities, dict) or not all(isinstance(p, int | float) for p in probabilities.values()):
        return "probabilities are no numbers by grade"
    if abs(sum(probabilities.values()) - 1) > TOLERANCE:
        return "probabilities do not add up to 1"
    if probabilities.get(str(answer["prediction"])) != max(probabilities.values()):
        return "prediction is not the likeliest grade"
    return None


def _find_fault_in_refusal(field: str, status: int, content_type: str, text: str) -> str | None:
    if status != 422:
        return f"status {status}, not 422"
    if content_type.partition(";")[0] != "application/problem+json":
        return f"content type is {content_type or 'not given'}, not application/problem+json"
    errors = _read_object(text).get("errors")
    named = {error.get("field") for error in errors if isinstance(error, dict)} if isinstance(errors, list) else set()
    return None if named == {field} else "names another field than the one that is wrong"


def _read_object(text: str) -> dict[str, Any]:
    """Read a JSON object; an empty one where the text is none."""
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
