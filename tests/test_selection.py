"""How a search's winner is chosen and scored; the fits themselves are in test_search."""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.base import BaseEstimator
from sklearn.ensemble import ExtraTreesClassifier

from executors import open_executor
from experiment_tracking.search import selection
from experiment_tracking.search.finalists import (
    BLEND,
    KERNEL,
    TUNED_FOREST,
    TUNED_XGB,
    Finalist,
    choose_winner,
    compare_finalists,
    make_finalists,
    repeat_folds,
)
from experiment_tracking.search.selection import Selection
from experiment_tracking.search.space import TASKS, Plan
from experiment_tracking.search.tuning import SearchRun
from wine_data.schema import TARGET
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.evaluate import MEASURES

FOREST = ExtraTreesClassifier(10, random_state=1)


@pytest.fixture
def chosen(twin: WineData, twin_split: Split) -> Iterator[Selection]:
    """What follows the trials of a search, with a console to read."""
    console = Console(file=io.StringIO(), width=200)
    with open_executor(1) as executor:
        yield Selection(Plan(), twin_split, SearchRun("", "", twin), console, executor)


def make_finalist(name: str, expected: np.ndarray) -> Finalist:
    return Finalist(name, FOREST, {"rmse": float(expected.std())}, expected)


@pytest.mark.parametrize("task", TASKS)
def test_a_winner_is_scored_on_folds_that_nothing_was_chosen_on(
    chosen: Selection, twin_split: Split, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: dict[str, Split] = {}

    def keep(name: str, _: object, split: Split, map_fn: object) -> None:  # noqa: ARG001
        scored[name] = split

    monkeypatch.setattr(selection, "evaluate_leak_free", keep)
    asked = replace(chosen, plan=Plan(task=task))
    asked.evaluate_winner(make_finalist(TUNED_FOREST, np.zeros(1)))
    ((name, split),) = scored.items()
    assert name == f"TunedForest{task.capitalize()}"
    fresh = [tuple(part) for _, part in split.folds]
    assert len(fresh) == len(twin_split.folds)
    used = [part for _, part in twin_split.folds] + [part for _, _, part in repeat_folds(twin_split, 42)]
    assert not set(fresh) & {tuple(part) for part in used}


@pytest.mark.parametrize("most", [100, 10_000])
def test_there_is_no_blend_for_many_wines_and_that_is_said(
    chosen: Selection, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: dict[str, Any] = {}

    def compare(made: dict[str, BaseEstimator], *_: object) -> list[Finalist]:
        models.update(made)
        metrics = dict.fromkeys((*MEASURES, "rps", "ece"), 0.5)
        return [Finalist(name, model, metrics, np.zeros((1, 1))) for name, model in made.items()]

    monkeypatch.setattr(selection, "compare_finalists", compare)
    monkeypatch.setattr(selection, "choose_winner", lambda finalists, _: finalists[0])
    monkeypatch.setattr(selection, "log_values", lambda *_, **__: None)
    monkeypatch.setattr(selection, "KERNEL_WINES", most)
    monkeypatch.setattr(Selection, "make_tuned", lambda *_: {TUNED_FOREST: FOREST})
    chosen._choose_winner([])
    assert (BLEND in models) == (KERNEL in models) == (most == 10_000)
    assert isinstance(chosen.console.file, io.StringIO)
    assert ("There is no blend" in chosen.console.file.getvalue()) == (most == 100)


def test_another_wins_over_the_forest_only_where_that_is_certain(twin_split: Split) -> None:
    grades = twin_split.train[TARGET].to_numpy(float)
    random = np.random.default_rng(1)
    noise = random.normal(size=(2, len(grades)))
    forest = Finalist(TUNED_FOREST, FOREST, {"rmse": 0.7}, grades + 0.7 * noise)
    alike = Finalist(TUNED_XGB, FOREST, {"rmse": 0.699}, grades + 0.699 * random.permuted(noise, axis=1))
    better = Finalist(BLEND, FOREST, {"rmse": 0.68}, grades + 0.68 * noise)
    assert choose_winner([forest, alike], twin_split) is forest
    assert choose_winner([forest, alike, better], twin_split) is better
    assert choose_winner([alike], twin_split) is alike  # where every forest failed


def test_a_blend_is_compared_by_the_mean_of_its_members(twin_split: Split) -> None:
    folds = repeat_folds(twin_split, 42, repeats=1, parts=2)
    models = make_finalists({TUNED_FOREST: FOREST}, seed=42)
    named = {name: models[name] for name in (TUNED_FOREST, KERNEL, BLEND)}
    forest, kernel, blend = compare_finalists(named, twin_split, folds)
    np.testing.assert_allclose(blend.expected, (forest.expected + kernel.expected) / 2)
    (alone,) = compare_finalists({"as one model": models[BLEND]}, twin_split, folds)
    np.testing.assert_allclose(blend.expected, alone.expected, atol=1e-9)
    assert blend.metrics == pytest.approx(alone.metrics)
