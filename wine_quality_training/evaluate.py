"""Two protocols, and what a score of each is worth.

As published: fit on the train file, score on the train and on the validation file. The two hold
the same wines, so this measures memory. Leak-free: no distinct wine on both sides; scores come
from grouped cross-validation on the training side ("cv") and from the holdout ("holdout").

RMSE and MAE are in grades, the lower the better. R2 is the share of the grades' variance that a
model explains; it is not an accuracy. Accuracy is the share of wines with the right grade, within-one
the share at most one grade off. Kappa is quadratic weighted kappa: agreement beyond chance, with a
miss by two grades four times as bad as by one. It decides between classifiers, because always
answering the commonest grade gets an accuracy of 0.44 and a kappa of 0. Numbers from a regressor are
rounded for the last three.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from sklearn import metrics
from sklearn.pipeline import Pipeline

from wine_data.schema import GRADES, TARGET, feature_frame
from wine_data.sources import WineData
from wine_data.split import Sides
from wine_quality_training.models import make_model

AS_PUBLISHED, LEAK_FREE = "as-published", "leak-free"
PROTOCOLS = (AS_PUBLISHED, LEAK_FREE)
SCORED_ON = ("train", "validation", "cv", "holdout")


@dataclass(frozen=True)
class Score:
    """How well one model did on one set of wines, and how that was measured."""

    model: str
    protocol: str
    scored_on: str
    wines: int
    rmse: float
    mae: float
    r2: float
    accuracy: float
    within_one: float
    kappa: float

    def name_metrics(self) -> dict[str, float]:
        """The six measures under full names, as in leak-free.cv.kappa."""
        return {f"{self.protocol}.{self.scored_on}.{measure}": value for measure, value in self.metrics().items()}

    def metrics(self) -> dict[str, float]:
        """The six measures by name."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, float)}


@dataclass(frozen=True)
class Evaluation:
    """A fitted model with the scores that one protocol gives it."""

    name: str
    protocol: str
    pipeline: Pipeline
    scores: tuple[Score, ...]

    def score_on(self, wines: str) -> Score:
        """The score on "train", "validation", "cv" or "holdout"."""
        return next(score for score in self.scores if score.scored_on == wines)


def evaluate_as_published(name: str, data: WineData, seed: int) -> Evaluation:
    """Fit on the train file, score on the train file and on the validation file."""
    pipeline = make_model(name, seed).fit(feature_frame(data.train), data.train[TARGET])
    scores = tuple(
        score_grades(name, AS_PUBLISHED, scored_on, wines[TARGET], pipeline.predict(feature_frame(wines)))
        for scored_on, wines in (("train", data.train), ("validation", data.validation))
    )
    return Evaluation(name, AS_PUBLISHED, pipeline, scores)


def evaluate_leak_free(
    name: str, sides: Sides, seed: int, on_fold: Callable[[int], None] = lambda fold: None
) -> Evaluation:
    """Cross-validate on the training side, then fit on all of it and score the holdout.

    `on_fold` is called with the number of each fold that is done, from 1.
    """
    X, y = feature_frame(sides.training), sides.training[TARGET]
    guesses = np.empty(len(y))
    for fold, (fit_on, score_on) in enumerate(sides.folds, start=1):
        model = make_model(name, seed).fit(X.iloc[fit_on], y.iloc[fit_on])
        guesses[score_on] = model.predict(X.iloc[score_on])
        on_fold(fold)
    pipeline = make_model(name, seed).fit(X, y)
    holdout_guesses = pipeline.predict(feature_frame(sides.holdout))
    scores = (
        score_grades(name, LEAK_FREE, "cv", y, guesses),
        score_grades(name, LEAK_FREE, "holdout", sides.holdout[TARGET], holdout_guesses),
    )
    return Evaluation(name, LEAK_FREE, pipeline, scores)


def score_grades(name: str, protocol: str, scored_on: str, grades: pd.Series, guesses: np.ndarray) -> Score:
    """Measure guesses (grades, or numbers from a regressor) against the true grades."""
    rounded = np.clip(np.rint(guesses), GRADES[0], GRADES[-1]).astype("int64")
    return Score(
        model=name,
        protocol=protocol,
        scored_on=scored_on,
        wines=len(grades),
        rmse=float(metrics.root_mean_squared_error(grades, guesses)),
        mae=float(metrics.mean_absolute_error(grades, guesses)),
        r2=float(metrics.r2_score(grades, guesses)),
        accuracy=float(metrics.accuracy_score(grades, rounded)),
        within_one=float((np.abs(rounded - grades) <= 1).mean()),
        kappa=float(metrics.cohen_kappa_score(grades, rounded, weights="quadratic")),
    )
