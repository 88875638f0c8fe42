"""Two protocols, and what a score of each is worth.

As published: fit on the train file, score on the train and on the validation file. The two hold
the same wines, so this measures memory. Leak-free: no distinct wine in both parts; scores come
from grouped cross-validation in train ("cv") and from the holdout ("holdout"), each with
a 95 % interval from 1,000 bootstrap resamples of the scored wines. The interval shows what the choice
of wines does to a score, not what another seed or another split would do.

RMSE and MAE are in grades, the lower the better. R2 is the share of the grades' variance that a
model explains; it is not an accuracy. Accuracy is the share of wines with the right grade, within-one
the share at most one grade off. Kappa is quadratic weighted kappa: agreement beyond chance, with a
miss by two grades four times as bad as by one. It decides between classifiers, because always
the majority-class baseline gets an accuracy of 0.44 and a kappa of 0. Numbers from a regressor are
rounded for the last three.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from commands import BadInputError
from executors import MapFunction
from wine_data.schema import GRADES, SCALE, TARGET, TYPE, TYPES, feature_frame
from wine_data.sources.load import WineData
from wine_quality_training.models import make_model, predicts_grades

if TYPE_CHECKING:  # measures and the words for scores are used by many modules that fit nothing
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from wine_data.split import Split

AS_PUBLISHED, LEAK_FREE = "as-published", "leak-free"
PROTOCOLS = (AS_PUBLISHED, LEAK_FREE)
SCORED_ON = ("train", "validation", "cv", "holdout")
MEASURES = ("rmse", "mae", "r2", "accuracy", "within_one", "kappa")
RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """How well one model did on one set of wines, and how that was measured.

    `metrics` has the six MEASURES; `intervals` their 95 % intervals, and is empty as published, where
    the wines were seen before and an interval would promise what does not hold.
    """

    model: str
    protocol: str
    scored_on: str
    wines: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    def name_metrics(self) -> dict[str, float]:
        """The six measures under full names, as in leak-free.cv.kappa."""
        return {f"{self.protocol}.{self.scored_on}.{measure}": value for measure, value in self.metrics.items()}


@dataclass(frozen=True)
class Slice:
    """How well one model did on the wines of one colour or grade."""

    model: str
    scored_on: str
    slice: str
    wines: int
    mae: float
    accuracy: float
    within_one: float


@dataclass(frozen=True)
class Evaluation:
    """A fitted model with the scores that one protocol gives it, and what it predicted.

    `predictions` has, for each of SCORED_ON that the protocol knows, a table of the scored wines' `type`
    and `quality` with the model's `prediction`: a grade, or a regressor's number; for "cv" also a classifier's
    `confidence`, the highest of its probabilities.
    """

    name: str
    protocol: str
    pipeline: "Pipeline"
    scores: tuple[Score, ...]
    predictions: "dict[str, pd.DataFrame]"

    def score_on(self, scored_on: str) -> Score:
        """The score on "train", "validation", "cv" or "holdout"."""
        return next(score for score in self.scores if score.scored_on == scored_on)

    @property
    def classifies(self) -> bool:
        """Whether the model answers with grades."""
        return predicts_grades(self.pipeline)


class Scored(Protocol):
    """What can be chosen from: an Evaluation, or what a store remembers of one."""

    @property
    def classifies(self) -> bool:
        """Whether the model answers with grades."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """Its scores, the leak-free ones among them."""


ScoredT = TypeVar("ScoredT", bound=Scored)


@dataclass(frozen=True)
class Fitting:
    """How a model is fitted: under which protocols, what runs the fits, here or elsewhere, and what each calls."""

    protocols: Sequence[str] = PROTOCOLS
    map_fn: MapFunction = map
    on_step: Callable[[str], None] = lambda step: None


def train_model(name: str, data: WineData, split: "Split", seed: int, fitting: Fitting = Fitting()) -> list[Evaluation]:
    """Fit and score one model under each protocol asked for."""
    evaluations, unfitted = [], make_model(name, seed)
    if AS_PUBLISHED in fitting.protocols:
        evaluations.append(evaluate_as_published(name, unfitted, data, fitting.map_fn))
        fitting.on_step(f"{name}: {AS_PUBLISHED}")
    if LEAK_FREE in fitting.protocols:
        folds = len(split.folds)

        def show(fold: int) -> None:
            fitting.on_step(f"{name}: {LEAK_FREE}, fold {fold} of {folds}")

        evaluations.append(evaluate_leak_free(name, unfitted, split, show, fitting.map_fn))
    return evaluations


def evaluate_as_published(name: str, unfitted: "Pipeline", data: WineData, map_fn: MapFunction = map) -> Evaluation:
    """Fit a clone on the train file, score on the train file and on the validation file.

    `map_fn` runs the fit, here or elsewhere.
    """
    X, y = feature_frame(data.train), data.train[TARGET]
    (fit,) = map_fn(_fit, [unfitted], [X], [y], [[X, feature_frame(data.validation)]], [True])
    predictions = {
        scored_on: _lay_out(wines, prediction)
        for scored_on, wines, (prediction, _) in zip(
            ("train", "validation"), (data.train, data.validation), fit.predictions, strict=True
        )
    }
    return evaluate_predictions(name, AS_PUBLISHED, fit.pipeline, predictions)


def evaluate_leak_free(
    name: str,
    unfitted: "Pipeline",
    split: "Split",
    on_fold: Callable[[int], None] = lambda fold: None,
    map_fn: MapFunction = map,
) -> Evaluation:
    """Cross-validate in train, then fit on all of it and score the holdout.

    Each fit is of a clone of `unfitted`. `on_fold` is called with the number of each fold that is done, from 1;
    `map_fn` runs the fits, here or elsewhere.
    """
    X, y = feature_frame(split.train), split.train[TARGET]
    in_folds, confidence = np.empty(len(y)), np.full(len(y), np.nan)
    pieces = [(X.iloc[fit_on], y.iloc[fit_on], [X.iloc[score_on]], False) for fit_on, score_on in split.folds]
    pieces.append((X, y, [feature_frame(split.holdout)], True))
    fits = iter(map_fn(partial(_fit, unfitted), *zip(*pieces, strict=True)))
    for fold, (_, score_on) in enumerate(split.folds, start=1):
        (in_folds[score_on], confidence[score_on]) = next(fits).predictions[0]
        on_fold(fold)
    last = next(fits)
    predictions = {
        "cv": _lay_out(split.train, in_folds, confidence if predicts_grades(unfitted) else None),
        "holdout": _lay_out(split.holdout, last.predictions[0][0]),
    }
    return evaluate_predictions(name, LEAK_FREE, last.pipeline, predictions)


def evaluate_predictions(
    name: str, protocol: str, pipeline: "Pipeline", predictions: "dict[str, pd.DataFrame]"
) -> Evaluation:
    """Score what a fitted model has predicted; `predictions` has the form it has in an Evaluation."""
    scores = tuple(_score(name, protocol, scored_on, table) for scored_on, table in predictions.items())
    return Evaluation(name, protocol, pipeline, scores, predictions)


def choose_classifier(candidates: Sequence[ScoredT]) -> ScoredT:
    """The leak-free classifier with the best quadratic weighted kappa in cross-validation.

    The holdout has no say, so its score stays an estimate of what to expect. Raises BadInputError
    where there is no classifier.
    """
    kappas = [
        (score.metrics["kappa"], number)
        for number, candidate in enumerate(candidates)
        for score in candidate.scores
        if candidate.classifies and score.scored_on == "cv"
    ]
    if not kappas:
        raise BadInputError("there is no classifier among the models, and the API serves grades: add one")
    _, best = max(kappas, key=lambda entry: entry[0])
    return candidates[best]


def measure_predictions(grades: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """The six MEASURES of predictions (grades, or numbers from a regressor) against the true grades."""
    return _measure(_tabulate_terms(grades, predictions).mean(axis=0, keepdims=True))[0]


def bootstrap_intervals(grades: np.ndarray, predictions: np.ndarray) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the six MEASURES over resamples of the wines; the same each time."""
    resampled = _measure(_sample_weights(len(grades)) @ _tabulate_terms(grades, predictions))
    values = np.array([list(metrics.values()) for metrics in resampled])
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    return dict(zip(MEASURES, zip(low.tolist(), high.tolist(), strict=True), strict=True))


