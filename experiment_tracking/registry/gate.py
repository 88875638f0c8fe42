"""The gate: a challenger gets in only if it is better on wines that neither model trained on.

Both are scored on the same holdout wines. By paired one-sided intervals the challenger has to be better by quadratic
weighted kappa, and not worse by accuracy and by ranked probability score (RPS) than ACCURACY_MARGIN and RPS_MARGIN.
Kappa alone would let in a model that exaggerates: rounding mean + 1.7 (expected quality - mean) gains kappa and loses
accuracy. Without a champion the rival is the majority-class baseline: the commonest grade of training, with the shares
of training as probabilities.

All tests must be passed, so none is corrected for the others: what should not get in fails at least one of them by
right, and passes that one no more often than its level says (intersection-union test; Berger, Technometrics 24, 1982).
The level of kappa falls with each challenger that the holdout is asked about (questions.py), and bounds how often
anything without gain gets in. The margins are held at LEVEL each time: they bound what a gain in kappa may cost.

After drift the holdout of old wines cannot show what a retrained model is for. Then the challenger must pass all three
tests on recent labelled wines, and on the holdout lose no more than MARGIN of kappa.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from commands import BadInputError
from experiment_tracking.registry.paired import (
    ACCURACY,
    KAPPA,
    RPS,
    Difference,
    answer_majority,
    ask_model,
    compare_answers,
    number_wines,
)
from experiment_tracking.registry.questions import FIRST, Question
from wine_quality_training.bundle.bundle import Bundle
from wine_quality_training.evaluate import LEAK_FREE
from wine_quality_training.models import predicts_grades

if TYPE_CHECKING:
    import pandas as pd

MARGIN = 0.05  # of kappa: about half the width of its 95 % interval on the published holdout
# Of about 1,060 wines, a paired difference in accuracy has a standard deviation of .011, and one in RPS of .003. So a
# challenger that is neither better nor worse by these passes nine times in ten and nineteen times in twenty.
ACCURACY_MARGIN, RPS_MARGIN = 0.03, 0.01
LEVEL = 0.05  # of the intervals that are held against margins
FEWEST_RECENT = 50  # wines; the interval of fewer is too wide to let anything through
MAJORITY = "the majority-class baseline"
HOLDOUT, RECENT = "holdout", "recent wines"


@dataclass(frozen=True)
class Comparison:
    """Challenger and rival on the same wines by one measure: both values, and the worst that the difference may be.

    `bound` is the lower bound of the difference and must exceed `needed`; of RPS it is the upper one and must be below.
    """

    scored_on: str
    wines: int
    measure: str
    challenger: float
    rival: float
    bound: float
    needed: float

    @property
    def difference(self) -> float:
        """How much the challenger has over the rival."""
        return self.challenger - self.rival

    @property
    def passed(self) -> bool:
        """Whether the interval lies on the right side of what is needed."""
        return self.bound < self.needed if self.measure == RPS else self.bound > self.needed

    def sentence(self) -> str:
        """What was compared and what came of it, for people."""
        wines = f"{self.scored_on}, {self.wines:,} wines" if self.measure == KAPPA else self.scored_on
        reach, must = ("at most", "be below") if self.measure == RPS else ("at least", "exceed")
        values = f"{self.measure} {self.challenger:.3f} against {self.rival:.3f}, {self.difference:+.3f}"
        return f"{wines}: {values}, {reach} {self.bound:+.3f} (must {must} {self.needed:g})"


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    `champion` is the version number that the challenger was compared with, "" for none. There are no comparisons where
    the challenger is the champion's model; then the holdout was asked no question.
    """

    challenger: str
    champion: str
    comparisons: tuple[Comparison, ...]
    question: Question | None = None
    notes: tuple[str, ...] = ()  # for people: they decide nothing

    @property
    def admitted(self) -> bool:
        """Whether the challenger passed every comparison."""
        return bool(self.comparisons) and all(comparison.passed for comparison in self.comparisons)

    def name_rival(self) -> str:
        """What the challenger was compared with."""
        return f"version {self.champion}" if self.champion else MAJORITY

    def sentences(self) -> list[str]:
        """The verdict for people: one line what, one for the holdout's count, one for each comparison."""
        if not self.comparisons:
            same = f"version {self.challenger} is the same model as {self.name_rival()}, by its digest"
            return [f"{same}: refused, and the holdout was not asked"]
        word = "better" if self.admitted else "not shown to be better"
        first = f"version {self.challenger} is {word} than {self.name_rival()}"
        asked = [self.question.sentence()] if self.question else []
        return [first, *asked, *(comparison.sentence() for comparison in self.comparisons), *self.notes]


