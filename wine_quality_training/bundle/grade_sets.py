"""Sets of consecutive grades that hold the true one about as often as they promise, for 80 and for 90 % of the wines.

A set begins with the prediction and grows by the likelier of the two grades beside it, of equal ones the lower, for as
long as the probability in it is at most a threshold. A grade's mass is the probability in the set just before it
joins, 0 for the prediction; so a set is all grades whose mass is at most the threshold, and one of 90 % holds that of
80 %. The threshold is the conformal quantile of the masses of the true grades in cross-validation: of n, the
ceil((n + 1) x level)-th smallest. Serving needs no more than these two numbers.

What holds (GUARANTEE): sets made by the models of the folds themselves would hold the grade of at least
1 - 2 alpha - sqrt(2 / n) of exchangeable wines, alpha being 1 - level. Sources: cross-conformal prediction, V. Vovk,
Annals of Mathematics and Artificial Intelligence 74 (2015); CV+, R. F. Barber, E. J. Candes, A. Ramdas, R. J.
Tibshirani, Annals of Statistics 49 (2021), theorem 4. The model that serves is fitted on all of these wines, which no
theorem covers unless a fold more hardly changes a model; for that, coverage is measured on the holdout. The growing
set is that of Y. Romano, M. Sesia, E. J. Candes, NeurIPS 2020, with neighbours in the place of the next likeliest.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wine_data.schema import CATEGORY, ROW, ROWS, TARGET

if TYPE_CHECKING:  # a server reads thresholds and needs no pandas
    import pandas as pd

LEVELS = (0.8, 0.9)
STEPS = 1e4  # masses are rounded to 1 / STEPS, so that a forest's hundredths compare alike however they were summed
GUARANTEE = (
    f"Cross-conformal: sets of 80 and 90 % hold the grade of about that share of {ROWS} like those of training, of "
    "more where masses tie, as grades are discrete. Sure in theory is 1 - 2 alpha, 60 and 80 %, for sets of the folds' "
    f"models. It holds over {ROWS} on average, not for each {', '.join(filter(None, (ROW, CATEGORY)))} or grade, "
    "and not after a drift."
)


def name_level(level: float) -> str:
    """The level as it is a key in metadata and answers: "0.8"."""
    return f"{level:g}"


def name_percent(level: str) -> str:
    """A named level in percent, as it stands in the names of columns and metrics: "80"."""
    return f"{100 * float(level):.0f}"


def measure_masses(probabilities: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """The mass of each grade, shape (wines, grades): the probability in the set just before the grade joins it.

    Args:
        probabilities: float64, shape (wines, grades), the grades ascending.
        decided: positions of the predictions, where the sets begin.
    """
    count, grades = probabilities.shape
    width = grades + 2  # beyond the ends nothing is likelier
    padded = np.pad(probabilities, ((0, 0), (1, 1)), constant_values=-1.0).ravel()
    masses = np.zeros(count * width)
    low = high = np.arange(count) * width + np.asarray(decided) + 1  # places in `padded`
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
    """The same for one wine and ascending thresholds, without NumPy, whose calls would cost more than the work."""
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
    """The threshold of each of LEVELS, by name, from predictions of wines that the models had not seen.

    Args:
        predictions: of a classifier, as an Evaluation has them, with the true grades.
        grades: ascending, those that the model knows.
    """
    everything = 1.0  # the set is all grades: what too few wines allow to promise
    masses = np.append(np.sort(find_true_masses(predictions, grades)), everything).clip(max=everything)
    ranks = {level: math.ceil(len(masses) * level) for level in LEVELS}
    return {name_level(level): float(masses[rank - 1]) for level, rank in ranks.items()}


def find_true_masses(predictions: "pd.DataFrame", grades: Sequence[int]) -> np.ndarray:
    """The mass of each wine's true grade, infinite for one that the model does not know: no set holds it."""
    known = np.asarray(grades)
    probabilities = predictions[[f"probability_{grade}" for grade in grades]].to_numpy("float64")
    decided, true = (np.searchsorted(known, predictions[name]) for name in ("prediction", TARGET))
    true = np.minimum(true, len(known) - 1)
    masses = measure_masses(probabilities, decided)[np.arange(len(predictions)), true]
    return np.where(known[true] == predictions[TARGET], masses, math.inf)