def bootstrap_difference(grades: np.ndarray, predictions: np.ndarray, rival: np.ndarray) -> tuple[float, float]:
    """How much kappa the predictions have over a rival's on the same wines, and the least it is with 95 % confidence.

    Paired: every resample scores both on the same wines, so what makes a wine hard for both cancels out.
    The bound is the 5th percentile of the resampled differences.
    """
    differences = [
        ours["kappa"] - theirs["kappa"]
        for ours, theirs in zip(
            *(_measure(_sample_weights(len(grades)) @ _tabulate_terms(grades, each)) for each in (predictions, rival)),
            strict=True,
        )
    ]
    difference = measure_predictions(grades, predictions)["kappa"] - measure_predictions(grades, rival)["kappa"]
    return difference, float(np.percentile(differences, 5))


def round_predictions(predictions: np.ndarray) -> np.ndarray:
    """Take numbers to the nearest grade, those beyond the scale to its ends."""
    rounded: np.ndarray = np.clip(np.rint(predictions), *SCALE)
    return rounded.astype("int64")


def slice_predictions(evaluation: Evaluation, scored_on: str) -> list[Slice]:
    """Score the wines of each colour and of each grade by themselves."""
    table = evaluation.predictions[scored_on]
    slices = [(wine_type, table[table[TYPE] == wine_type]) for wine_type in TYPES]
    slices += [(f"grade {grade}", table[table[TARGET] == grade]) for grade in GRADES]
    return [_score_slice(evaluation.name, scored_on, name, members) for name, members in slices if len(members)]


