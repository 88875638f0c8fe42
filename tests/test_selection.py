"""How a search's winner is chosen and scored; the fits themselves are in test_search."""

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from sklearn.ensemble import ExtraTreesClassifier

from executors import open_executor
from experiment_tracking.search import finalists, selection
from experiment_tracking.search.finalists import (
    BLEND,
    DEFAULT,
    KERNEL,
    SCALE,
    TUNED_FOREST,
    TUNED_XGB,
    Finalist,
    FitRunner,
    begin_fits,
    choose_winner,
    compare_finalists,
    cut_fresh_folds,
    make_finalists,
    make_untuned,
)
from experiment_tracking.search.selection import Selection
from experiment_tracking.search.space import BOTH, TASKS, XGBOOST, Plan
from experiment_tracking.search.trials import SCORED, Trial, TrialResult
from experiment_tracking.search.tuning import SearchRun
from wine_data.schema import GRADES, TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split, fold_wines
from wine_quality_training.bundle.decision import decide_grades
from wine_quality_training.estimators import ExpectedGrade, choose_rule
from wine_quality_training.evaluate import PROBABILITIES

FOREST = ExtraTreesClassifier(10, random_state=1)


@pytest.fixture
def chosen(twin: WineData, twin_split: Split) -> Iterator[Selection]:
    """What follows the trials of a search, with a console to read; no fit has begun."""
    console = Console(file=io.StringIO(), width=200)
    with open_executor(1) as executor:
        runner = FitRunner(executor, fold_wines(twin_split.train, 2, 1), {}, {})
        yield Selection(Plan(), twin_split, SearchRun("", "", twin), console, runner)


def make_finalist(name: str, rmse: float, expected: np.ndarray) -> Finalist:
    """A finalist with these expected grades, of probabilities of the lowest and the highest grade."""
    high = (expected - GRADES[0]) / (GRADES[-1] - GRADES[0])
    probabilities = np.zeros((len(expected), len(GRADES)))
    probabilities[:, 0], probabilities[:, -1] = 1 - high, high
    return Finalist(name, FOREST, {"rmse": rmse}, probabilities, np.zeros(len(expected), dtype=int), None)


def test_finalists_are_compared_on_folds_that_the_trials_did_not_use(twin_split: Split) -> None:
    fresh = cut_fresh_folds(twin_split, 42)
    assert sorted(np.concatenate([part for _, part in fresh])) == list(range(len(twin_split.train)))
    assert len(fresh) == len(twin_split.folds)
    assert not {tuple(part) for _, part in fresh} & {tuple(part) for _, part in twin_split.folds}


@pytest.mark.parametrize("task", [*TASKS, BOTH])
def test_a_winner_is_scored_by_what_its_fits_said_of_wines_they_had_not_seen(
    chosen: Selection, twin_split: Split, task: str
) -> None:
    folds = chosen.runner.folds
    models = {TUNED_FOREST: FOREST}
    (winner,) = compare_finalists(models, begin_fits(models, twin_split, folds), twin_split, folds)
    evaluations = replace(chosen, plan=Plan(task=task)).evaluate_winner(winner)
    assert [each.name for each in evaluations] == [
        f"TunedForest{each.capitalize()}" for each in (TASKS if task == BOTH else [task])
    ]
    expected = np.zeros(len(twin_split.train))
    for others, part in folds:
        fitted = ExpectedGrade(FOREST).fit(
            feature_frame(twin_split.train.iloc[others]), twin_split.train[TARGET].iloc[others]
        )
        expected[part] = fitted.predict(feature_frame(twin_split.train.iloc[part]))
    for evaluation in evaluations:
        cv = evaluation.predictions["cv"]
        said = cv[list(PROBABILITIES)] @ np.array(GRADES) if evaluation.classifies else cv["prediction"]
        np.testing.assert_allclose(said, expected, rtol=1e-9)
        if evaluation.classifies:
            assert evaluation.score_on("cv").metrics["kappa"] == winner.metrics["kappa"]
            assert evaluation.pipeline.named_steps["model"].rule_ == winner.rule
            probabilities = cv[list(PROBABILITIES)].to_numpy()
            said = probabilities[np.arange(len(cv)), cv["prediction"].to_numpy() - GRADES[0]]
            np.testing.assert_array_equal(cv["confidence"], said)


