"""The API's responses: the schema of each, and a fast writer."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from deployment.predictor import Predictor
from wine_data.schema import FEATURES, SCALE
from wine_quality_training.bundle.explanation import ADDS_UP, METHOD


class ServingModel(BaseModel):
    """The model that made the prediction."""

    name: str
    version: str
    run_id: str


class Explanation(BaseModel):
    """What each feature adds to the expected quality of a wine."""

    method: str = Field(description="how the effects were found")
    adds_up: bool = Field(description="whether they add up: no, because features interact and each is changed alone")
    medians: dict[str, float] = Field(description="by feature, of the training wines")
    effects: dict[str, float] = Field(
        description="by feature, in grades: expected_quality minus that of this wine with the feature at its median"
    )


class Grading(BaseModel):
    """The prediction for one wine of a batch."""

    request_id: str
    prediction: int = Field(description="the grade, 3 to 9, decided by the model's rule: see /model")
    likeliest: int = Field(description="the grade with the highest probability; the prediction may be another one")
    probabilities: dict[str, float] = Field(description="by grade; they add up to 1")
    expected_quality: float = Field(description="mean grade under these probabilities")
    grade_sets: dict[str, list[int]] = Field(
        description="by level: consecutive grades; for that share of wines they hold the tasters' grade, see /model",
        examples=[{"0.8": [5, 6], "0.9": [5, 6, 7]}],
    )
    warnings: list[str] = Field(description="measurements that were filled, or are outside the range of training")
    explanation: Explanation | None = Field(None, description="only with explain=true")


class Prediction(Grading):
    """The prediction for one wine."""

    model: ServingModel


class BatchPrediction(BaseModel):
    """The predictions for a batch, in its order; a wine's request id is the batch's id and its row, from 1."""

    request_id: str
    model: ServingModel
    notes: list[str] = Field(description="how a table was read, and which columns were not used")
    answers: list[Grading]


class Feedback(BaseModel):
    """The grade that tasters gave to a wine that was predicted before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: str = Field(min_length=1, max_length=64, description="the id of the answer")
    quality: int = Field(ge=SCALE[0], le=SCALE[1], description="the grade that tasters gave", examples=[6])


class ModelCard(ServingModel):
    """Facts about the serving model."""

    model: str = Field(description="kind of model")
    compiled: str = Field(description="how the compiled model was checked, or why there is none")
    protocol: str
    grades: list[int]
    ranges: dict[str, list[float]] = Field(description="lowest and highest value in the training wines")
    metrics: dict[str, float] = Field(description="by protocol, wines scored on, and measure")
    decision: str = Field(description="how the prediction follows from the probabilities")
    grade_sets: dict[str, float] = Field(
        description="by level: a set grows while its probability is at most this; empty: this model has none"
    )
    guarantee: str = Field(description="what is guaranteed for its grade sets")
    data_source: str
    data_fingerprint: str
    loaded: str = Field(description="when this process loaded the model, UTC")


class Readiness(BaseModel):
    """The loaded model, and the result of the last attempt to load another."""

    ready: bool = True  # the server starts only with a checked model
    version: str
    refused: str = Field(description="why a newer bundle was refused; empty: none was")


class Refusal(BaseModel):
    """Why one field of a body was refused."""

    field: str
    reason: str


class Problem(BaseModel):
    """The errors in a request, in the format of RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str = Field(description="the request id, as in the header X-Request-ID")
    errors: list[Refusal] = []


class ResponseWriter:
    """Writes the responses of one model.

    It formats the JSON itself, because this runs for every wine: constant parts are written once, and no text comes
    from the request. Probabilities have seven digits, more than a hundred votes can distinguish.
    """

    def __init__(self, predictor: Predictor) -> None:
        """Prepare the constant parts for a model."""
        self.predictor = predictor
        self.model = ServingModel.model_validate(vars(predictor.metadata)).model_dump_json()
        self._grades = tuple(predictor.grades)
        self._explanation = _lay_out_explanation(predictor)
        self._levels = tuple(f'"{level}":' for level in predictor.metadata.grade_sets)
        self._sets = {
            (low, high): json.dumps(self._grades[low : high + 1], separators=(",", ":"))
            for high in range(len(self._grades))
            for low in range(high + 1)
        }
        self._probabilities = "{" + ",".join(f'"{grade}":%.7g' for grade in predictor.grades) + "}"

    def decide(self, probabilities: np.ndarray) -> "list[Decided]":
        """Apply the model's decision rule to the probabilities of some wines."""
        decided, expected = self.predictor.decide(probabilities)
        return list(map(Decided, probabilities.tolist(), decided.tolist(), expected.tolist()))

    def write(
        self, request_id: str, wine: tuple[float, ...], decided: "Decided", filled: tuple[str, ...] = ()
    ) -> "Graded":
        """Write the prediction for one wine; `filled` names the measurements that were blank."""
        grades, (row, place, expected) = self._grades, decided
        grade, probabilities = grades[place], self._probabilities % tuple(row)
        found = self.predictor.find_sets_of_one(row, place)
        sets = ",".join([level + self._sets[ends] for level, ends in zip(self._levels, found, strict=True)])
        warnings = self.predictor.list_warnings(wine, filled)
        text = (
            f'"request_id":"{request_id}","prediction":{grade},"likeliest":{grades[row.index(max(row))]},'
            f'"probabilities":{probabilities},'
            f'"expected_quality":{expected:.6g},"grade_sets":{{{sets}}},'
            f'"warnings":{json.dumps(warnings) if warnings else "[]"}'
        )
        return Graded(text, request_id, wine, grade, probabilities, expected)

    def explain(self, graded: Sequence["Graded"]) -> list[str]:
        """Write the explanations of some predictions, each to be appended to the text of its prediction."""
        wines, expected = (np.array([getattr(one, name) for one in graded]) for name in ("wine", "expected_quality"))
        return [self._explanation % tuple(effects) for effects in self.predictor.explain(wines, expected).tolist()]


class Decided(NamedTuple):
    """A wine's probabilities, the position of its grade in the model's grades, and its expected quality."""

    probabilities: list[float]
    place: int
    expected_quality: float


class Graded(NamedTuple):
    """The prediction for one wine: the inside of its JSON object, without the model; and the values for the log."""

    text: str
    request_id: str
    wine: tuple[float, ...]
    grade: int
    probabilities: str
    expected_quality: float


def _lay_out_explanation(predictor: Predictor) -> str:
    """The JSON of an explanation, with a placeholder for each effect; empty if the model cannot explain."""
    if predictor.medians is None:
        return ""
    medians = dict(zip(FEATURES, predictor.medians.tolist(), strict=True))
    fixed = json.dumps({"method": METHOD, "adds_up": ADDS_UP, "medians": medians}, separators=(",", ":"))
    effects = ",".join(f'"{name}":%.4g' for name in FEATURES)
    return f',"explanation":{fixed[:-1]},"effects":{{{effects}}}}}'
