import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from commands import BadInputError
from tests.conftest import isolated_environment, run_here
from tests.told import list_untold
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split, split_wines
from wine_quality_training.bundle.files import load_candidate
from wine_quality_training.evaluate import (
    AS_PUBLISHED,
    LEAK_FREE,
    MEASURES,
    Evaluation,
    Fitting,
    bootstrap_intervals,
    choose_classifier,
    evaluate_as_published,
    evaluate_leak_free,
    measure_predictions,
    round_predictions,
    slice_predictions,
    train_model,
)
from wine_quality_training.models import MODELS, make_model, predicts_grades, shorten_name
from wine_quality_training.report import list_scores, render_scores


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


def test_the_measures_of_known_predictions() -> None:
    measures = measure_predictions(np.array([5, 6, 7, 8]), np.array([5.4, 6.6, 7.0, 6.0]))
    assert measures["accuracy"] == 0.5  # 5 and 7; 6.6 rounds to 7
    assert measures["within_one"] == 0.75
    assert measures["mae"] == pytest.approx((0.4 + 0.6 + 0 + 2) / 4)
    assert measures["rmse"] == pytest.approx(np.sqrt((0.16 + 0.36 + 0 + 4) / 4))
    assert measures["r2"] == pytest.approx(1 - 4.52 / 5)


def test_the_measures_are_those_of_scikit_learn(random: np.random.Generator) -> None:
    grades = random.choice([4, 5, 6, 7, 8], 500)
    predictions = grades + random.normal(0, 0.8, 500)
    rounded = round_predictions(predictions)
    ours = measure_predictions(grades, predictions)
    assert ours["rmse"] == pytest.approx(metrics.root_mean_squared_error(grades, predictions))
    assert ours["mae"] == pytest.approx(metrics.mean_absolute_error(grades, predictions))
    assert ours["r2"] == pytest.approx(metrics.r2_score(grades, predictions))
    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(grades, rounded))
    assert ours["kappa"] == pytest.approx(metrics.cohen_kappa_score(grades, rounded, weights="quadratic"))


def test_predictions_beyond_the_scale_count_as_its_ends() -> None:
    assert round_predictions(np.array([-2.0, 5.5001, 14.0])).tolist() == [0, 6, 10]


def test_an_interval_holds_the_score_and_narrows_with_more_wines(random: np.random.Generator) -> None:
    widths = []
    for count in (200, 3200):
        grades = random.choice([4, 5, 6, 7, 8], count)
        predictions = grades + random.normal(0, 0.8, count)
        measures, intervals = measure_predictions(grades, predictions), bootstrap_intervals(grades, predictions)
        assert all(intervals[name][0] < measures[name] < intervals[name][1] for name in MEASURES)
        widths.append(intervals["rmse"][1] - intervals["rmse"][0])
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)  # the square root of 16