def test_the_best_xgboost_is_fitted_at_a_slower_rate_with_as_many_more_rounds(chosen: Selection) -> None:
    result = TrialResult(SCORED, 0.7, (0.7, 0.7, 0.7), (30, 60, 90))
    tuned = chosen.make_tuned([Trial(0, XGBOOST, {"max_depth": 4}, result)])
    values = tuned[TUNED_XGB].regressor.get_params()
    assert (values["learning_rate"], values["n_estimators"], values["max_depth"]) == (0.03, 200, 4)
    assert TUNED_FOREST not in tuned


def test_the_grades_of_a_fold_are_decided_by_a_rule_of_the_others(twin_split: Split) -> None:
    folds = fold_wines(twin_split.train, 3, 1)
    models = {TUNED_FOREST: FOREST}
    (one,) = compare_finalists(models, begin_fits(models, twin_split, folds), twin_split, folds)
    grades = twin_split.train[TARGET].to_numpy()
    for others, part in folds:
        rule = choose_rule(one.probabilities[others], SCALE, grades[others], smooth=True)
        decided, _ = decide_grades(one.probabilities[part], SCALE, rule.find_bounds(SCALE))
        assert (one.decided[part] == decided).all()


@pytest.mark.parametrize("most", [100, 10_000])
def test_there_is_no_blend_for_many_wines_and_that_is_said(
    chosen: Selection, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finalists, "KERNEL_WINES", most)
    monkeypatch.setattr(selection, "KERNEL_WINES", most)
    monkeypatch.setattr(selection, "log_values", lambda *_, **__: None)
    monkeypatch.setattr(Selection, "make_tuned", lambda *_: {TUNED_FOREST: FOREST})
    untuned = make_untuned(chosen.split, 42)
    begun = begin_fits(untuned, chosen.split, chosen.runner.folds)
    ready = replace(chosen, runner=replace(chosen.runner, untuned=untuned, fits=begun))
    ready._choose_winner([])
    assert isinstance(chosen.console.file, io.StringIO)
    shown = chosen.console.file.getvalue()
    assert DEFAULT in shown
    assert (f"\n{BLEND}" in shown) == (f"\n{KERNEL}" in shown) == (KERNEL in untuned) == (most == 10_000)
    assert ("There is no blend" in shown) == (most == 100)


def test_another_wins_over_the_forest_only_where_that_is_certain(twin_split: Split) -> None:
    grades = twin_split.train[TARGET].to_numpy(float)
    random = np.random.default_rng(1)
    noise = random.normal(size=len(grades))
    forest = make_finalist(TUNED_FOREST, 0.7, grades + 0.7 * noise)
    alike = make_finalist(TUNED_XGB, 0.699, grades + 0.699 * random.permuted(noise))
    better = make_finalist(BLEND, 0.68, grades + 0.68 * noise)
    assert choose_winner([forest, alike], twin_split) is forest
    assert choose_winner([forest, alike, better], twin_split) is better
    assert choose_winner([alike], twin_split) is alike  # where every forest failed


def test_a_blend_is_compared_by_the_mean_of_its_members(twin_split: Split) -> None:
    folds = fold_wines(twin_split.train, 2, 42)
    models = make_finalists(make_untuned(twin_split, 42), {TUNED_FOREST: FOREST})
    named = {name: models[name] for name in (TUNED_FOREST, KERNEL, BLEND)}
    forest, kernel, blend = compare_finalists(named, begin_fits(named, twin_split, folds), twin_split, folds)
    np.testing.assert_allclose(blend.expected, (forest.expected + kernel.expected) / 2)
    whole = {"as one model": models[BLEND]}
    (alone,) = compare_finalists(whole, begin_fits(whole, twin_split, folds), twin_split, folds)
    np.testing.assert_allclose(blend.expected, alone.expected, atol=1e-9)
    assert blend.metrics == pytest.approx(alone.metrics)
