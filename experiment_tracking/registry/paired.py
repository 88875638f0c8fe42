"""Compare two models on the same wines by kappa, accuracy and ranked probability score, with bounds of the difference.

Paired: every resample scores both models on the same wines, so the difficulty of a wine for both cancels out. Rows with
equal features are one wine, which counts once, with the mean of its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from wine_data.schema import FEATURES, GRADES, TARGET, feature_frame
from wine_quality_training.bundle.profile import Profile
from wine_quality_training.evaluate import (
    MEASURES,
    measure_terms,
    resample_means,
    score_probabilities,
    tabulate_terms,
)

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

KAPPA, ACCURACY, RPS = COMPARED = ("kappa", "accuracy", "RPS")  # RPS: ranked probability score, lower is better


@dataclass(frozen=True)
class Answers:
    """A model's predictions: grades, and the probability of at most each of GRADES, shape (wines, grades)."""

    grades: np.ndarray
    at_most: np.ndarray


@dataclass(frozen=True)
class Difference:
    """One measure of a challenger and a rival, and the standard deviation of their difference over resamples."""

    measure: str
    challenger: float
    rival: float
    deviation: float

    @property
    def gain(self) -> float:
        """The challenger's value minus the rival's."""
        return self.challenger - self.rival

    def bound(self, level: float) -> float:
        """The lower bound of the difference with confidence 1 - level; the upper bound for RPS.

        It is a normal bound with the resamples' standard deviation: 1,000 resamples have no 0.01 % percentile.
        """
        reach = NormalDist().inv_cdf(1 - level) * self.deviation
        return self.gain + reach if self.measure == RPS else self.gain - reach


def ask_model(pipeline: "Pipeline", wines: "pd.DataFrame") -> Answers:
    """A classifier's predictions. It may know fewer grades than GRADES, or others."""
    X = feature_frame(wines)
    return Answers(pipeline.predict(X), pipeline.predict_proba(X) @ (pipeline.classes_[:, None] <= np.array(GRADES)))


def answer_majority(profiles: Sequence[Profile], wines: int) -> Answers:
    """The majority-class baseline's predictions: the most frequent training grade, with the training shares."""
    weights = np.array([profile.wines for profile in profiles])
    shares = np.array([_read_shares(profile) for profile in profiles])
    at_most = weights @ shares / weights.sum()
    commonest = GRADES[int(np.diff(at_most, prepend=0.0).argmax())]
    return Answers(np.full(wines, commonest), np.tile(at_most, (wines, 1)))


def compare_answers(wines: "pd.DataFrame", challenger: Answers, rival: Answers) -> tuple[int, tuple[Difference, ...]]:
    """The number of distinct wines, and the difference of two models in each of COMPARED."""
    wine = number_wines(wines)
    tables = [average_wines(tabulate_answers(wines[TARGET].to_numpy(), each), wine) for each in (challenger, rival)]
    ours, theirs = (measure_answers(table.mean(axis=0, keepdims=True))[0].tolist() for table in tables)
    resampled, against = (measure_answers(means) for means in resample_means(None, *tables))
    deviations = (resampled - against).std(axis=0, ddof=1).tolist()
    return len(tables[0]), tuple(map(Difference, COMPARED, ours, theirs, deviations))


def number_wines(wines: "pd.DataFrame") -> np.ndarray:
    """Give each row the number of its wine, from 0; rows with equal features are one wine."""
    numbers: np.ndarray = wines.groupby(list(FEATURES), dropna=False).ngroup().to_numpy()
    return numbers


def average_wines(rows: np.ndarray, wine: np.ndarray) -> np.ndarray:
    """The mean of the rows of each wine."""
    sums = np.column_stack([np.bincount(wine, column) for column in rows.T])
    means: np.ndarray = sums / np.bincount(wine)[:, None]
    return means


def tabulate_answers(grades: np.ndarray, answers: Answers) -> np.ndarray:
    """The terms of the three measures as columns, one row per wine; the measures need only the means."""
    return np.column_stack([tabulate_terms(grades, answers.grades), score_probabilities(grades, answers.at_most)])


def measure_answers(means: np.ndarray) -> np.ndarray:
    """COMPARED from the means of tabulate_answers, one row per resample."""
    measures = measure_terms(means[:, :-1])
    return np.column_stack([*(measures[:, MEASURES.index(name)] for name in (KAPPA, ACCURACY)), means[:, -1]])


def _read_shares(profile: Profile) -> np.ndarray:
    """The share of a profile's wines with at most each of GRADES."""
    known = np.searchsorted(profile.grades.points, GRADES, side="right")
    shares: np.ndarray = np.append(0.0, profile.grades.shares)[known]
    return shares
