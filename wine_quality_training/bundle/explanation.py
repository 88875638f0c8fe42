"""What each feature of a wine adds to its expected quality.

Each feature in turn is set to its median over the wines that the model was fitted on, and the model predicts again. The
loss of expected quality is the feature's effect. Features interact, so the effects do not add up to anything.

TreeSHAP's effects do add up, but it needs the trees' counts of wines, which a compiled model no longer has, and some
members of a blend are not trees. This method works with any model; it takes one prediction per wine and feature.
"""

from collections.abc import Callable, Sequence

import numpy as np

from wine_data.schema import FEATURES
from wine_quality_training.bundle.profile import Marginal, Profile

METHOD = "one feature at a time takes its median"
ADDS_UP = False
SLICE = 1_000  # wines per block, so that memory does not grow with their number


def find_medians(profiles: Sequence[Profile]) -> np.ndarray | None:
    """The median of each of FEATURES over the wines of the first profile; None without a profile."""
    return np.array([_find_median(profiles[0].features[name]) for name in FEATURES]) if profiles else None


def find_effects(
    wines: np.ndarray, expected: np.ndarray, medians: np.ndarray, expect: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The effect of each feature of each wine, in grades to four decimal places, shape (wines, features).

    Args:
        wines: an array from feature_array.
        expected: their expected qualities.
        medians: from find_medians.
        expect: returns the expected qualities of such an array.
    """
    effects = np.empty(wines.shape)
    places = np.arange(len(medians))
    for first in range(0, len(wines), SLICE):
        part = slice(first, first + SLICE)
        asked = np.repeat(wines[part, np.newaxis], len(medians), axis=1)
        asked[:, places, places] = medians
        without = expect(asked.reshape(-1, len(medians))).reshape(-1, len(medians))
        effects[part] = (expected[part, np.newaxis] - without).round(4)
    return effects


def _find_median(column: Marginal) -> float:
    return next(point for point, share in zip(column.points, column.shares, strict=True) if share >= 1 / 2)
