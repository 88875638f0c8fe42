import numpy as np
import pandas as pd
import pytest

from wine_data.schema import FEATURES, feature_frame
from wine_data.sources import WineData
from wine_data.split import Sides, split_wines
from wine_quality_training.evaluate import (
    AS_PUBLISHED,
    LEAK_FREE,
    evaluate_as_published,
    evaluate_leak_free,
    score_grades,
)
from wine_quality_training.models import MODELS, make_model, predicts_grades
from wine_quality_training.train import list_scores, render_markdown, train_model


def test_scores_of_known_guesses() -> None:
    score = score_grades("any", LEAK_FREE, "cv", pd.Series([5, 6, 7, 8]), np.array([5.4, 6.6, 7.0, 6.0]))
    assert score.accuracy == 0.5  # 5 and 7; 6.6 rounds to 7
    assert score.within_one == 0.75
    assert score.mae == pytest.approx((0.4 + 0.6 + 0 + 2) / 4)
    assert score.rmse == pytest.approx(np.sqrt((0.16 + 0.36 + 0 + 4) / 4))
    assert score.r2 == pytest.approx(1 - 4.52 / 5)


def test_guesses_beyond_the_scale_count_as_its_ends() -> None:
    assert score_grades("any", LEAK_FREE, "cv", pd.Series([3, 9]), np.array([-2.0, 14.0])).accuracy == 1.0


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_for_wines_with_holes(name: str, few_wines: pd.DataFrame) -> None:
    X = feature_frame(few_wines)
    model = make_model(name, seed=1).fit(X, few_wines["quality"])
    assert np.isfinite(model.predict(X.assign(pH=np.nan))).all()


def test_the_same_seed_gives_the_same_answers(twin_sides: Sides) -> None:
    X, y = feature_frame(twin_sides.training), twin_sides.training["quality"]
    first, second = (make_model("RandomForestClassifier", seed=3).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_published_scores_are_memory_and_leak_free_ones_are_not(twin: WineData, twin_sides: Sides) -> None:
    published = evaluate_as_published("RandomForestClassifier", twin, seed=42)
    leak_free = evaluate_leak_free("RandomForestClassifier", twin_sides, seed=42)
    assert published.score_on("train").accuracy > 0.99
    assert published.score_on("validation").accuracy > 0.99
    assert leak_free.score_on("cv").accuracy < 0.65
    assert leak_free.score_on("holdout").accuracy < 0.65
    assert leak_free.score_on("holdout").kappa > 0.2  # and yet it has learned something


def test_a_model_is_fitted_on_the_training_side_alone(twin_sides: Sides) -> None:
    """A nearest neighbour that had seen a holdout wine would find it at distance 0."""
    evaluation = evaluate_leak_free("KNeighborsRegressor", twin_sides, seed=42)
    neighbours = evaluation.pipeline.named_steps["model"]
    distances, _ = neighbours.kneighbors(feature_frame(twin_sides.holdout).to_numpy(), n_neighbors=1)
    assert neighbours.n_samples_fit_ == len(twin_sides.training)
    assert distances.min() > 0


def test_every_fold_is_reported(twin: WineData, twin_sides: Sides) -> None:
    steps: list[str] = []
    evaluations = train_model("KNeighborsRegressor", twin, twin_sides, seed=42, on_step=steps.append)
    assert len(steps) == 6
    assert steps[-1] == "KNeighborsRegressor: leak-free, fold 5 of 5"
    assert [evaluation.protocol for evaluation in evaluations] == [AS_PUBLISHED, LEAK_FREE]
    rows = render_markdown(list_scores(evaluations)).splitlines()
    assert [row.split(" | ")[2] for row in rows[2:]] == ["train", "validation", "cv", "holdout"]


def test_classifiers_predict_grades_and_regressors_numbers() -> None:
    assert predicts_grades(make_model("RandomForestClassifier", seed=1))
    assert not predicts_grades(make_model("KNeighborsRegressor", seed=1))


@pytest.mark.real_data
def test_the_published_figures_are_reproduced(real_data: WineData) -> None:
    neighbours = evaluate_as_published("KNeighborsRegressor", real_data, seed=42)
    assert round(neighbours.score_on("train").rmse, 4) == 0.1634
    assert round(neighbours.score_on("train").r2, 4) == 0.9649
    assert round(neighbours.score_on("validation").rmse, 4) == 0.2602
    assert round(neighbours.score_on("validation").r2, 4) == 0.9112
    forest = evaluate_as_published("RandomForestClassifier", real_data, seed=42)
    assert forest.score_on("train").rmse == 0
    assert 0.055 <= forest.score_on("validation").rmse <= 0.075


@pytest.mark.real_data
def test_a_forest_on_unseen_real_wines_does_what_was_measured(real_data: WineData) -> None:
    sides = split_wines(real_data.train, real_data.validation, folds=5, seed=42)
    score = evaluate_leak_free("RandomForestClassifier", sides, seed=42).score_on("cv")
    assert score.accuracy == pytest.approx(0.566, abs=0.02)
    assert score.r2 == pytest.approx(0.24, abs=0.05)
    assert list(feature_frame(sides.training).columns) == list(FEATURES)
