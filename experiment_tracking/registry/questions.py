"""Count the questions to a holdout, one per challenger, and set the significance level of each.

All challengers are tested on the same holdout wines, so in time one without any gain would be admitted by chance. The
k-th challenger is therefore tested at its own level, and all levels add up to ALPHA. For any number of challengers,
however similar, the chance that one without gain in kappa is admitted is at most ALPHA. The level falls as k^-1.5,
slowly enough to leave some power for the fiftieth. If a challenger is admitted, its level is not spent: it is added to
the next challenger's. This is online fallback, from Tian and Ramdas, "Online control of the familywise error rate",
Statistical Methods in Medical Research 30 (2021), arXiv 1910.04900.

The guarantee holds for a person who sees only whether a challenger was admitted. A person who tunes models by the
differences in many verdicts learns more about the holdout than the guarantee assumes.

The count is stored on the registered model, with one tag per question under the holdout's fingerprint, so that all
users of the store share it. A repeated question (same challenger, champion and recent wines, by digest) is counted
once.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from wine_data.schema import FEATURES, TARGET
from wine_data.sources.load import fingerprint_wines

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05  # the chance that any challenger without gain is admitted, over the life of a holdout
DECAY, TOTAL = 1.5, 2.6123753486854883  # TOTAL: the sum of k^-1.5 over all k, which is zeta(1.5)
ASKED, ADMITTED, REFUSED = "asked", "admitted", "refused"
_PREFIX, _LETTERS = "gate", 16  # digits of a SHA-256 in a tag: enough for any number of holdouts


@dataclass(frozen=True)
class Question:
    """A challenger's question to a holdout: its number, and the level at which kappa is tested."""

    number: int
    level: float
    answer: str = field(default=ASKED, compare=False)  # questions are equal whether admitted or not

    def sentence(self) -> str:
        """The count and the level, for people."""
        count = f"the {name_ordinal(self.number)} challenger of this holdout"
        return f"{count}: kappa is judged at level {100 * self.level:.2g} %"


def level_of(number: int, unused: float = 0.0) -> float:
    """The level of the k-th question; `unused` is the previous question's if its challenger was admitted."""
    return float(ALPHA * number**-DECAY / TOTAL + unused)


FIRST = Question(1, level_of(1))


def fingerprint_holdout(holdout: "pd.DataFrame") -> str:
    """SHA-256 of the features and grades of wines, in any order."""
    return fingerprint_wines(holdout.sort_values([*FEATURES, TARGET]))


def pose_question(model: str, fingerprint: str, *parts: str) -> Question:
    """Count a question to a holdout on the registered model, or find it if it was asked before.

    `parts` identify it: digests of challenger and champion, and the fingerprint of the recent wines. If the store is a
    database, one process asks at a time. Through a server, two processes that ask within the same milliseconds may get
    one level. Both are counted, so ALPHA is exceeded by at most the difference of two levels.
    """
    from experiment_tracking.runs.store import hold_store  # imports MLflow, which --help does not need

    with hold_store():
        asked = _list_questions(model, fingerprint)
        tag = _name_tag(fingerprint, *parts)
        if tag not in asked:
            latest = max(asked.values(), key=lambda question: question.number, default=None)
            unused = latest.level if latest and latest.answer == ADMITTED else 0.0
            number = len(asked) + 1
            asked[tag] = Question(number, level_of(number, unused))
            _write(model, tag, asked[tag])
        return asked[tag]


def answer_question(model: str, question: Question, admitted: bool, fingerprint: str, *parts: str) -> None:
    """Record whether the challenger of a question was admitted."""
    answered = Question(question.number, question.level, ADMITTED if admitted else REFUSED)
    if answered.answer != question.answer:
        _write(model, _name_tag(fingerprint, *parts), answered)


def list_questions(model: str, holdout: "pd.DataFrame") -> list[Question]:
    """The questions to a holdout, the oldest first."""
    asked = _list_questions(model, fingerprint_holdout(holdout))
    return sorted(asked.values(), key=lambda question: question.number)


def name_ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    return str(number) + {1: "st", 2: "nd", 3: "rd"}.get(last, "th")


def _list_questions(model: str, fingerprint: str) -> dict[str, Question]:
    from mlflow import MlflowClient

    tags = MlflowClient().get_registered_model(model).tags
    asked = {tag: text.split() for tag, text in tags.items() if tag.startswith(_name_tag(fingerprint))}
    return {tag: Question(int(number), float(level), answer) for tag, (number, level, answer) in asked.items()}


def _name_tag(fingerprint: str, *parts: str) -> str:
    question = sha256(" ".join(parts).encode()).hexdigest()[:_LETTERS] if parts else ""
    return f"{_PREFIX}.{fingerprint[:_LETTERS]}.{question}"


def _write(model: str, tag: str, question: Question) -> None:
    text = f"{question.number} {question.level!r} {question.answer}"
    from mlflow import MlflowClient

    MlflowClient().set_registered_model_tag(model, tag, text)