@dataclass(frozen=True)
class _Fit:
    """What came of one fit: for each table to be scored the predictions and the confidence; the model, if asked for."""

    predictions: list[tuple[np.ndarray, np.ndarray | float]]
    pipeline: "Pipeline | None"


def _fit(unfitted: "Pipeline", X: "pd.DataFrame", y: "pd.Series", tables: "Sequence[pd.DataFrame]", keep: bool) -> _Fit:
    """Fit a clone and predict. Confidence is computed for classifiers whose model is not kept."""
    from sklearn.base import clone

    model = clone(unfitted).fit(X, y)
    is_sure = predicts_grades(model) and not keep
    predictions = [
        (model.predict(table), model.predict_proba(table).max(axis=1) if is_sure else np.nan) for table in tables
    ]
    return _Fit(predictions, model if keep else None)


def _lay_out(wines: "pd.DataFrame", predictions: np.ndarray, confidence: np.ndarray | None = None) -> "pd.DataFrame":
    table = wines[[TYPE, TARGET]].assign(prediction=predictions)
    return table if confidence is None else table.assign(confidence=confidence)


def _score(name: str, protocol: str, scored_on: str, table: "pd.DataFrame") -> Score:
    grades, predictions = table[TARGET].to_numpy(), table["prediction"].to_numpy()
    intervals = bootstrap_intervals(grades, predictions) if protocol == LEAK_FREE else {}
    return Score(name, protocol, scored_on, len(table), measure_predictions(grades, predictions), intervals)


def _score_slice(name: str, scored_on: str, slice_name: str, members: "pd.DataFrame") -> Slice:
    grades, predictions = members[TARGET].to_numpy(), members["prediction"].to_numpy()
    off = np.abs(round_predictions(predictions) - grades)
    mae = float(np.abs(predictions - grades).mean())
    return Slice(name, scored_on, slice_name, len(members), mae, float((off == 0).mean()), float((off <= 1).mean()))


def _tabulate_terms(grades: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """All that the measures need, as columns whose means suffice, so that a resample is one product."""
    y, prediction, rounded = (
        grades.astype(float),
        predictions.astype(float),
        round_predictions(predictions).astype(float),
    )
    miss = np.abs(rounded - y)
    error = prediction - y
    columns = [error**2, np.abs(error), miss == 0, miss <= 1, miss**2, y, y**2, rounded, rounded**2]
    return np.column_stack(columns).astype(float)


def _measure(means: np.ndarray) -> list[dict[str, float]]:
    """The measures from the means of _tabulate_terms, one row a resample.

    Quadratic weighted kappa is 1 - observed / expected, where expected is the mean squared miss of
    grades and predictions drawn independently: E[y^2] + E[g^2] - 2 E[y] E[g].
    """
    square, absolute, hit, near, missed, y, y2, g, g2 = means.T
    measures = (np.sqrt(square), absolute, 1 - square / (y2 - y**2), hit, near, 1 - missed / (y2 + g2 - 2 * y * g))
    return [dict(zip(MEASURES, map(float, row), strict=True)) for row in np.column_stack(measures)]


@lru_cache(maxsize=4)
def _sample_weights(count: int) -> np.ndarray:
    """How often each wine is in each resample, as a share: shape (RESAMPLES, count)."""
    random = np.random.default_rng(0)
    draws = random.integers(count, size=(RESAMPLES, count))
    return np.stack([np.bincount(draw, minlength=count) for draw in draws]) / count
