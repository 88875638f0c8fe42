"""The gate: admit a challenger only if it is better on wines that neither model was fitted on.

Both are scored on the same holdout wines. By paired one-sided intervals, the challenger must have a higher quadratic
weighted kappa. Its accuracy and ranked probability score (RPS) may be worse by at most ACCURACY_MARGIN and RPS_MARGIN.
Kappa alone would admit a model that exaggerates: rounding mean + 1.7 (expected quality - mean) gains kappa and loses
accuracy. Without a champion, the rival is the majority-class baseline: it predicts the most frequent training grade,
with the training shares as probabilities.

A challenger must pass every test, so no test is corrected for the others. For a model that should be refused, the null
hypothesis of at least one test is true, and the model passes that test no more often than the test's level
(intersection-union test; Berger, Technometrics 24, 1982). The level for kappa falls with each challenger of the holdout
(questions.py), and bounds how often a model without gain is admitted. The margins are always tested at LEVEL: they
bound the cost of a gain in kappa.

After drift, the holdout of old wines cannot show the benefit of a retrained model. Then the challenger must pass all
three tests on recent labelled wines, and lose at most MARGIN of kappa on the holdout.
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
from wine_data.schema import ROWS
from wine_quality_training.bundle.bundle import Bundle
from wine_quality_training.evaluate import LEAK_FREE
from wine_quality_training.models import predicts_grades

if TYPE_CHECKING:
    import pandas as pd

MARGIN = 0.05  # of kappa: about half the width of its 95 % interval on the published holdout
# On about 1,060 wines, a paired difference has a standard deviation of .011 in accuracy and .003 in RPS. So a
# challenger with equal accuracy and RPS passes nine times in ten and nineteen times in twenty.
ACCURACY_MARGIN, RPS_MARGIN = 0.03, 0.01
LEVEL = 0.05  # of the intervals that are compared with margins
FEWEST_RECENT = 50  # wines; with fewer, the interval is too wide to admit any challenger
MAJORITY = "the majority-class baseline"
HOLDOUT, RECENT = "holdout", f"recent {ROWS}"


@dataclass(frozen=True)
class Comparison:
    """Challenger and rival on the same wines by one measure: both values, and the bound of the difference.

    `bound` is the lower bound and must be above `needed`; for RPS it is the upper bound and must be below `needed`.
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
        """The challenger's value minus the rival's."""
        return self.challenger - self.rival

    @property
    def passed(self) -> bool:
        """Whether the bound is on the correct side of `needed`."""
        return self.bound < self.needed if self.measure == RPS else self.bound > self.needed

    def sentence(self) -> str:
        """The comparison and its result, for people."""
        wines = f"{self.scored_on}, {self.wines:,} {ROWS}" if self.measure == KAPPA else self.scored_on
        reach, must = ("at most", "be below") if self.measure == RPS else ("at least", "exceed")
        values = f"{self.measure} {self.challenger:.3f} against {self.rival:.3f}, {self.difference:+.3f}"
        return f"{wines}: {values}, {reach} {self.bound:+.3f} (must {must} {self.needed:g})"


@dataclass(frozen=True)
class Verdict:
    """The result of the gate.

    `champion` is the version number that the challenger was compared with, "" for none. If the challenger is the
    champion's model, there are no comparisons, and no question was counted for the holdout.
    """

    challenger: str
    champion: str
    comparisons: tuple[Comparison, ...]
    question: Question | None = None
    notes: tuple[str, ...] = ()  # for people, without effect on the verdict

    @property
    def admitted(self) -> bool:
        """Whether the challenger passed every comparison."""
        return bool(self.comparisons) and all(comparison.passed for comparison in self.comparisons)

    def name_rival(self) -> str:
        """The name of the rival."""
        return f"version {self.champion}" if self.champion else MAJORITY

    def sentences(self) -> list[str]:
        """The verdict for people: one line for the result, one for the holdout's count, one for each comparison."""
        if not self.comparisons:
            same = f"version {self.challenger} is the same model as {self.name_rival()}, by its digest"
            return [f"{same}: refused, without a comparison on the holdout"]
        word = "better" if self.admitted else "not shown to be better"
        first = f"version {self.challenger} is {word} than {self.name_rival()}"
        asked = [self.question.sentence()] if self.question else []
        return [first, *asked, *(comparison.sentence() for comparison in self.comparisons), *self.notes]


@dataclass(frozen=True)
class Terms:
    """The limits for a challenger: the kappa it may lose on the holdout after drift, and the holdout's count."""

    margin: float = MARGIN
    question: Question = FIRST


def judge_challenger(
    challenger: Bundle,
    champion: Bundle | None,
    holdout: "pd.DataFrame",
    recent: "pd.DataFrame | None" = None,
    terms: Terms = Terms(),
) -> Verdict:
    """Compare a challenger with the champion, or with the majority-class baseline if there is none.

    Of the labelled `recent` wines, those of the holdout are scored: neither model was fitted on them.

    Raises:
        BadInputError: as in check_models and pick_unseen.
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
    """Raise BadInputError if a model is a regressor, was not fitted leak-free, or lacks a profile that is needed."""
    for bundle in filter(None, (challenger, champion)):
        who = f"version {bundle.metadata.version} ({bundle.metadata.model})"
        if not predicts_grades(bundle.pipeline):
            raise BadInputError(f"{who} is a regressor; the API serves classifiers")
        if bundle.metadata.protocol != LEAK_FREE:
            raise BadInputError(f"{who} was fitted {bundle.metadata.protocol}, on {ROWS} of the holdout too")
        if champion is None and not bundle.metadata.profiles:
            raise BadInputError(f"{who} has no profile of its training {ROWS}, which {MAJORITY} needs: train it again")


def pick_unseen(recent: "pd.DataFrame") -> "pd.DataFrame":
    """The recent wines in the holdout. Raises BadInputError if fewer than FEWEST_RECENT of them are distinct."""
    from wine_data.split import is_holdout

    unseen = recent[is_holdout(recent)]
    wines = len(set(number_wines(unseen)))
    if wines < FEWEST_RECENT:
        raise BadInputError(f"{wines} of {len(recent)} recent {ROWS} are in the holdout; {FEWEST_RECENT} are needed")
    return unseen


def _compare(challenger: Bundle, champion: Bundle | None, wines: "pd.DataFrame") -> tuple[int, tuple[Difference, ...]]:
    ours = ask_model(challenger.pipeline, wines)
    if champion is None:
        return compare_answers(wines, ours, answer_majority(challenger.metadata.profiles, len(wines)))
    return compare_answers(wines, ours, ask_model(champion.pipeline, wines))


def hold_to_limits(scored_on: str, wines: int, difference: Difference, level: float) -> Comparison:
    """Compare a difference with its limit: a gain in kappa, no loss beyond a margin in accuracy and RPS."""
    limits = {KAPPA: (level, 0.0), ACCURACY: (LEVEL, -ACCURACY_MARGIN), RPS: (LEVEL, RPS_MARGIN)}
    level, needed = limits[difference.measure]
    rival = round(difference.rival, 12) + 0.0  # the baseline's kappa is 0, not -0
    return Comparison(
        scored_on, wines, difference.measure, difference.challenger, rival, difference.bound(level), needed
    )
