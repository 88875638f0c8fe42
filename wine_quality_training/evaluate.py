"""Score models under two protocols: as published and leak-free.

As published: fit on the train file, score on the train and the validation file. Both contain the same wines, so this
measures memory. Leak-free: no distinct wine is in both parts. Scores come from grouped cross-validation in train
("cv") and from the holdout ("holdout"), each with a 95 % interval from 1,000 bootstrap resamples of the scored wines. A
wine is drawn with all its repeats. The interval shows how a score varies with the choice of wines, not with the seed or
the split.

RMSE and MAE are in grades; lower is better. R2 is the share of the grades' variance that a model explains; it is not an
accuracy. Accuracy is the share of wines with the correct grade, within-one the share at most one grade off. Kappa is
quadratic weighted kappa: agreement beyond chance, where an error of two grades counts four times an error of one. It
decides between classifiers, because the majority-class baseline has an accuracy of 0.44 and a kappa of 0. A regressor's
numbers are rounded for the last three.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from commands import BadInputError
from executors import MapFunction
from wine_data.schema import GRADES, SCALE, TARGET, TYPE, TYPES, feature_frame
from wine_data.sources.load import WineData
from wine_quality_training.models import is_published, make_model, predicts_grades

if TYPE_CHECKING:  # many modules that fit no model import the measures and names from here
    import pandas as pd
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

    from wine_data.split import Split

AS_PUBLISHED, LEAK_FREE = "as-published", "leak-free"
PROTOCOLS = (AS_PUBLISHED, LEAK_FREE)
SCORED_ON = ("train", "validation", "cv", "holdout")
MEASURES = ("rmse", "mae", "r2", "accuracy", "within_one", "kappa")
PROBABILITIES = tuple(f"probability_{grade}" for grade in GRADES)  # columns of a table of predictions
RESAMPLES = 1000
DRAWS_AT_ONCE = 2_000_000  # take 50 MB of memory


@dataclass(frozen=True)
class Score:
    """The six MEASURES of one model on one set of wines, and their 95 % intervals.

    As published there are no intervals: they would not be valid, because the models were fitted on the same wines.
    """

    model: str
    protocol: str
    scored_on: str
    wines: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    def name_metrics(self) -> dict[str, float]:
        """The six measures by full name, such as leak-free.cv.kappa."""
        return {f"{self.protocol}.{self.scored_on}.{measure}": value for measure, value in self.metrics.items()}


@dataclass(frozen=True)
class Slice:
    """The measures of one model on the wines of one colour or grade."""

    model: str
    scored_on: str
    slice: str
    wines: int
    mae: float
    accuracy: float
    within_one: float


@dataclass(frozen=True)
class Evaluation:
    """A fitted model with its scores and predictions under one protocol.

    `predictions` has one table for each of the protocol's names in SCORED_ON: `type` and `quality` of the scored wines,
    and the model's `prediction`, a grade or a regressor's number. Leak-free, a classifier's table also has the columns
    PROBABILITIES and `confidence`, the probability of the prediction. `wine`, if present, is equal for repeats of a
    wine.
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
        """Whether the model predicts grades."""
        return predicts_grades(self.pipeline)