@dataclass(frozen=True)
class Terms:
    """What a challenger is held to: the kappa that it may lose on the holdout after drift, and the holdout's count."""

    margin: float = MARGIN
    question: Question = FIRST


def judge_challenger(
    challenger: Bundle,
    champion: Bundle | None,
    holdout: "pd.DataFrame",
    recent: "pd.DataFrame | None" = None,
    terms: Terms = Terms(),
) -> Verdict:
    """Compare a challenger with the champion, or with the majority-class baseline where there is none.

    Of labelled `recent` wines those of the holdout are scored, which neither model trained on.

    Raises:
        BadInputError: what check_models and pick_unseen say.
    """
    check_models(challenger, champion)
    unseen = None if recent is None else pick_unseen(recent)
    level, versions = terms.question.level, (challenger.metadata.version, champion.metadata.version if champion else "")
    wines, differences = _compare(challenger, champion, holdout if unseen is None else unseen)
    scored_on = HOLDOUT if unseen is None else RECENT
    comparisons = tuple(hold_to_limits(scored_on, wines, difference, level) for difference in differences)
    if unseen is not None:
        wines, (kappa, *_) = _compare(challenger, champion, holdout)
        comparisons = (*comparisons, replace(hold_to_limits(HOLDOUT, wines, kappa, LEVEL), needed=-terms.margin))
    return Verdict(*versions, comparisons, terms.question)


def check_models(challenger: Bundle, champion: Bundle | None) -> None:
    """Raise BadInputError where a model is a regressor, was not fitted leak-free, or lacks a profile that is needed."""
    for bundle in filter(None, (challenger, champion)):
        who = f"version {bundle.metadata.version} ({bundle.metadata.model})"
        if not predicts_grades(bundle.pipeline):
            raise BadInputError(f"{who} is a regressor; the API serves classifiers")
        if bundle.metadata.protocol != LEAK_FREE:
            raise BadInputError(f"{who} was fitted {bundle.metadata.protocol}: it has seen the holdout")
        if champion is None and not bundle.metadata.profiles:
            raise BadInputError(f"{who} has no profile of its wines, which {MAJORITY} needs: train it again")


def pick_unseen(recent: "pd.DataFrame") -> "pd.DataFrame":
    """The recent wines that are in the holdout. Raises BadInputError where they are too few wines, repeats apart."""
    from wine_data.split import is_holdout

    unseen = recent[is_holdout(recent)]
    wines = len(set(number_wines(unseen)))
    if wines < FEWEST_RECENT:
        raise BadInputError(f"{wines} of {len(recent)} recent wines are in the holdout; {FEWEST_RECENT} are needed")
    return unseen


def _compare(challenger: Bundle, champion: Bundle | None, wines: "pd.DataFrame") -> tuple[int, tuple[Difference, ...]]:
    ours = ask_model(challenger.pipeline, wines)
    if champion is None:
        return compare_answers(wines, ours, answer_majority(challenger.metadata.profiles, len(wines)))
    return compare_answers(wines, ours, ask_model(champion.pipeline, wines))


def hold_to_limits(scored_on: str, wines: int, difference: Difference, level: float) -> Comparison:
    """A difference beside what is needed of it: a gain in kappa, and of the others no loss beyond a margin."""
    limits = {KAPPA: (level, 0.0), ACCURACY: (LEVEL, -ACCURACY_MARGIN), RPS: (LEVEL, RPS_MARGIN)}
    level, needed = limits[difference.measure]
    rival = round(difference.rival, 12) + 0.0  # the baseline's kappa is 0, not -0
    return Comparison(
        scored_on, wines, difference.measure, difference.challenger, rival, difference.bound(level), needed
    )
