"""What a search tries, and how one trial is scored; no store is needed for that."""

import numpy as np
import pytest

from experiment_tracking.search.space import FOREST, START, XGBOOST, describe_published_space, describe_space
from experiment_tracking.search.trials import (
    PRUNED,
    SCORED,
    StoppedError,
    TrialResult,
    prepare_folds,
    run_trial,
    should_prune,
)
from experiment_tracking.search.tuning import TreeParzenOptimiser
from wine_data.sources.load import WineData
from wine_data.split import Split, group_wines, split_wines


@pytest.fixture(scope="module")
def split(small: WineData) -> Split:
    return split_wines(small.train, small.validation, folds=3, seed=42)


@pytest.mark.parametrize("family", START)
def test_the_space_gives_values_that_fit(family: str, split: Split) -> None:
    optimiser = TreeParzenOptimiser(describe_space(family), seed=1, start=START[family])
    folds = prepare_folds(split, seed=1)
    for values in (optimiser.suggest() for _ in range(6)):
        assert all(type(value) in (int, float, str) for value in values.values())
        result = run_trial(folds, family, values, [])
        assert result.outcome == SCORED
        assert 0 < result.metrics["accuracy"] < 1


def test_the_first_values_are_the_known_ones() -> None:
    optimiser = TreeParzenOptimiser(describe_space(FOREST), seed=1, start=START[FOREST])
    first = optimiser.suggest()
    assert first == {"kind": "extra", "max_features": 0.32, "min_samples_leaf": 1, "criterion": "entropy"}
    assert optimiser.suggest() != first


def test_published_values_lie_in_the_published_ranges() -> None:
    optimiser = TreeParzenOptimiser(describe_published_space(), seed=1)
    for values in (optimiser.suggest() for _ in range(20)):
        assert 4 <= values["max_depth"] <= 100
        assert isinstance(values["max_depth"], int)
        assert np.exp(-3) <= values["learning_rate"] <= 1
        assert np.exp(-1) <= values["min_child_weight"] <= np.exp(3)


def test_an_optimiser_follows_the_losses() -> None:
    """It tries values near 0.8 more where they have the lower losses."""
    distances = {sign: measure_distances(sign) for sign in (1.0, -1.0)}
    assert np.mean(distances[1.0]) < np.mean(distances[-1.0]) - 0.02


def measure_distances(sign: float) -> list[float]:
    optimiser = TreeParzenOptimiser(describe_space(XGBOOST), seed=1)
    distances: list[float] = []
    for _ in range(15):
        batch = [abs(optimiser.suggest()["subsample"] - 0.8) for _ in range(4)]
        for distance in batch:
            optimiser.observe(sign * distance)
        distances += batch
    return distances


def test_the_part_that_stops_xgboost_shares_no_wine_with_what_is_fitted_or_scored(split: Split) -> None:
    for (fit_on, score_on), fold in zip(split.folds, prepare_folds(split, seed=1), strict=True):
        sizes = [len(part[1]) for part in (fold.fit, fold.stop, fold.score)]
        assert sum(sizes) == len(split.train)
        assert sizes[2] == len(score_on)
        groups = group_wines(split.train)
        assert not set(groups.iloc[fit_on]) & set(groups.iloc[score_on])
        rows = [set(map(tuple, part[0].round(9))) for part in (fold.fit, fold.stop, fold.score)]
        assert not rows[0] & rows[1]
        assert not rows[1] & rows[2]


def test_a_trial_worse_than_the_median_of_earlier_ones_stops_after_two_folds(split: Split) -> None:
    good = [TrialResult(SCORED, loss, (loss, loss, loss)) for loss in (0.1, 0.2, 0.3)]
    assert not should_prune([0.9], good)
    assert should_prune([0.2, 0.3], good)
    assert not should_prune([0.2, 0.2], good)
    assert not should_prune([0.9, 0.9], good[:2])
    values = {"kind": "extra", "max_features": 0.5, "min_samples_leaf": 1}
    result = run_trial(prepare_folds(split, seed=1), FOREST, values, good)
    assert (result.outcome, len(result.fold_losses)) == (PRUNED, 2)
    assert result.loss is not None
    assert result.loss > 0.2  # never better than the median


def test_a_stopped_trial_ends_between_folds(split: Split) -> None:
    with pytest.raises(StoppedError):
        run_trial(prepare_folds(split, seed=1), XGBOOST, {}, [], is_stopped=lambda: True)