class Scored(Protocol):
    """An Evaluation, or the part of one that a store keeps."""

    @property
    def classifies(self) -> bool:
        """Whether the model predicts grades."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """Its scores under one protocol or both."""


ScoredT = TypeVar("ScoredT", bound=Scored)


@dataclass(frozen=True)
class Fitting:
    """How a model is fitted: the protocols, the function that runs the fits, and a callback after each step."""

    protocols: Sequence[str] = PROTOCOLS
    map_fn: MapFunction = map
    on_step: Callable[[str], None] = lambda step: None


def train_model(name: str, data: WineData, split: "Split", seed: int, fitting: Fitting = Fitting()) -> list[Evaluation]:
    """Fit and score one model under each requested protocol.

    With both protocols, the as-published evaluation gets an unfitted model: a forest on 80,000 wines takes 0.7 GB.
    """
    evaluations, unfitted = [], make_model(name, seed)
    if AS_PUBLISHED in fitting.protocols and is_published(name):
        published = evaluate_as_published(name, unfitted, data, fitting.map_fn)
        if LEAK_FREE in fitting.protocols:
            published = replace(published, pipeline=unfitted)
        evaluations.append(published)
        fitting.on_step(f"{name}: {AS_PUBLISHED}")
    if LEAK_FREE in fitting.protocols:

        def show(fold: int) -> None:
            fitting.on_step(f"{name}: {LEAK_FREE}, fold {fold} of {len(split.folds)}")

        evaluations.append(evaluate_leak_free(name, unfitted, split, show, fitting.map_fn))
    return evaluations


def evaluate_as_published(name: str, unfitted: "Pipeline", data: WineData, map_fn: MapFunction = map) -> Evaluation:
    """Fit a clone on the train file, and score it on the train and the validation file. `map_fn` runs the fit."""
    (pipeline,) = map_fn(_fit, [unfitted], [feature_frame(data.train)], [data.train[TARGET]])
    tables = {"train": data.train, "validation": data.validation}
    predictions = {scored_on: _predict(pipeline, wines) for scored_on, wines in tables.items()}
    return evaluate_predictions(name, AS_PUBLISHED, pipeline, predictions)


def evaluate_leak_free(
    name: str,
    unfitted: "Pipeline",
    split: "Split",
    on_fold: Callable[[int], None] = lambda fold: None,
    map_fn: MapFunction = map,
) -> Evaluation:
    """Cross-validate in train, then fit on all of train and score the holdout; each fit uses a clone.

    `on_fold` is called with the number of each finished fold, from 1. `map_fn` runs the fits, also on a cluster.
    scikit-learn's cross_val_predict shows no progress, so this function has its own loop.
    """
    import pandas as pd

    X, y = feature_frame(split.train), split.train[TARGET]
    folds = [(X.iloc[fit_on], y.iloc[fit_on], X.iloc[score_on]) for fit_on, score_on in split.folds]
    in_folds = map_fn(partial(_predict_fold, unfitted), *zip(*folds, strict=True))
    fits = map_fn(_fit, [unfitted], [X], [y])  # before the folds are read, so that a cluster runs all fits at once
    parts = []
    for fold, ((_, score_on), predicted) in enumerate(zip(split.folds, in_folds, strict=True), start=1):
        parts.append(predicted.set_index(split.train.index[score_on]))
        on_fold(fold)
    cv = split.train[[TYPE, TARGET]].join(pd.concat(parts))
    (pipeline,) = fits
    holdout = split.holdout[[TYPE, TARGET]].join(predict_wines(pipeline, feature_frame(split.holdout)))
    return evaluate_predictions(name, LEAK_FREE, pipeline, {"cv": cv, "holdout": holdout})


def predict_wines(model: "Pipeline", X: "pd.DataFrame") -> "pd.DataFrame":
    """The `prediction` for each wine, with X's index; a classifier adds `confidence` and PROBABILITIES."""
    import pandas as pd

    table = pd.DataFrame({"prediction": model.predict(X)}, index=X.index)
    if not predicts_grades(model):
        return table
    probabilities = spread_probabilities(model, X, GRADES)
    table["confidence"] = probabilities[np.arange(len(X)), np.searchsorted(GRADES, table["prediction"])]
    table[list(PROBABILITIES)] = probabilities
    return table


def spread_probabilities(model: "BaseEstimator", X: Any, grades: Sequence[int] | np.ndarray) -> np.ndarray:
    """A fitted classifier's probabilities of ascending grades, shape (wines, grades); 0 for unknown grades."""
    probabilities = np.zeros((len(X), len(grades)))
    probabilities[:, np.searchsorted(grades, model.classes_)] = model.predict_proba(X)
    return probabilities


def evaluate_predictions(
    name: str, protocol: str, pipeline: "Pipeline", predictions: "dict[str, pd.DataFrame]"
) -> Evaluation:
    """Score a fitted model's predictions; `predictions` has the same form as in an Evaluation."""
    scores = []
    for scored_on, table in predictions.items():
        grades, predicted = table[TARGET].to_numpy(), table["prediction"].to_numpy()
        wines = table["wine"].to_numpy() if "wine" in table else None
        intervals = bootstrap_intervals(grades, predicted, wines) if protocol == LEAK_FREE else {}
        metrics = measure_predictions(grades, predicted)
        scores.append(Score(name, protocol, scored_on, len(table), metrics, intervals))
    return Evaluation(name, protocol, pipeline, tuple(scores), predictions)


def choose_classifier(candidates: Sequence[ScoredT]) -> ScoredT:
    """The leak-free classifier with the best quadratic weighted kappa in cross-validation.

    The holdout is not used for the choice, so its score stays an estimate for unseen wines. Raises BadInputError
    if there is no classifier.
    """
    kappas = [
        (candidate, score.metrics["kappa"])
        for candidate in candidates
        for score in candidate.scores
        if candidate.classifies and score.scored_on == "cv"
    ]
    if not kappas:
        raise BadInputError("there is no classifier among the models, and the API serves grades: add one")
    return max(kappas, key=lambda entry: entry[1])[0]


