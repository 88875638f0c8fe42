"""What each feature of a wine adds to its expected quality.

Each feature in turn takes the median of the wines that the model was fitted on, and the model is asked again: what the
expected quality loses is the feature's effect. The effects do not add up to anything, because features act together.

TreeSHAP's would, but it needs the trees with their counts of wines, which a compiled model no longer has, and a blend
has members that are no trees. This asks any model, for as many predictions a wine as it has features.
"""

from collections.abc import Callable, Sequence

import numpy as np

from wine_data.schema import FEATURES
from wine_quality_training.bundle.profile import Marginal, Profile

METHOD = "one feature at a time takes its median"
ADDS_UP = False
SLICE = 1_000  # wines at once, so that memory does not grow with their number


def find_medians(profiles: Sequence[Profile]) -> np.ndarray | None:
    """The median of each of FEATURES over the wines of the first profile; None where there is no profile."""
    return np.array([_find_median(profiles[0].features[name]) for name in FEATURES]) if profiles else None


def find_effects(
    wines: np.ndarray, expected: np.ndarray, medians: np.ndarray, expect: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The effects of each feature of some wines, in grades to four decimal places, shape (wines, features).

    Args:
        wines: as feature_array lays them out.
        expected: their expected qualities.
        medians: of find_medians.
        expect: gives the expected qualities of such an array.
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
