"""Challengers whose gain is known, before the gate: gate_power.py says what is simulated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from experiment_tracking.registry.gate import HOLDOUT, Comparison, hold_to_limits
from experiment_tracking.registry.paired import (
    COMPARED,
    KAPPA,
    Answers,
    Difference,
    measure_answers,
    tabulate_answers,
)
from experiment_tracking.registry.questions import level_of
from wine_data.schema import GRADES
from wine_quality_training.evaluate import resample_means

SCALE = np.array(GRADES)
OTHER = 0.3  # of the wines a challenger answers anew; so kappa's differences spread as between forests on real wines


@dataclass(frozen=True)
class World:
    """Wines and a champion: the share of each grade, and of each answer for each grade, shape (grades, answers)."""

    shares: np.ndarray
    answers: np.ndarray

    @classmethod
    def learn(cls, grades: np.ndarray, predictions: np.ndarray) -> "World":
        """Count what a model answered to wines that it had not seen."""
        counts = (grades[:, None, None] == SCALE[:, None]) & (predictions[:, None, None] == SCALE)
        table = counts.sum(axis=0) + 1e-9 * np.eye(len(SCALE))
        return cls(table.sum(axis=1) / table.sum(), table / table.sum(axis=1, keepdims=True))

    def kappa(self, right: float) -> float:
        """The kappa, over all wines there could be, of a model that looks up the grade of a share of the wines."""
        answers = (1 - right) * self.answers + right * np.eye(len(SCALE))
        joint = self.shares[:, None] * answers
        miss = (SCALE[:, None] - SCALE) ** 2
        chance = np.outer(self.shares, joint.sum(axis=0))
        return float(1 - (joint * miss).sum() / (chance * miss).sum())

    def find_right(self, gain: float) -> float:
        """The share of wines to look up for a gain in kappa."""
        shares = np.linspace(0, 0.5, 5_001)
        gains = [self.kappa(share) - self.kappa(0.0) for share in shares]
        return float(np.interp(gain, gains, shares))

    def at_most(self) -> np.ndarray:
        """The probabilities that go with each answer: the shares of the grades that have it, summed."""
        joint = self.shares[:, None] * self.answers + 1e-12
        sums: np.ndarray = (joint / joint.sum(axis=0)).T.cumsum(axis=1)
        return sums

    def sample(self, wines: int, rights: Sequence[float], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Positions in GRADES: of the wines; of an answer apart, the champion's and the challengers', a row each."""
        grades = random.choice(len(SCALE), wines, p=self.shares)
        bounds = self.answers.cumsum(axis=1)[grades]
        apart, champion, *others = (
            (random.random(wines)[:, None] > bounds[:, :-1]).sum(axis=1) for _ in range(2 + len(rights))
        )
        answers = [apart, champion]
        for right, other in zip(rights, others, strict=True):
            anew = np.where(random.random(wines) < right / OTHER, grades, other)
            answers.append(np.where(random.random(wines) < OTHER, anew, champion))
        return grades, np.array(answers)


def compare_series(
    world: World, wines: int, rights: Sequence[float], random: np.random.Generator
) -> list[tuple[Difference, ...]]:
    """Compare challengers with a champion on the same sampled wines, with the gate's own bootstrap, all at once.

    Half of the probabilities of all are those of one more answer, so that RPS differs as little as between forests.
    """
    grades, answers = world.sample(wines, rights, random)
    at_most = world.at_most()
    common = at_most[answers[0]]
    tables = [
        tabulate_answers(SCALE[grades], Answers(SCALE[answer], (at_most[answer] + common) / 2))
        for answer in answers[1:]
    ]
    points = [measure_answers(table.mean(axis=0, keepdims=True))[0].tolist() for table in tables]
    champion, *challengers = (measure_answers(means) for means in resample_means(None, *tables))
    deviations = [(challenger - champion).std(axis=0, ddof=1).tolist() for challenger in challengers]
    return [
        tuple(map(Difference, COMPARED, point, points[0], deviation))
        for point, deviation in zip(points[1:], deviations, strict=True)
    ]


def judge(differences: tuple[Difference, ...], wines: int, level: float) -> list[Comparison]:
    """What the gate makes of differences at a level."""
    return [hold_to_limits(HOLDOUT, wines, difference, level) for difference in differences]


def find_admissions(world: World, wines: int, challengers: int, random: np.random.Generator) -> tuple[int, bool]:
    """Ask a holdout about challengers without gain, one after the other.

    Returns which gets in first, 0 for none, and whether one would by kappa alone at 5 % each time.
    """
    series = compare_series(world, wines, [0.0] * challengers, random)
    passed = [all(one.passed for one in judge(each, wines, level_of(k))) for k, each in enumerate(series, start=1)]
    uncorrected = any(each[0].measure == KAPPA and each[0].bound(0.05) > 0 for each in series)
    return (passed.index(True) + 1 if any(passed) else 0), uncorrected


def sample_differences(
    world: World, wines: int, right: float, times: int, random: np.random.Generator
) -> Iterator[tuple[Difference, ...]]:
    """The differences of a challenger on one sample of wines after the other."""
    for _ in range(times):
        yield from compare_series(world, wines, [right], random)
