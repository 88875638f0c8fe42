"""The answers of the API: the form of each, and the fast way to write one."""

import json
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from deployment.predictor import Predictor
from wine_data.schema import SCALE


class ServingModel(BaseModel):
    """Which model answered."""

    name: str
    version: str
    run_id: str


class Grading(BaseModel):
    """The answer to one wine of a batch."""

    request_id: str
    prediction: int = Field(description="the grade, 3 to 9, decided by the model's rule: see /model")
    likeliest: int = Field(description="the grade with the highest probability; the rule may decide for another one")
    probabilities: dict[str, float] = Field(description="by grade; they add up to 1")
    expected_quality: float = Field(description="mean grade under these probabilities")
    grade_sets: dict[str, list[int]] = Field(
        description="by level: consecutive grades that hold the tasters' grade of that share of wines; see /model",
        examples=[{"0.8": [5, 6], "0.9": [5, 6, 7]}],
    )
    warnings: list[str] = Field(description="measurements that were filled, or are unusual")


class Prediction(Grading):
    """The answer to one wine."""

    model: ServingModel


class BatchPrediction(BaseModel):
    """The answers to a batch, in its order; the request id of a wine is that of the batch and its row, from 1."""

    request_id: str
    model: ServingModel
    notes: list[str] = Field(description="how a table was read, where that is not plain, and what of it was not used")
    answers: list[Grading]


class Feedback(BaseModel):
    """The grade that tasters gave to a wine that was predicted before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    request_id: str = Field(min_length=1, max_length=64, description="of the answer")
    quality: int = Field(ge=SCALE[0], le=SCALE[1], description="the grade that tasters gave", examples=[6])


class ModelCard(ServingModel):
    """What is known of the model that serves."""

    model: str = Field(description="kind of model")
    compiled: str = Field(description="how the compiled form was proved, or why there is none")
    protocol: str
    grades: list[int]
    ranges: dict[str, list[float]] = Field(description="of the wines that it was fitted on: lowest, highest")
    metrics: dict[str, float] = Field(description="by protocol, wines scored on, and measure")
    decision: str = Field(description="how the prediction is made of the probabilities")
    grade_sets: dict[str, float] = Field(
        description="by level: a set grows while its probability is at most this; empty: this model has none"
    )
    guarantee: str = Field(description="what holds for its grade sets")
    data_source: str
    data_fingerprint: str
    loaded: str = Field(description="when this process loaded it, UTC")


class Readiness(BaseModel):
    """The model that is loaded, and what became of the last attempt to load another."""

    ready: bool = True  # the server starts only with a checked model
    version: str
    refused: str = Field(description="why the bundle that should serve was refused; empty: it was not")


class Refusal(BaseModel):
    """Why one field of a body was refused."""

    field: str
    reason: str


class Problem(BaseModel):
    """What was wrong with a request, in the form of RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Refusal] = []


class ResponseWriter:
    """Writes the answers of one model.

    By hand, because this is done for every wine: the parts that do not change are written once, and no text in
    it comes from the request. Probabilities have seven digits, more than a hundred votes can distinguish.
    """

    def __init__(self, predictor: Predictor) -> None:
        """Take the model whose answers are to be written."""
        self.predictor = predictor
        self.model = ServingModel.model_validate(vars(predictor.metadata)).model_dump_json()
        self._grades = tuple(predictor.grades)
        self._levels = tuple(f'"{level}":' for level in predictor.metadata.grade_sets)
        self._sets = {
            (low, high): json.dumps(self._grades[low : high + 1], separators=(",", ":"))
            for high in range(len(self._grades))
            for low in range(high + 1)
        }
        self._probabilities = "{" + ",".join(f'"{grade}":%.7g' for grade in predictor.grades) + "}"

    def write(
        self, request_id: str, wine: tuple[float, ...], row: list[float], filled: tuple[str, ...] = ()
    ) -> "Graded":
        """Write the answer to one wine from its row of probabilities; `filled` names the blank measurements."""
        predictor, grades = self.predictor, self._grades
        decided, (expected,) = predictor.decide(np.array([row]))
        position = int(decided[0])
        grade = grades[position]
        found = predictor.find_sets_of_one(row, position)
        sets = ",".join([level + self._sets[ends] for level, ends in zip(self._levels, found, strict=True)])
        probabilities = self._probabilities % tuple(row)
        warnings = predictor.list_warnings(wine, filled)
        text = (
            f'"request_id":"{request_id}","prediction":{grade},"likeliest":{grades[row.index(max(row))]},'
            f'"probabilities":{probabilities},'
            f'"expected_quality":{expected:.6g},"grade_sets":{{{sets}}},'
            f'"warnings":{json.dumps(warnings) if warnings else "[]"}'
        )
        return Graded(text, request_id, wine, grade, probabilities, expected)


class Graded(NamedTuple):
    """The answer to one wine: the inside of its JSON object, without the model; and what the log keeps of it."""

    text: str
    request_id: str
    wine: tuple[float, ...]
    grade: int
    probabilities: str
    expected_quality: float
