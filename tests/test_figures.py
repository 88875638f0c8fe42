import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiment_tracking.search.figures import plot_importance, plot_parallel
from experiment_tracking.search.space import FOREST
from experiment_tracking.search.trials import SCORED, Trial, TrialResult
from settings import ROOT
from tests.messages import list_missing
from tests.processes import run_program
from wine_data.schema import MEASUREMENTS
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.benchmark_copies import CopyBenchmark, CopyScore, compare_copies
from wine_quality_training.evaluate import AS_PUBLISHED, LEAK_FREE, Evaluation, train_model
from wine_quality_training.report.figures import (
    plot_comparison,
    plot_copies,
    plot_effects,
    plot_predictions,
    plot_protocols,
)
from wine_quality_training.report.files import drop_fit
from wine_quality_training.report.tables import list_scores


@pytest.fixture(scope="module")
def evaluations(small: WineData, small_split: Split) -> list[Evaluation]:
    names = ("DecisionTreeClassifier", "KNeighborsRegressor")
    return [evaluation for name in names for evaluation in train_model(name, small, small_split, seed=42)]


@pytest.fixture(scope="module")
def figures(evaluations: list[Evaluation], small_split: Split) -> dict[str, Figure]:
    return plot_comparison(evaluations, small_split)


def test_every_figure_is_made_in_the_one_style() -> None:
    files = [name for name in run_program("git", "ls-files", "*.py").stdout.split() if not name.startswith("tests/")]
    assert [name for name in files if "figsize" in (ROOT / name).read_text()] == ["figure_style.py"]


def test_every_column_has_a_box_and_three_features_a_partial_dependence(figures: dict[str, Figure]) -> None:
    assert [axis.get_title() for axis in figures["boxes"].axes] == [*MEASUREMENTS, "quality"]
    labels = {axis.get_xlabel() for axis in figures["dependence"].axes}
    assert len(labels - {""}) == 3


def test_a_score_that_a_model_does_not_have_is_a_dash_and_no_zero(evaluations: list[Evaluation]) -> None:
    scores = list_scores(evaluations)
    axis = plot_protocols([each for each in scores if (each.model[0], each.protocol) != ("K", AS_PUBLISHED)]).axes[0]
    labels = [text.get_text() for text in axis.texts]
    assert labels.index("\N{EN DASH}") == 1  # of the second model as published
    assert labels.count("\N{EN DASH}") == 1


def test_the_figures_need_no_fitted_classifier(evaluations: list[Evaluation], small_split: Split) -> None:
    without = list(map(drop_fit, evaluations))
    assert any(hasattr(each.pipeline, "classes_") for each in evaluations if each.classifies)
    assert not any(hasattr(each.pipeline, "classes_") for each in without if each.classifies)
    assert plot_comparison(without, small_split).keys() == plot_comparison(evaluations, small_split).keys()


def test_a_figure_shows_each_model_under_both_protocols(evaluations: list[Evaluation]) -> None:
    axis = plot_protocols(list_scores(evaluations)).axes[0]
    shown = [patch.get_width() for patch in axis.patches]  # type: ignore[attr-defined]
    published = [e.score_on("validation").metrics["r2"] for e in evaluations if e.protocol == "as-published"]
    leak_free = [e.score_on("holdout").metrics["r2"] for e in evaluations if e.protocol == "leak-free"]
    assert shown == pytest.approx(published + leak_free)


def test_predictions_have_a_panel_a_model_and_no_empty_one(evaluations: list[Evaluation]) -> None:
    leak_free = [evaluation for evaluation in evaluations if evaluation.protocol == LEAK_FREE]
    four = leak_free * 2
    assert [axis.get_title() for axis in plot_predictions(four).axes] == [evaluation.name for evaluation in four]


def test_values_that_are_names_are_drawn_beside_numbers() -> None:
    values = [{"criterion": name, "max_features": share} for name in ("gini", "entropy") for share in (0.2, 0.4, 0.8)]
    trials = [
        Trial(number, FOREST, each, TrialResult(SCORED, loss=0.7 + number / 100)) for number, each in enumerate(values)
    ]
    lines = [line.get_ydata() for line in plot_parallel(trials, FOREST).axes[0].lines[: len(trials)]]
    assert {float(heights[0]) for heights in np.asarray(lines)} == {0.0, 1.0}
    labels = {label.get_text() for label in plot_importance(trials, FOREST).axes[0].get_yticklabels()}
    assert labels == {"criterion", "max_features"}


def test_effects_are_drawn_a_panel_a_wine_largest_on_top() -> None:
    figure = plot_effects({"good": {"alcohol": 1.0, "density": -0.2, "pH": 0.0}, "bad": {"alcohol": -0.5}})
    good, bad = figure.axes
    assert [label.get_text() for label in good.get_yticklabels()] == ["pH", "density", "alcohol"]
    assert [patch.get_width() for patch in good.patches] == [0.0, -0.2, 1.0]  # type: ignore[attr-defined]
    assert good.get_xlim() == bad.get_xlim()
    assert [axis.get_title() for axis in figure.axes] == ["good", "bad"]


def test_a_model_has_a_label_at_both_ends_of_its_line_and_none_hides_another() -> None:
    scores = (CopyScore("trees", 0.6, 0.69), CopyScore("boosting", 0.6001, 0.7), CopyScore("kernel", 0.64, 0.68))
    benchmark = CopyBenchmark(rows=6_497, wines=5_320, scores=scores)
    texts = plot_copies(benchmark).axes[0].texts
    assert {text.get_text().split()[0] for text in texts} == {"trees", "boosting", "kernel"}
    left = sorted(text.get_position()[1] for text in texts if text.get_position()[0] < 0)
    assert min(np.diff(left)) >= 0.006 - 1e-9
    assert list_missing(benchmark.sentence(), "1,177", "6,497", "kernel, number 3 of 3") == []


def test_repeats_in_a_copy_are_remembered(small: WineData) -> None:
    rows = pd.concat([small.validation.head(400), small.validation.head(200)])
    benchmark = compare_copies(rows, seed=1, folds=2)
    assert (benchmark.rows, benchmark.wines) == (600, 400)
    assert all(score.copy < score.distinct for score in benchmark.scores if score.model != "kernel")
    assert sorted(benchmark.rank("copy")) == sorted(benchmark.rank("distinct"))


def test_a_confusion_matrix_counts_every_holdout_wine(figures: dict[str, Figure], small_split: Split) -> None:
    counts = [int(text.get_text()) for text in figures["confusion"].axes[0].texts]
    assert sum(counts) == len(small_split.holdout)
