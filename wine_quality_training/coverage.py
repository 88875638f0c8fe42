"""Whether a classifier's probabilities are calibrated.

Coverage: how often grade sets contain the true grade, on the holdout, which was not used for fitting or calibration;
also by colour and by grade. Reliability: how often predictions of a given confidence are correct, in cross-validation,
which has the most wines.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wine_data.schema import GRADES, TARGET, TYPE, TYPES
from wine_quality_training.bundle.grade_sets import (
    calibrate_sets,
    find_sets,
    find_true_masses,
    measure_masses,
    name_percent,
)
from wine_quality_training.evaluate import LEAK_FREE, Evaluation

if TYPE_CHECKING:  # as in evaluate.py
    import pandas as pd

BINS = 15


@dataclass(frozen=True)
class Coverage:
    """Coverage of the grade sets of one level on a slice of the wines.

    Attributes:
        slice: "all", a colour or a grade.
        level: its name in metadata, "0.8".
        covered: share of the wines whose set contains the true grade.
        interval: its 95 % interval (Clopper and Pearson).
        size: mean number of grades in a set.
        p: the probability of this many covered wines or fewer, if the true coverage were the level.
    """

    slice: str
    wines: int
    level: str
    covered: float
    interval: tuple[float, float]
    size: float
    p: float


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence: mean confidence, share of correct ones, and its 95 % interval."""

    wines: int
    confidence: float
    right: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Reliability:
    """Bins of equal size, the least confident first."""

    bins: tuple[Bin, ...]

    @property
    def error(self) -> float:
        """The expected calibration error (ECE): mean difference of confidence and share correct, over the wines."""
        distances = [abs(each.confidence - each.right) for each in self.bins]
        return float(np.average(distances, weights=[each.wines for each in self.bins]))


def measure_reliability(predictions: "pd.DataFrame", bins: int = BINS) -> Reliability:
    """Sort a classifier's predictions from an Evaluation into bins by their confidence."""
    right = (predictions["prediction"] == predictions[TARGET]).to_numpy()
    return bin_predictions(predictions["confidence"].to_numpy("float64"), right, bins)


def bin_predictions(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort predictions, given by their confidence and whether they are correct, into bins."""
    found = []
    for members in np.array_split(np.argsort(confidence, kind="stable"), bins):
        if len(members):
            count = int(right[members].sum())
            interval = bound_share(count, len(members))
            found.append(Bin(len(members), float(confidence[members].mean()), count / len(members), interval))
    return Reliability(tuple(found))


def calibrate_evaluation(evaluation: Evaluation) -> dict[str, float]:
    """The threshold of each level; empty for a regressor, or without cross-validation."""
    table = evaluation.predictions.get("cv")
    return {} if table is None or "confidence" not in table else calibrate_sets(table, _list_grades(evaluation))


def list_coverage(evaluation: Evaluation) -> list[Coverage]:
    """The coverage, on the holdout, of the sets calibrated in cross-validation; empty if there are none."""
    thresholds = calibrate_evaluation(evaluation)
    if not thresholds or "holdout" not in evaluation.predictions:
        return []
    return list(slice_coverage(evaluation.predictions["holdout"], _list_grades(evaluation), thresholds))


def slice_coverage(
    predictions: "pd.DataFrame", grades: Sequence[int], thresholds: Mapping[str, float]
) -> Iterator[Coverage]:
    """Measure the sets on all wines, each colour and each grade; `predictions` as in calibrate_sets."""
    slices = {"all": np.ones(len(predictions), dtype=bool)}
    slices |= {wine_type: (predictions[TYPE] == wine_type).to_numpy() for wine_type in TYPES}
    slices |= {f"grade {grade}": (predictions[TARGET] == grade).to_numpy() for grade in GRADES}
    true = find_true_masses(predictions, grades)
    decided = np.searchsorted(grades, predictions["prediction"])
    masses = measure_masses(predictions[[f"probability_{grade}" for grade in grades]].to_numpy("float64"), decided)
    for name, members in slices.items():
        for level, threshold in thresholds.items():
            if members.any():
                low, high = find_sets(masses[members], threshold)
                yield _count(name, level, true[members] <= threshold, high - low + 1)


def bound_share(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Clopper and Pearson)."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, count, of - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, of - count)) if count < of else 1.0
    return low, high


def name_coverage(coverage: Sequence[Coverage]) -> dict[str, float]:
    """Coverage and mean size on all wines by full name, such as leak-free.holdout.coverage_80."""
    named = {}
    for each in coverage:
        if each.slice == "all":
            percent = name_percent(each.level)
            named[f"{LEAK_FREE}.holdout.coverage_{percent}"] = each.covered
            named[f"{LEAK_FREE}.holdout.set_size_{percent}"] = each.size
    return named


def _list_grades(evaluation: Evaluation) -> list[int]:
    return [int(grade) for grade in evaluation.pipeline.classes_]


def _count(name: str, level: str, covered: np.ndarray, sizes: np.ndarray) -> Coverage:
    from scipy.stats import binom

    count, wines = int(covered.sum()), len(covered)
    p = float(binom.cdf(count, wines, float(level)))
    return Coverage(name, wines, level, count / wines, bound_share(count, wines), float(sizes.mean()), p)