def measure_predictions(grades: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """The six MEASURES of predictions (grades, or numbers from a regressor) against the true grades."""
    (values,) = measure_terms(tabulate_terms(grades, predictions).mean(axis=0, keepdims=True)).tolist()
    return dict(zip(MEASURES, values, strict=True))


def bootstrap_intervals(
    grades: np.ndarray, predictions: np.ndarray, wines: np.ndarray | None = None
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the six MEASURES over resamples of the wines, with a fixed seed.

    `wines` has equal values for rows of one wine; without it, each row is a wine.
    """
    (terms,) = resample_means(wines, tabulate_terms(grades, predictions))
    low, high = np.percentile(measure_terms(terms), [2.5, 97.5], axis=0).tolist()
    return dict(zip(MEASURES, zip(low, high, strict=True), strict=True))


def score_probabilities(grades: np.ndarray, at_most: np.ndarray) -> np.ndarray:
    """The ranked probability score of each wine: the sum over GRADES of (F - 1 where the grade is at most that one)^2.

    `at_most` is F, the probability of at most each of GRADES, shape (wines, grades). Lower is better; the score of a
    prediction with probability 1 is its error in grades. Source: Epstein, Journal of Applied Meteorology 8 (1969), here
    not divided by the number of thresholds.
    """
    scores: np.ndarray = ((at_most - (grades[:, None] <= np.array(GRADES))) ** 2).sum(axis=1)
    return scores


def bound_difference(
    grades: np.ndarray, predictions: np.ndarray, rival: np.ndarray, measure: str, wines: np.ndarray | None = None
) -> tuple[float, float]:
    """The 95 % interval of a measure of predictions minus the rival's, over paired resamples of the wines."""
    tables = (tabulate_terms(grades, each) for each in (predictions, rival))
    ours, theirs = (measure_terms(terms)[:, MEASURES.index(measure)] for terms in resample_means(wines, *tables))
    low, high = np.percentile(ours - theirs, [2.5, 97.5])
    return float(low), float(high)


def round_predictions(predictions: np.ndarray) -> np.ndarray:
    """Round numbers to the nearest grade, and clip them to the scale."""
    rounded: np.ndarray = np.clip(np.rint(predictions), *SCALE)
    return rounded.astype("int64")


def slice_predictions(evaluation: Evaluation, scored_on: str) -> list[Slice]:
    """Score the wines of each colour and of each grade separately."""
    table = evaluation.predictions[scored_on]
    members = [(wine_type, table[table[TYPE] == wine_type]) for wine_type in TYPES]
    members += [(f"grade {grade}", table[table[TARGET] == grade]) for grade in GRADES]
    slices = []
    for name, wines in members:
        if len(wines):
            grades, predictions = wines[TARGET].to_numpy(), wines["prediction"].to_numpy()
            misses = np.abs(round_predictions(predictions) - grades)
            figures = (np.abs(predictions - grades).mean(), (misses == 0).mean(), (misses <= 1).mean())
            slices.append(Slice(evaluation.name, scored_on, name, len(wines), *map(float, figures)))
    return slices


def _fit(unfitted: "Pipeline", X: "pd.DataFrame", y: "pd.Series") -> "Pipeline":
    from sklearn.base import clone

    return clone(unfitted).fit(X, y)


def _predict(pipeline: "Pipeline", wines: "pd.DataFrame") -> "pd.DataFrame":
    return wines[[TYPE, TARGET]].assign(prediction=pipeline.predict(feature_frame(wines)))


def _predict_fold(unfitted: "Pipeline", X: "pd.DataFrame", y: "pd.Series", scored: "pd.DataFrame") -> "pd.DataFrame":
    """Fit a model and predict one fold; the fitted model is not sent to another process."""
    return predict_wines(_fit(unfitted, X, y), scored)


def tabulate_terms(grades: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """The terms of the measures as columns; the measures need only their means, so a resample is one product."""
    y, prediction = grades.astype(float), predictions.astype(float)
    rounded = round_predictions(predictions).astype(float)
    miss, error = np.abs(rounded - y), prediction - y
    columns = [error**2, np.abs(error), miss == 0, miss <= 1, miss**2, y, y**2, rounded, rounded**2]
    return np.column_stack(columns).astype(float)


def measure_terms(means: np.ndarray) -> np.ndarray:
    """The six MEASURES from the means of tabulate_terms, one row per resample.

    Quadratic weighted kappa is 1 - observed / expected, where expected is the mean squared error of
    grades and predictions drawn independently: E[y^2] + E[g^2] - 2 E[y] E[g].
    """
    square, absolute, hit, near, missed, y, y2, g, g2 = means.T
    r2, kappa = 1 - square / (y2 - y**2), 1 - missed / (y2 + g2 - 2 * y * g)
    return np.column_stack((np.sqrt(square), absolute, r2, hit, near, kappa))


def resample_means(wines: np.ndarray | None, *tables: np.ndarray) -> list[np.ndarray]:
    """The column means of tables in each resample of the wines, shape (RESAMPLES, columns) each.

    A wine is drawn with all its rows, because repeats of a wine are not independent.
    """
    rows = np.column_stack([np.ones(len(tables[0])), *tables])
    wine, count = np.arange(len(rows)), len(rows)
    if wines is not None:
        _, first, wine = np.unique(wines, return_index=True, return_inverse=True)
        count, wine = len(first), first.argsort().argsort()[wine]  # numbered by first row: the ids do not matter
    sums = np.column_stack([np.bincount(wine, column, count) for column in rows.T])
    random, at_once = np.random.default_rng(0), max(1, DRAWS_AT_ONCE // count)
    sizes = [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]
    draws = (random.integers(count, size=(size, count)) for size in sizes)
    times = (np.stack([np.bincount(draw, minlength=count) for draw in drawn]) for drawn in draws)
    totals = np.concatenate([drawn @ sums for drawn in times])
    ends = np.cumsum([table.shape[1] for table in tables])[:-1]
    return np.split(totals[:, 1:] / totals[:, :1], ends, axis=1)
