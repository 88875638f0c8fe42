"""Decide a grade from the probabilities of the grades.

The likeliest grade is right most often. But in quadratic weighted kappa an error of two grades costs four times an
error of one, and a forest's expected grade is too close to the mean. So the expected grade is stretched away from the
mean: mean + slope * (expected - mean). The prediction is the nearest grade that the model knows.

The pickled pipeline, its compiled form, the API and batch scoring all use decide_grades.
"""

from dataclasses import dataclass

import numpy as np

STEPS = 1e4  # the expected grade is rounded to 1 / STEPS, so that the order of a sum does not change the decision


@dataclass(frozen=True)
class DecisionRule:
    """How a grade is decided: `mean` is the mean training grade; `slope` 1 leaves the expected grade as it is."""

    mean: float
    slope: float

    def sentence(self) -> str:
        """The rule for people."""
        return f"the grade nearest to {self.mean:.4g} + {self.slope:g} x (expected quality - {self.mean:.4g})"

    def find_bounds(self, grades: np.ndarray) -> np.ndarray:
        """The expected qualities at which the next of these ascending grades begins, shape (grades - 1,)."""
        bounds: np.ndarray = self.mean + ((grades[:-1] + grades[1:]) / 2 - self.mean) / self.slope
        return bounds


def describe_decision(rule: DecisionRule | None) -> str:
    """Describe, for people, what a model predicts with this rule or without one."""
    return rule.sentence() if rule else "the likeliest grade"


def decide_grades(
    probabilities: np.ndarray, grades: np.ndarray, bounds: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The position in `grades` of each wine's prediction, and its expected quality to four decimal places.

    Args:
        probabilities: float64, shape (wines, grades).
        grades: float64, ascending.
        bounds: from a rule's find_bounds; an expected quality at a bound gets the higher grade. With None, the
            likeliest grade is predicted, and the lowest of equally likely ones.
    """
    expected = np.rint(probabilities @ grades * STEPS) / STEPS
    if bounds is None:
        return probabilities.argmax(axis=1), expected
    return bounds.searchsorted(expected, side="right"), expected
