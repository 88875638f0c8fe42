"""From the probabilities of the grades to the one that is answered.

The likeliest grade is right most often, but a miss by two grades costs four times a miss by one (quadratic weighted
kappa), and a forest's expected grade keeps too close to the mean. So the decision is the expected grade, stretched away
from the mean: mean + slope * (expected - mean), and of the grades that the model knows the nearest one.

The pickled pipeline, its compiled form, the API and batch scoring all decide with this one function.
"""

from dataclasses import dataclass

import numpy as np

STEPS = 1e4  # the expected grade is rounded to 1 / STEPS, so that sums in another order decide alike


@dataclass(frozen=True)
class DecisionRule:
    """How a grade is decided: `mean` is that of the training grades, `slope` 1 leaves the expected grade as it is."""

    mean: float
    slope: float

    def sentence(self) -> str:
        """The rule for people."""
        return f"the grade nearest to {self.mean:.4g} + {self.slope:g} x (expected quality - {self.mean:.4g})"

    def find_bounds(self, grades: np.ndarray) -> np.ndarray:
        """The expected qualities from which on the next of some ascending grades is decided, shape (grades - 1,)."""
        bounds: np.ndarray = self.mean + ((grades[:-1] + grades[1:]) / 2 - self.mean) / self.slope
        return bounds


def describe_decision(rule: DecisionRule | None) -> str:
    """What a model with this rule, or without one, predicts, for people."""
    return rule.sentence() if rule else "the likeliest grade"


def decide_grades(
    probabilities: np.ndarray, grades: np.ndarray, bounds: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The position in `grades` of each wine's prediction, and its expected quality to four decimal places.

    Args:
        probabilities: float64, shape (wines, grades).
        grades: float64, ascending.
        bounds: of a rule (find_bounds); an expected quality at a bound is decided for the higher grade. None decides
            for the likeliest grade, of equally likely ones the lowest.
    """
    expected = np.rint(probabilities @ grades * STEPS) / STEPS
    if bounds is None:
        return probabilities.argmax(axis=1), expected
    return bounds.searchsorted(expected, side="right"), expected
