"""The drifts that traffic can be simulated with.

Grades follow stated rules, so that what retraining gains can be measured:

    none     wines and grades as the twin draws them
    shift    one measurement is `size` standard deviations higher (or lower); a wine that it takes beyond the
             most extreme fiftieth of the undrifted wines is graded two lower
    colour   (CATEGORY in schema.py) a share of `size` is red, the first of TYPES; grades as the twin draws them
    unit     one measurement comes in mg where g are meant: a thousand times too high; the grade is the wine's
    grades   the wines do not change, and tasters give each `size` grades less

No grade goes under or over those of the schema.
"""

from dataclasses import dataclass

from commands import BadInputError
from wine_data.schema import CATEGORY, KINDS, MEASUREMENTS, ROWS

DRIFTING = MEASUREMENTS[-1]  # by default
DRIFTS = tuple(filter(None, ("none", "shift", CATEGORY, "unit", "grades")))


@dataclass(frozen=True)
class Drift:
    """A drift; `size` is in its own unit, `feature` matters for a shift and a unit."""

    kind: str = "none"
    feature: str = DRIFTING
    size: float = 1.0

    def __post_init__(self) -> None:
        """Raise BadInputError for an unknown kind or feature, or an impossible share."""
        if self.kind not in DRIFTS:
            raise BadInputError(f"{self.kind} is no drift; there are {', '.join(DRIFTS)}")
        if self.feature not in MEASUREMENTS:
            raise BadInputError(f"{self.feature} is no measurement; there are {', '.join(MEASUREMENTS)}")
        if self.kind == CATEGORY and not 0 <= self.size <= 1:
            raise BadInputError(f"a {CATEGORY} mix is a share of {KINDS[0]} {ROWS}, 0 to 1, and not {self.size:g}")
