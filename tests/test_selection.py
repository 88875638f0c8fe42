"""How a search's winner is chosen and scored; the fits themselves are in test_search."""

import io
from typing import Any

import pytest
from rich.console import Console

from experiment_tracking.runs.tracking import TrackedModel
from experiment_tracking.search import selection
from experiment_tracking.search.selection import BLENDS, Finalist, Selection, repeat_folds
from experiment_tracking.search.space import CLASSIFIER, FAMILIES, FOREST, REGRESSOR, START, TASKS, Study
from experiment_tracking.search.trials import SCORED, Trial, TrialResult
from experiment_tracking.search.tuning import SearchRun
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.evaluate import MEASURES
from wine_quality_training.models import make_model


@pytest.fixture
def chosen(twin: WineData, twin_split: Split) -> Selection:
    """What follows the trials of a search, with a console to read."""
    return Selection(twin_split, 42, SearchRun("", "", twin), Console(file=io.StringIO(), width=200))


def make_trials(task: str) -> list[Trial]:
    """The first trial of each family."""
    forest = {"kind": "extra", "max_features": 0.6, "min_samples_leaf": 1}
    values = {family: forest if family == FOREST else START[REGRESSOR, family] for family in FAMILIES}
    result = TrialResult(SCORED, loss=0.5, rounds=(10,))
    return [Trial(number, Study(task, family), values[family], result) for number, family in enumerate(FAMILIES)]


def test_a_winner_is_scored_on_folds_that_nothing_was_chosen_on(
    chosen: Selection, twin_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = Finalist("winner", make_model("DecisionTreeClassifier", 1), {}, 0.0)
    scored: list[Split] = []
    monkeypatch.setattr(Selection, "_choose_winner", lambda *_: winner)
    monkeypatch.setattr(Selection, "_track", lambda *_: [TrackedModel("winner", "run", "uri", True, ())])
    monkeypatch.setattr(selection, "evaluate_leak_free", lambda name, model, split, map_fn: scored.append(split))
    chosen.finish_leak_free(make_trials(CLASSIFIER))
    fresh = [tuple(part) for _, part in scored[0].folds]
    assert len(fresh) == len(twin_split.folds)
    used = [part for _, part in twin_split.folds] + [part for _, _, part in repeat_folds(twin_split, 42)]
    assert not set(fresh) & {tuple(part) for part in used}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("most", [100, 10_000])
def test_the_kernel_is_left_out_of_a_blend_for_many_wines_and_that_is_said(
    chosen: Selection, task: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: dict[str, Any] = {}

    def compare(_: str, made: dict[str, Any], *__: object) -> list[Finalist]:
        models.update(made)
        return [Finalist(name, model, dict.fromkeys(MEASURES, 0.5), 0.5) for name, model in made.items()]

    monkeypatch.setattr(selection, "compare_finalists", compare)
    monkeypatch.setattr(selection, "log_values", lambda *_, **__: None)
    monkeypatch.setattr(selection, "KERNEL_WINES", most)
    chosen._choose_winner(task, make_trials(task))
    assert ("KernelRegressor" in repr(models[BLENDS[task]])) == (most == 10_000)
    assert isinstance(chosen.console.file, io.StringIO)
    assert ("without the kernel" in chosen.console.file.getvalue()) == (most == 100)
