"""The drifts of simulated traffic.

Grades follow fixed rules, so that the gain from retraining can be measured:

    none     wines and grades as the twin draws them
    shift    one measurement is `size` standard deviations higher (or lower); if it then lies in the most extreme 2 %
             of the undrifted wines, or beyond, the grade is two lower
    colour   a share of `size` is red; grades as the twin draws them
    unit     one measurement is in mg instead of g, a thousand times too high; the grade does not change
    grades   the wines do not change; tasters give `size` grades less

Grades stay within 3 and 9.
"""

from dataclasses import dataclass

from commands import BadInputError
from wine_data.schema import MEASUREMENTS

DRIFTING = MEASUREMENTS[-1]  # by default
DRIFTS = ("none", "shift", "colour", "unit", "grades")


@dataclass(frozen=True)
class Drift:
    """A drift; the unit of `size` depends on the kind, and only shift and unit use `feature`."""

    kind: str = "none"
    feature: str = DRIFTING
    size: float = 1.0

    def __post_init__(self) -> None:
        """Raise BadInputError for an unknown kind or feature, or an impossible share."""
        if self.kind not in DRIFTS:
            raise BadInputError(f"{self.kind} is not a drift; choose {', '.join(DRIFTS)}")
        if self.feature not in MEASUREMENTS:
            raise BadInputError(f"{self.feature} is not a measurement; choose {', '.join(MEASUREMENTS)}")
        if self.kind == "colour" and not 0 <= self.size <= 1:
            raise BadInputError(f"--size of a colour mix is the share of red wines, 0 to 1, not {self.size:g}")
