"""How often a holdout was asked, and how sure an answer it therefore owes.

Each challenger asks the same holdout wines, so some day one without any gain would get in by chance. The k-th is judged
at a level of its own, and the levels of all add up to ALPHA: however many are asked, and however alike they are, the
chance that one without gain in kappa gets in is at most ALPHA. A level falls as k^-1.5, which is slow enough to leave
some power to the fiftieth. Where a challenger gets in, its level was not used up, and the next has it on top. This is
online fallback, from Tian and Ramdas, "Online control of the familywise error rate", Statistical Methods in Medical
Research 30 (2021), arXiv 1910.04900.

The guarantee holds for a person who sees whether a challenger got in. Who tunes a model by the differences that a
verdict shows, over many verdicts, learns more about the holdout than that.

The count is kept on the registered model, a tag for each question under the fingerprint of the holdout, so that all who
share the store share it. The same question (challenger, champion and recent wines, by digest) is not counted again.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from wine_data.schema import FEATURES, TARGET
from wine_data.sources.load import fingerprint_wines

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05  # the chance that any challenger without gain gets in, over the life of a holdout
DECAY, TOTAL = 1.5, 2.6123753486854883  # TOTAL: the sum of k^-1.5 over all k, which is zeta(1.5)
ASKED, ADMITTED, REFUSED = "asked", "admitted", "refused"
_PREFIX, _LETTERS = "gate", 16  # of a SHA-256 in a tag: enough for any number of holdouts


@dataclass(frozen=True)
class Question:
    """A challenger before a holdout: the how-manieth it is, and the level at which its kappa is judged."""

    number: int
    level: float
    answer: str = field(default=ASKED, compare=False)  # whether it got in does not make it another question

    def sentence(self) -> str:
        """The count and the level, for people."""
        count = f"the {name_ordinal(self.number)} challenger of this holdout"
        return f"{count}: kappa is judged at level {100 * self.level:.2g} %"


def level_of(number: int, unused: float = 0.0) -> float:
    """The level of the k-th question; `unused` is that of the question before, where its challenger got in."""
    return float(ALPHA * number**-DECAY / TOTAL + unused)


FIRST = Question(1, level_of(1))


def fingerprint_holdout(holdout: "pd.DataFrame") -> str:
    """SHA-256 of the features and grades of wines, in any order."""
    return fingerprint_wines(holdout.sort_values([*FEATURES, TARGET]))


def pose_question(model: str, fingerprint: str, *parts: str) -> Question:
    """Count a question to a holdout on the registered model, or find it where it was asked before.

    `parts` tell it from others: digests of challenger and champion, and the fingerprint of the recent wines. Where the
    store is a database, one process at a time asks. Through a server, two that ask within the same milliseconds may get
    one level; both are counted, so ALPHA is exceeded by no more than the difference of two levels.
    """
    from experiment_tracking.runs.store import hold_store  # MLflow, which --help does without

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
    """Note whether the challenger of a question got in."""
    answered = Question(question.number, question.level, ADMITTED if admitted else REFUSED)
    if answered.answer != question.answer:
        _write(model, _name_tag(fingerprint, *parts), answered)


def list_questions(model: str, holdout: "pd.DataFrame") -> list[Question]:
    """The questions that a holdout was asked, the first one first."""
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
