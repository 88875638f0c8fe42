"""The gate: a challenger gets in only if it is better on wines that neither model trained on.

Both are scored on the identical holdout wines. The bootstrap of the difference in quadratic weighted
kappa is paired, and its one-sided 95 % interval has to lie above 0. There is no champion at first;
then the rival is the majority-class baseline.

After drift the holdout of old wines cannot show what a retrained model is for. The gate then also takes
a recent set of labelled wines: the challenger must be better there, and on the holdout worse by no more
than MARGIN, with the same confidence.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from commands import BadInputError
from wine_data.schema import TARGET, feature_frame
from wine_quality_training.bundle.files import Bundle
from wine_quality_training.evaluate import LEAK_FREE, bootstrap_difference, measure_predictions
from wine_quality_training.models import predicts_grades

if TYPE_CHECKING:  # who asks what the gate said needs neither
    import pandas as pd
    from sklearn.pipeline import Pipeline

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

    @property
    def passed(self) -> bool:
        """Whether the interval lies above what is needed."""
        return self.lower > self.needed

    def sentence(self) -> str:
        """What was compared and what came of it, for people."""
        return (
            f"{self.scored_on}, {self.wines:,} wines: kappa {self.challenger:.3f} against {self.rival:.3f}; "
            f"difference {self.difference:+.3f}, 95 % lower bound {self.lower:+.3f} (must exceed {self.needed:g})"
        )


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a challenger. `champion` is the version number it was compared with, "" for none."""

    challenger: str
    champion: str
    comparisons: tuple[Comparison, ...]

    @property
    def admitted(self) -> bool:
        """Whether every comparison came out above what is needed."""
        return all(comparison.passed for comparison in self.comparisons)

    def name_rival(self) -> str:
        """What the challenger was compared with."""
        return f"version {self.champion}" if self.champion else MAJORITY

    def sentences(self) -> list[str]:
        """The verdict for people: one line what, one line for each comparison."""
        word = "better" if self.admitted else "not shown to be better"
        return [
            f"version {self.challenger} is {word} than {self.name_rival()}",
            *(c.sentence() for c in self.comparisons),
        ]


def judge_challenger(
    challenger: Bundle,
    champion: Bundle | None,
    holdout: "pd.DataFrame",
    recent: "pd.DataFrame | None" = None,
    margin: float = MARGIN,
) -> Verdict:
    """Compare a challenger with the champion, or with the majority-class baseline where there is none.

    Args:
        challenger: the challenger, with its metadata.
        champion: the model that serves, with its metadata.
        holdout: labelled wines of the holdout.
        recent: labelled wines after drift; those of the holdout are scored, which neither trained on.
        margin: how much worse the challenger may be on the holdout when `recent` is given.

    Raises:
        BadInputError: a model is a regressor or was not fitted leak-free, or there are too few recent wines.
    """
    for bundle in (challenger, champion):
        if bundle is not None:
            _refuse_unfit(bundle)
    if recent is None:
        comparisons = [_compare("holdout", challenger.pipeline, champion, holdout, needed=0.0)]
    else:
        from wine_data.split import is_holdout

        unseen = recent[is_holdout(recent)]
        if len(unseen) < FEWEST_RECENT:
            raise BadInputError(
                f"{len(unseen)} of {len(recent)} recent wines are in the holdout; {FEWEST_RECENT} are needed"
            )
        comparisons = [
            _compare("recent wines", challenger.pipeline, champion, unseen, needed=0.0),
            _compare("holdout", challenger.pipeline, champion, holdout, needed=-margin),
        ]
    return Verdict(challenger.metadata.version, champion.metadata.version if champion else "", tuple(comparisons))


def _compare(
    scored_on: str, challenger: "Pipeline", champion: Bundle | None, wines: "pd.DataFrame", needed: float
) -> Comparison:
    grades = wines[TARGET].to_numpy()
    predictions = challenger.predict(feature_frame(wines))
    rival = champion.pipeline.predict(feature_frame(wines)) if champion else _predict_majority(grades)
    difference, lower = bootstrap_difference(grades, predictions, rival)
    ours, theirs = (measure_predictions(grades, each)["kappa"] for each in (predictions, rival))
    return Comparison(scored_on, len(wines), ours, round(theirs, 12) + 0.0, difference, lower, needed)


def _predict_majority(grades: np.ndarray) -> np.ndarray:
    values, counts = np.unique(grades, return_counts=True)
    return np.full(len(grades), values[counts.argmax()])


def _refuse_unfit(bundle: Bundle) -> None:
    who = f"version {bundle.metadata.version} ({bundle.metadata.model})"
    if not predicts_grades(bundle.pipeline):
        raise BadInputError(f"{who} is a regressor; the API serves classifiers")
    if bundle.metadata.protocol != LEAK_FREE:
        raise BadInputError(f"{who} was fitted {bundle.metadata.protocol}: it has seen the holdout")
