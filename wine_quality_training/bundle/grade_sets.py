"""Sets of consecutive grades that contain the true grade for about 80 or 90 % of the wines.

A set begins with the prediction. It grows by the likelier of the two neighbouring grades, or by the lower if they are
equally likely, as long as its probability is at most a threshold. A grade's mass is the probability of the set just
before the grade joins; the prediction's is 0. So a set is all grades whose mass is at most the threshold, and the 90 %
set contains the 80 % set. The threshold is the conformal quantile of the true grades' masses in cross-validation: of n
masses, the ceil((n + 1) x level)-th smallest. Serving needs only the two thresholds.

Guarantee (GUARANTEE): sets of the folds' own models would contain the true grade for at least 1 - 2 alpha - sqrt(2 / n)
of exchangeable wines, where alpha is 1 - level. Sources: cross-conformal prediction, V. Vovk, Annals of Mathematics and
Artificial Intelligence 74 (2015); CV+, R. F. Barber, E. J. Candes, A. Ramdas, R. J. Tibshirani, Annals of Statistics 49
(2021), theorem 4. The model that serves is fitted on all of these wines. No theorem covers it unless one more fold
hardly changes a model, so coverage is measured on the holdout. The growing set is from Y. Romano, M. Sesia,
E. J. Candes, NeurIPS 2020, but it grows by neighbouring grades, not by the next likeliest.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wine_data.schema import TARGET

if TYPE_CHECKING:  # a server reads thresholds and needs no pandas
    import pandas as pd

LEVELS = (0.8, 0.9)
STEPS = 1e4  # masses are rounded to 1 / STEPS, so that the order of a sum does not change a comparison
GUARANTEE = (
    "Cross-conformal: for wines like those of training, 80 % and 90 % sets hold the true grade of about that share of "
    "wines, and often of more, because grades are discrete. Theory guarantees 1 - 2 alpha, 60 % and 80 %, for sets by "
    "the models of the folds. This is an average over wines: not for each wine, colour or grade, and not after drift."
)


def name_level(level: float) -> str:
    """The level as a key in metadata and answers: "0.8"."""
    return f"{level:g}"


def name_percent(level: str) -> str:
    """A named level in percent, as in the names of columns and metrics: "80"."""
    return f"{100 * float(level):.0f}"


def measure_masses(probabilities: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """The mass of each grade, shape (wines, grades): the probability of the set just before the grade joins it.

    Args:
        probabilities: float64, shape (wines, grades), the grades ascending.
        decided: positions of the predictions, where the sets begin.
    """
    count, grades = probabilities.shape
    width = grades + 2  # padding at both ends, less likely than any grade
    padded = np.pad(probabilities, ((0, 0), (1, 1)), constant_values=-1.0).ravel()
    masses = np.zeros(count * width)
    low = high = np.arange(count) * width + np.asarray(decided) + 1  # positions in `padded`
    mass = padded[low]
    for _ in range(grades - 1):
        down = padded[low - 1] >= padded[high + 1]
        low, high = low - down, high + ~down
        joined = np.where(down, low, high)
        masses[joined] = mass
        mass = mass + padded[joined]
    rounded: np.ndarray = np.rint(masses.reshape(count, width)[:, 1:-1] * STEPS) / STEPS
    return rounded


def find_sets(masses: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the lowest and the highest grade in each wine's set."""
    inside = masses <= threshold
    return inside.argmax(axis=1), masses.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)


def find_sets_of_one(row: Sequence[float], decided: int, thresholds: Sequence[float]) -> list[tuple[int, int]]:
    """The same for one wine and ascending thresholds; for one wine Python is faster than NumPy."""
    low = high = decided
    mass, last, sets = row[decided], len(row) - 1, []
    for threshold in thresholds:
        while high - low < last and round(mass * STEPS) / STEPS <= threshold:
            if low and (high == last or row[low - 1] >= row[high + 1]):
                low -= 1
                mass += row[low]
            else:
                high += 1
                mass += row[high]
        sets.append((low, high))
    return sets


def calibrate_sets(predictions: "pd.DataFrame", grades: Sequence[int]) -> dict[str, float]:
    """The threshold of each of LEVELS, by name, from out-of-fold predictions.

    Args:
        predictions: a classifier's table in an Evaluation, with the true grades.
        grades: the grades that the model knows, ascending.
    """
    everything = 1.0  # the set of all grades: with too few wines, the only one that keeps the level
    masses = np.append(np.sort(find_true_masses(predictions, grades)), everything).clip(max=everything)
    ranks = {level: math.ceil(len(masses) * level) for level in LEVELS}
    return {name_level(level): float(masses[rank - 1]) for level, rank in ranks.items()}


def find_true_masses(predictions: "pd.DataFrame", grades: Sequence[int]) -> np.ndarray:
    """The mass of each wine's true grade; infinite, so in no set, for a grade that the model does not know."""
    known = np.asarray(grades)
    probabilities = predictions[[f"probability_{grade}" for grade in grades]].to_numpy("float64")
    decided, true = (np.searchsorted(known, predictions[name]) for name in ("prediction", TARGET))
    true = np.minimum(true, len(known) - 1)
    masses = measure_masses(probabilities, decided)[np.arange(len(predictions)), true]
    return np.where(known[true] == predictions[TARGET], masses, math.inf)
