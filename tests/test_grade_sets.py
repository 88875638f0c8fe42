"""Grade sets: consecutive grades around a prediction, and whether they keep their promise."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from deployment.api.schemas import ResponseWriter
from deployment.predictor import Predictor
from experiment_tracking.registry.model_card import render_card
from monitoring.quality import find_answered_masses
from tests.conftest import make_bundle
from tests.test_schema import WINE
from wine_data.schema import GRADES, TARGET, TYPE, WineQuality, feature_values
from wine_data.sources.load import WineData
from wine_data.split import Split, split_wines
from wine_quality_training.bundle.bundle import load_bundle
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.bundle.grade_sets import (
    GUARANTEE,
    calibrate_sets,
    find_sets,
    find_sets_of_one,
    find_true_masses,
    measure_masses,
)
from wine_quality_training.bundle.metadata import dump_metadata, read_metadata
from wine_quality_training.coverage import bound_share, list_coverage, measure_reliability
from wine_quality_training.evaluate import PROBABILITIES, Evaluation, evaluate_leak_free
from wine_quality_training.models import make_model
from wine_quality_training.report.figures import plot_reliability

pytestmark = pytest.mark.fast

CERTAIN = 0.05  # a coverage whose p-value is over this is not significantly below its level


def find_ends(row: list[float], decided: int, threshold: float) -> tuple[int, int]:
    """The set of one wine, which both ways of finding it agree on."""
    low, high = find_sets(measure_masses(np.array([row]), np.array([decided])), threshold)
    (ends,) = find_sets_of_one(row, decided, [threshold])
    assert (low[0], high[0]) == ends
    return ends


@pytest.mark.parametrize(
    ("threshold", "ends"),
    [
        pytest.param(0.0, (2, 2), id="the prediction is always in it"),
        pytest.param(0.4, (2, 3), id="it grows while its probability is at most the threshold"),
        pytest.param(0.7, (1, 3), id="to the likelier neighbour"),
        pytest.param(0.95, (0, 3), id="and no further than the scale"),
        pytest.param(1.0, (0, 4), id="a threshold of 1 takes all"),
    ],
)
def test_a_set_grows_from_the_prediction(threshold: float, ends: tuple[int, int]) -> None:
    assert find_ends([0.05, 0.25, 0.4, 0.3, 0.0], 2, threshold) == ends


def test_of_equally_likely_neighbours_the_lower_joins_first() -> None:
    assert find_ends([0.0, 0.2, 0.6, 0.2], 2, 0.6) == (1, 2)


def test_sums_in_another_order_make_the_same_set() -> None:
    hundredths = [0.1, 0.1, 0.1, 0.4, 0.3]  # 0.4 + 0.3 + 0.1 is 0.7999999999999999
    assert find_ends(hundredths, 3, 0.8) == find_ends([share + 3e-8 for share in hundredths], 3, 0.8)


def test_one_wine_gets_the_sets_that_many_get() -> None:
    random = np.random.default_rng(3)
    rows = random.dirichlet(np.full(7, 0.6), 3000)
    rows[::2] = random.multinomial(100, rows[::2]) / 100  # as a forest votes
    decided = random.integers(7, size=len(rows))
    masses, thresholds = measure_masses(rows, decided), (0.55, 0.8)
    many = [find_sets(masses, threshold) for threshold in thresholds]
    ones = [find_sets_of_one(row, int(at), thresholds) for row, at in zip(rows.tolist(), decided, strict=True)]
    assert np.array_equal(np.array(many).transpose(2, 0, 1), np.array(ones))
    (low, high), (lower, higher) = many
    assert (lower <= low).all()
    assert (low <= decided).all()
    assert (decided <= high).all()
    assert (high <= higher).all()


def tabulate_wines(count: int, seed: int) -> pd.DataFrame:
    """Wines whose grades are drawn with known probabilities, of a model that is too sure of the likeliest."""
    random = np.random.default_rng(seed)
    truth = random.dirichlet(np.array([0.1, 0.3, 2, 3, 1, 0.2, 0.05]), count)
    grades = (truth.cumsum(axis=1) < random.random((count, 1))).sum(axis=1) + GRADES[0]
    said = truth**2 / (truth**2).sum(axis=1, keepdims=True)
    table = pd.DataFrame(said, columns=list(PROBABILITIES))
    return table.assign(**{TARGET: grades, TYPE: "white", "prediction": said.argmax(axis=1) + GRADES[0]})


def test_over_many_calibrations_sets_hold_as_many_grades_as_they_promise() -> None:
    """Of a model whose probabilities are wrong, too; the mean over calibrations is what conformal sets promise."""
    new = find_true_masses(tabulate_wines(4000, seed=0), GRADES)
    thresholds = [calibrate_sets(tabulate_wines(200, seed), GRADES) for seed in range(1, 61)]
    for level in ("0.8", "0.9"):
        covered = np.mean([(new <= found[level]).mean() for found in thresholds])
        assert float(level) - 0.01 <= covered <= float(level) + 0.03


def test_too_few_wines_promise_nothing_but_all_grades() -> None:
    assert calibrate_sets(tabulate_wines(3, seed=0), GRADES) == {"0.8": 1.0, "0.9": 1.0}


def test_a_grade_that_the_model_does_not_know_is_in_no_set() -> None:
    wines = tabulate_wines(50, seed=0).assign(**{TARGET: 9, "prediction": 6})
    assert np.isinf(find_true_masses(wines, GRADES[:-1])).all()


@pytest.fixture(scope="module")
def evaluation(twin_split: Split) -> Evaluation:
    return evaluate_leak_free("ExtraTreesClassifier", make_model("ExtraTreesClassifier", 42), twin_split)


def test_on_the_holdout_sets_hold_no_fewer_grades_than_they_promise(evaluation: Evaluation) -> None:
    coverage = list_coverage(evaluation)
    whole = [each for each in coverage if each.slice == "all"]
    assert [each.level for each in whole] == ["0.8", "0.9"]
    assert min(each.p for each in whole) > CERTAIN
    assert 1 < whole[0].size < whole[1].size < 3
    colours = [each for each in coverage if each.slice in ("red", "white") and each.level == "0.9"]
    assert sum(each.wines for each in colours) == whole[0].wines
    assert min(each.covered for each in colours) > 0.85


@pytest.mark.full
@pytest.mark.real_data
@pytest.mark.parametrize("name", ["ExtraTreesClassifier", "OrdinalForestClassifier"])
def test_on_real_wines_sets_hold_no_fewer_grades_than_they_promise(name: str, real_data: WineData) -> None:
    real_split = split_wines(real_data.train, real_data.validation, folds=5, seed=42)
    whole = list_coverage(evaluate_leak_free(name, make_model(name, 42), real_split))[:2]
    assert min(each.p for each in whole) > CERTAIN
    assert [each.size for each in whole] == pytest.approx([1.68, 2.25], abs=0.1)


def test_the_card_says_what_is_guaranteed_and_how_it_was_kept(
    evaluation: Evaluation, twin: WineData, twin_split: Split
) -> None:
    metadata = describe_model(evaluation, twin, twin_split.train)
    card = render_card(metadata, [evaluation])
    assert GUARANTEE in card
    for slice_ in ("all", "red", "white", "grade 3", "grade 8"):
        assert f"\n| {slice_} | " in card
    assert metadata.metrics["leak-free.holdout.coverage_90"] > 0.88
    assert "expected calibration error" in card
    assert len(card) < 5000 - 300  # with the as-published rows it fits MLflow's description


def test_metadata_without_sets_is_read_and_has_none(
    evaluation: Evaluation, twin: WineData, twin_split: Split, tmp_path: Path
) -> None:
    metadata = describe_model(evaluation, twin, twin_split.train)
    known = json.loads(dump_metadata(metadata))
    assert known.pop("grade_sets") == metadata.grade_sets
    (tmp_path / "facts.json").write_text(json.dumps(known))
    assert read_metadata(tmp_path / "facts.json").grade_sets == {}


def write_answer(predictor: Predictor, wine: tuple[float, ...]) -> dict[str, Any]:
    writer = ResponseWriter(predictor)
    (decided,) = writer.decide(np.array([predictor.predict_one(wine)]))
    answer: dict[str, Any] = json.loads(f"{{{writer.write('1', wine, decided).text}}}")
    return answer


def test_an_answer_holds_the_sets_of_the_metadata_and_an_old_bundle_none(
    evaluation: Evaluation, twin: WineData, twin_split: Split, tmp_path: Path
) -> None:
    bundle = load_bundle(make_bundle(tmp_path, evaluation, twin, twin_split.train, compiles=False))
    wine = feature_values(WineQuality(**WINE))
    predictor = Predictor(bundle)
    answer = write_answer(predictor, wine)
    assert list(answer["grade_sets"]) == ["0.8", "0.9"]
    narrow, wide = (set(grades) for grades in answer["grade_sets"].values())
    assert {answer["prediction"]} <= narrow <= wide
    assert sorted(wide) == list(range(min(wide), max(wide) + 1))
    old = Predictor(replace(bundle, metadata=replace(bundle.metadata, grade_sets={})))
    assert write_answer(old, wine)["grade_sets"] == {}


def test_sets_of_logged_answers_are_those_that_were_answered() -> None:
    wines = tabulate_wines(200, seed=5)
    shares = wines[list(PROBABILITIES)].to_numpy().tolist()
    texts = [
        json.dumps({str(grade): float(f"{p:.7g}") for grade, p in zip(GRADES, row, strict=True)}) for row in shares
    ]
    answers = wines[["prediction", TARGET]].assign(probabilities=texts)
    logged = find_answered_masses(answers)
    assert logged == pytest.approx(find_true_masses(wines, GRADES), abs=2e-4)
    answers.loc[[0, 1], "probabilities"] = ["nothing", "5"]
    assert find_answered_masses(answers).tolist() == logged[2:].tolist()


@pytest.mark.parametrize(("count", "of"), [(0, 7), (7, 7), (3, 7), (900, 1000)])
def test_the_interval_of_a_share_is_the_exact_one(count: int, of: int) -> None:
    assert bound_share(count, of) == pytest.approx(tuple(binomtest(count, of).proportion_ci()))


def test_reliability_is_measured_over_all_wines_and_shown_with_its_error(evaluation: Evaluation) -> None:
    table = evaluation.predictions["cv"]
    reliability = measure_reliability(table)
    assert sum(each.wines for each in reliability.bins) == len(table)
    assert all(each.interval[0] <= each.right <= each.interval[1] for each in reliability.bins)
    sure = table.assign(confidence=1.0)
    accuracy = (table["prediction"] == table[TARGET]).mean()
    assert measure_reliability(sure).error == pytest.approx(1 - accuracy)
    assert f"ECE {reliability.error:.3f}" in plot_reliability(evaluation).axes[0].get_title()