def test_an_interval_of_accuracy_is_as_wide_as_the_binomial_one(random: np.random.Generator) -> None:
    grades = random.choice([5, 6], 2000)
    predictions = np.where(random.random(2000) < 0.6, grades, 11 - grades)
    low, high = bootstrap_intervals(grades, predictions)["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.6 * 0.4 / 2000), rel=0.1)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_for_wines_with_holes(name: str, few_wines: pd.DataFrame) -> None:
    X = feature_frame(few_wines)
    model = make_model(name, seed=1).fit(X, few_wines[TARGET])
    assert np.isfinite(model.predict(X.assign(pH=np.nan))).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_digest(name: str, twin_split: Split) -> None:
    wines = twin_split.train.head(400)
    pickles = [pickle.dumps(make_model(name, seed=3).fit(feature_frame(wines), wines[TARGET])) for _ in range(2)]
    assert len({hashlib.sha256(pickled).hexdigest() for pickled in pickles}) == 1


def test_files_are_named_for_the_models() -> None:
    assert [shorten_name(name) for name in MODELS] == ["rfr", "rfc", "etc", "dtc", "knr"]


def test_classifiers_predict_grades_and_regressors_numbers() -> None:
    assert [predicts_grades(make_model(name, seed=1)) for name in MODELS] == [False, True, True, True, False]


@pytest.fixture(scope="module")
def forest(twin_split: Split) -> Evaluation:
    return evaluate_leak_free("RandomForestClassifier", make_model("RandomForestClassifier", seed=42), twin_split)


@pytest.fixture(scope="module")
def regressor(twin_split: Split) -> Evaluation:
    return evaluate_leak_free("RandomForestRegressor", make_model("RandomForestRegressor", seed=42), twin_split)


def test_published_scores_are_memory_and_leak_free_ones_are_not(twin: WineData, forest: Evaluation) -> None:
    published = evaluate_as_published("RandomForestClassifier", make_model("RandomForestClassifier", seed=42), twin)
    assert published.score_on("train").metrics["accuracy"] > 0.99
    assert published.score_on("validation").metrics["accuracy"] > 0.99
    assert published.score_on("validation").intervals == {}
    assert forest.score_on("cv").metrics["accuracy"] < 0.65
    assert forest.score_on("holdout").metrics["accuracy"] < 0.65


def test_a_model_is_fitted_on_the_training_side_alone(twin_split: Split) -> None:
    """A nearest neighbour that had seen a holdout wine would find it at distance 0."""
    evaluation = evaluate_leak_free("KNeighborsRegressor", make_model("KNeighborsRegressor", seed=42), twin_split)
    neighbours = evaluation.pipeline.named_steps["model"]
    distances, _ = neighbours.kneighbors(feature_frame(twin_split.holdout).to_numpy(), n_neighbors=1)
    assert neighbours.n_samples_fit_ == len(twin_split.train)
    assert distances.min() > 0


def test_every_fold_is_reported(twin: WineData, twin_split: Split) -> None:
    steps: list[str] = []
    evaluations = train_model("KNeighborsRegressor", twin, twin_split, seed=42, fitting=Fitting(on_step=steps.append))
    assert len(steps) == 6
    assert list_untold(steps[-1], "KNeighborsRegressor", LEAK_FREE, "fold 5") == []
    assert [evaluation.protocol for evaluation in evaluations] == [AS_PUBLISHED, LEAK_FREE]
    rows = render_scores(list_scores(evaluations)).splitlines()
    assert [row.split(" | ")[2] for row in rows[2:]] == ["train", "validation", "cv", "holdout"]


def test_the_best_classifier_is_chosen_by_kappa_in_cv(
    forest: Evaluation, regressor: Evaluation, twin_split: Split
) -> None:
    tree = evaluate_leak_free("DecisionTreeClassifier", make_model("DecisionTreeClassifier", seed=42), twin_split)
    assert choose_classifier([regressor, tree, forest]) is forest


def test_without_a_classifier_there_is_nothing_to_choose(regressor: Evaluation) -> None:
    with pytest.raises(BadInputError, match="classifier"):
        choose_classifier([regressor])


def test_slices_by_colour_cover_every_wine_once(forest: Evaluation) -> None:
    slices = slice_predictions(forest, "cv")
    by_colour = [part for part in slices if part.slice in ("red", "white")]
    by_grade = [part for part in slices if part.slice.startswith("grade")]
    total = forest.score_on("cv")
    for parts in (by_colour, by_grade):
        assert sum(part.wines for part in parts) == total.wines
        mean = sum(part.accuracy * part.wines for part in parts) / total.wines
        assert mean == pytest.approx(total.metrics["accuracy"])


def test_more_alcohol_does_not_lower_the_expected_grade_on_average(regressor: Evaluation, twin_split: Split) -> None:
    X = feature_frame(twin_split.holdout)
    stronger = X.assign(alcohol=X["alcohol"] + 1)
    assert regressor.pipeline.predict(stronger).mean() > regressor.pipeline.predict(X).mean()


def test_the_order_of_rows_changes_no_answer(forest: Evaluation, twin_split: Split) -> None:
    X = feature_frame(twin_split.holdout)
    shuffled = X.sample(frac=1, random_state=1)
    answers = pd.Series(forest.pipeline.predict(X), index=X.index)
    np.testing.assert_array_equal(forest.pipeline.predict(shuffled), answers.loc[shuffled.index])


def test_a_classifier_beats_the_majority_grade_on_the_holdout(forest: Evaluation, twin_split: Split) -> None:
    grades = twin_split.holdout[TARGET].to_numpy()
    majority = measure_predictions(grades, np.full(len(grades), twin_split.train[TARGET].mode()[0]))
    assert forest.score_on("holdout").intervals["accuracy"][0] > majority["accuracy"]
    assert forest.score_on("holdout").intervals["kappa"][0] > majority["kappa"]


def test_a_regressor_beats_the_mean_of_the_colour_on_the_holdout(regressor: Evaluation, twin_split: Split) -> None:
    means = twin_split.train.groupby("type")[TARGET].mean()
    predictions = twin_split.holdout["type"].map(means).to_numpy(dtype=float)
    by_colour = measure_predictions(twin_split.holdout[TARGET].to_numpy(), predictions)
    assert regressor.score_on("holdout").intervals["rmse"][1] < by_colour["rmse"]


def test_the_command_leaves_models_scores_and_figures(tmp_path: Path) -> None:
    environment = isolated_environment(tmp_path) | {"WINE_DATA": "twin"}
    done = run_here("wine_quality_training.train", environment, "--model", "DecisionTreeClassifier")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "wine_quality_training" / "models"
    assert sorted(path.name for path in folder.iterdir()) == [
        "dtc.json",
        "dtc.pkl",
        "figures",
        "scores.json",
        "scores.md",
    ]
    assert load_candidate(folder / "dtc.pkl").metadata.protocol == LEAK_FREE
    scores = json.loads((folder / "scores.json").read_text())["scores"]
    assert [score["scored_on"] for score in scores] == ["train", "validation", "cv", "holdout"]
    assert "| DecisionTreeClassifier | leak-free | holdout |" in (folder / "scores.md").read_text()
    assert {path.stem for path in (folder / "figures").iterdir()} == {
        "boxes", "confusion", "correlations", "grades", "grades_by_type", "predictions", "protocols",
    }  # fmt: skip


PUBLISHED = {  # RMSE on train and validation, R2 on both, as the models' publishers have them
    "RandomForestRegressor": (0.0271, 0.0822, 0.9990, 0.9911),
    "KNeighborsRegressor": (0.1634, 0.2602, 0.9649, 0.9112),
}


@pytest.mark.full
@pytest.mark.real_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_figures_are_reproduced(name: str, real_data: WineData) -> None:
    evaluation = evaluate_as_published(name, make_model(name, seed=42), real_data)
    train, validation = evaluation.score_on("train").metrics, evaluation.score_on("validation").metrics
    found = (train["rmse"], validation["rmse"], train["r2"], validation["r2"])
    assert tuple(round(value, 4) for value in found) == PUBLISHED[name]


@pytest.mark.full
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("RandomForestClassifier", 0.055, 0.075),
        ("ExtraTreesClassifier", 0.055, 0.075),
        ("DecisionTreeClassifier", 0.08, 0.095),
    ],
)
def test_classifiers_remember_every_wine_of_the_train_file(
    name: str, low: float, high: float, real_data: WineData
) -> None:
    evaluation = evaluate_as_published(name, make_model(name, seed=42), real_data)
    assert evaluation.score_on("train").metrics["rmse"] == 0
    assert low <= evaluation.score_on("validation").metrics["rmse"] <= high


@pytest.mark.full
@pytest.mark.real_data
def test_on_unseen_real_wines_a_forest_does_what_was_measured(real_data: WineData) -> None:
    split = split_wines(real_data.train, real_data.validation, folds=5, seed=42)
    score = evaluate_leak_free("RandomForestRegressor", make_model("RandomForestRegressor", seed=42), split).score_on(
        "holdout"
    )
    assert score.metrics["r2"] == pytest.approx(0.38, abs=0.02)
    assert score.metrics["accuracy"] == pytest.approx(0.57, abs=0.02)
    assert score.intervals["r2"][0] < 0.40 < score.intervals["r2"][1]
