"""The gate: a challenger gets in only if it is better on wines that neither model trained on.

Both are scored on the same holdout wines, and the one-sided 95 % interval of their paired bootstrap difference in
quadratic weighted kappa has to lie above 0. Without a champion the rival is the majority-class baseline.

After drift the holdout of old wines cannot show what a retrained model is for. Then the challenger must be better on
recent labelled wines, and on the holdout worse by no more than MARGIN, with the same confidence.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commands import BadInputError
from wine_data.schema import FEATURES, TARGET, feature_frame
from wine_quality_training.bundle.bundle import Bundle
from wine_quality_training.evaluate import LEAK_FREE, bootstrap_difference, measure_predictions
from wine_quality_training.models import predicts_grades

if TYPE_CHECKING:
    import pandas as pd

MARGIN = 0.05  # of kappa: about half the width of its 95 % interval on the published holdout
FEWEST_RECENT = 50  # wines; the interval of fewer is too wide to let anything through
MAJORITY = "the majority-class baseline"


@dataclass(frozen=True)
class Comparison:
    """Challenger and rival on the same wines: kappa of each, their difference, and its lower 95 % bound."""

    scored_on: str
    wines: int
    challenger: float
    rival: float
    difference: float
    lower: float
    needed: float

    def sentence(self) -> str:
        """What was compared and what came of it, for people."""
        return (
            f"{self.scored_on}, {self.wines:,} wines: kappa {self.challenger:.3f} against {self.rival:.3f}; "
            f"difference {self.difference:+.3f}, 95 % lower bound {self.lower:+.3f} (must exceed {self.needed:g})"
        )


@dataclass(frozen=True)
class Verdict:
    """What the gate found. `champion` is the version number that the challenger was compared with, "" for none."""

    challenger: str
    champion: str
    comparisons: tuple[Comparison, ...]

    @property
    def admitted(self) -> bool:
        """Whether the interval of every comparison lies above what is needed."""
        return all(comparison.lower > comparison.needed for comparison in self.comparisons)

    def name_rival(self) -> str:
        """What the challenger was compared with."""
        return f"version {self.champion}" if self.champion else MAJORITY

    def sentences(self) -> list[str]:
        """The verdict for people: one line what, one line for each comparison."""
        word = "better" if self.admitted else "not shown to be better"
        first = f"version {self.challenger} is {word} than {self.name_rival()}"
        return [first, *(comparison.sentence() for comparison in self.comparisons)]


def judge_challenger(
    challenger: Bundle,
    champion: Bundle | None,
    holdout: "pd.DataFrame",
    recent: "pd.DataFrame | None" = None,
    margin: float = MARGIN,
) -> Verdict:
    """Compare a challenger with the champion, or with the majority-class baseline where there is none.

    Of labelled `recent` wines those of the holdout are scored, which neither model trained on; with them, the
    challenger may lose `margin` of kappa on the old holdout.

    Raises:
        BadInputError: a model is a regressor or was not fitted leak-free, or there are too few recent wines.
    """
    for bundle in (challenger, champion):
        if bundle is not None:
            _refuse_unfit(bundle)
    versions = challenger.metadata.version, champion.metadata.version if champion else ""
    if recent is None:
        return Verdict(*versions, (_compare("holdout", challenger, champion, holdout, needed=0.0),))
    from wine_data.split import is_holdout

    unseen = recent[is_holdout(recent)]
    if len(unseen) < FEWEST_RECENT:
        raise BadInputError(
            f"{len(unseen)} of {len(recent)} recent wines are in the holdout; {FEWEST_RECENT} are needed"
        )
    comparisons = (
        _compare("recent wines", challenger, champion, unseen, needed=0.0),
        _compare("holdout", challenger, champion, holdout, needed=-margin),
    )
    return Verdict(*versions, comparisons)


def _compare(
    scored_on: str, challenger: Bundle, champion: Bundle | None, wines: "pd.DataFrame", needed: float
) -> Comparison:
    X, grades = feature_frame(wines), wines[TARGET].to_numpy()
    predictions = challenger.pipeline.predict(X)
    rival = champion.pipeline.predict(X) if champion else np.full(len(grades), wines[TARGET].mode()[0])
    repeats = wines.groupby(list(FEATURES), dropna=False).ngroup().to_numpy()  # of recent wines, which need not differ
    difference, lower = bootstrap_difference(grades, predictions, rival, repeats)
    ours, theirs = (measure_predictions(grades, each)["kappa"] for each in (predictions, rival))
    return Comparison(scored_on, len(wines), ours, round(theirs, 12) + 0.0, difference, lower, needed)


def _refuse_unfit(bundle: Bundle) -> None:
    who = f"version {bundle.metadata.version} ({bundle.metadata.model})"
    if not predicts_grades(bundle.pipeline):
        raise BadInputError(f"{who} is a regressor; the API serves classifiers")
    if bundle.metadata.protocol != LEAK_FREE:
        raise BadInputError(f"{who} was fitted {bundle.metadata.protocol}: it has seen the holdout")
