"""What the gate compares, and how sure it is of a holdout that it has asked before."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline

from commands import BadInputError, RefusedError
from experiment_tracking.registry import versions
from experiment_tracking.registry.gate import FEWEST_RECENT, Comparison, Terms, Verdict, judge_challenger
from experiment_tracking.registry.paired import ACCURACY, KAPPA, RPS, Difference
from experiment_tracking.registry.promotion import list_records, promote
from experiment_tracking.registry.questions import (
    ALPHA,
    Question,
    fingerprint_holdout,
    level_of,
    list_questions,
    name_ordinal,
    pose_question,
)
from experiment_tracking.registry.versions import MODEL, Version, judge_version
from experiment_tracking.runs.tracking import track_model
from tests.benchmarks.gate_study import World, find_admissions
from tests.conftest import Store
from tests.messages import naming
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split, split_wines
from wine_quality_training.bundle.bundle import Bundle
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.evaluate import Evaluation, evaluate_leak_free, score_probabilities
from wine_quality_training.models import impute_before, make_model

SERIES = CHALLENGERS = 200
MEASURES = [KAPPA, ACCURACY, RPS]


class Exaggerating(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Rounds mean + b (expected quality - mean); its probabilities are the forest's."""

    def __init__(self, forest: Pipeline, mean: float, b: float = 1.7) -> None:
        self.forest, self.mean, self.b = forest, mean, b

    @property
    def classes_(self) -> np.ndarray:
        return np.asarray(self.forest.classes_)

    def fit(self, X: Any, y: Any) -> Self:  # noqa: ARG002
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.asarray(self.forest.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        expected = self.predict_proba(X) @ self.classes_
        grades: np.ndarray = np.clip(np.rint(self.mean + self.b * (expected - self.mean)), 3, 9).astype(int)
        return grades


def make_small(name: str, **parameters: int) -> Pipeline:
    return make_model(name, seed=42).set_params(**{f"model__{key}": value for key, value in parameters.items()})


@pytest.fixture(scope="module")
def fitted(twin_split: Split) -> dict[str, Evaluation]:
    unfitted = {
        "tree": make_small("DecisionTreeClassifier", max_depth=1),
        "deep tree": make_model("DecisionTreeClassifier", seed=42),
        "forest": make_small("ExtraTreesClassifier", n_estimators=60, n_jobs=1),
    }
    return {name: evaluate_leak_free(name, pipeline, twin_split) for name, pipeline in unfitted.items()}


def bundle_up(evaluation: Evaluation, data: WineData, split: Split, version: str) -> Bundle:
    return Bundle(evaluation.pipeline, describe_model(evaluation, data, split.train, version=version))


@pytest.fixture(scope="module")
def forest(fitted: dict[str, Evaluation], twin: WineData, twin_split: Split) -> Bundle:
    return bundle_up(fitted["forest"], twin, twin_split, "1")


def exaggerate(bundle: Bundle, split: Split) -> Bundle:
    model = Exaggerating(bundle.pipeline, split.train[TARGET].mean())
    return Bundle(model, replace(bundle.metadata, version="2"))


def pick(verdict: Verdict, measure: str) -> Comparison:
    return next(one for one in verdict.comparisons if one.measure == measure)


def test_a_model_that_exaggerates_gains_kappa_and_is_refused_by_accuracy(forest: Bundle, twin_split: Split) -> None:
    verdict = judge_challenger(exaggerate(forest, twin_split), forest, twin_split.holdout)
    assert {one.measure: one.passed for one in verdict.comparisons} == {KAPPA: True, ACCURACY: False, RPS: True}
    assert not verdict.admitted
    assert pick(verdict, KAPPA).difference > 0.05
    assert pick(verdict, ACCURACY).difference < -0.01
    shown = "\n".join(verdict.sentences())
    assert re.search(r"kappa 0\.\d{3} against 0\.\d{3}, \+0\.\d{3}, at least \+0\.\d{3} \(must exceed 0\)", shown)
    assert re.search(r"accuracy .* at least -0\.\d{3} \(must exceed -0.03\)", shown)
    assert re.search(r"RPS .* at most \+0\.000 \(must be below 0.01\)", shown)


@pytest.mark.full
@pytest.mark.real_data
def test_on_the_published_wines_it_is_refused_too(real_data: WineData) -> None:
    real_split = split_wines(real_data.train, real_data.validation, folds=5, seed=42)
    evaluation = evaluate_leak_free("forest", make_model("ExtraTreesClassifier", seed=42), real_split)
    champion = bundle_up(evaluation, real_data, real_split, "1")
    verdict = judge_challenger(exaggerate(champion, real_split), champion, real_split.holdout)
    assert pick(verdict, KAPPA).passed
    assert not pick(verdict, ACCURACY).passed


def test_a_tree_that_is_sure_of_every_grade_is_worse_than_the_shares_of_training(
    fitted: dict[str, Evaluation], forest: Bundle, twin: WineData, twin_split: Split
) -> None:
    verdict = judge_challenger(bundle_up(fitted["deep tree"], twin, twin_split, "1"), None, twin_split.holdout)
    assert pick(verdict, KAPPA).passed
    assert not pick(verdict, RPS).passed
    grades = twin_split.train[TARGET]
    shares = np.array([(grades <= grade).mean() for grade in range(3, 10)])
    of_shares = score_probabilities(
        twin_split.holdout[TARGET].to_numpy(), np.tile(shares, (len(twin_split.holdout), 1))
    )
    assert pick(verdict, RPS).rival == pytest.approx(of_shares.mean(), abs=1e-5)
    majority = (twin_split.holdout[TARGET] == grades.mode()[0]).mean()
    assert pick(verdict, ACCURACY).rival == pytest.approx(majority)
    assert judge_challenger(forest, None, twin_split.holdout).admitted


def test_a_score_of_probabilities_is_the_distance_of_a_sure_answer() -> None:
    grades = np.array([5, 5, 9])
    at_most = np.array([[0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1], [0, 0, 0.5, 0.5, 0.5, 0.5, 1]], dtype=float)
    assert score_probabilities(grades, at_most).tolist() == [0, 2, 1]


def test_a_classifier_that_knows_few_grades_is_scored_on_all(forest: Bundle, twin_split: Split) -> None:
    wines = twin_split.train[twin_split.train[TARGET].isin((5, 7))]
    shares = impute_before(DummyClassifier(strategy="prior")).fit(feature_frame(wines), wines[TARGET])
    few = Bundle(shares, replace(forest.metadata, version="2"))
    compared = pick(judge_challenger(few, forest, twin_split.holdout), RPS)
    five, grades = (wines[TARGET] == 5).mean(), twin_split.holdout[TARGET].to_numpy()
    below = np.tile([0, 0, five, five, 1, 1, 1], (len(grades), 1))
    assert compared.challenger == pytest.approx(score_probabilities(grades, below).mean())


def test_a_wine_that_is_there_often_counts_once(forest: Bundle, twin_split: Split) -> None:
    holdout = twin_split.holdout
    often = pd.concat([holdout, *[holdout.head(30)] * 50], ignore_index=True)
    once, repeated = (judge_challenger(forest, None, wines).comparisons for wines in (holdout, often))
    for one, other in zip(once, repeated, strict=True):
        assert other.wines == len(holdout)
        assert (other.challenger, other.rival, other.bound) == pytest.approx((one.challenger, one.rival, one.bound))
    with pytest.raises(BadInputError, match=naming("30", str(FEWEST_RECENT))):
        judge_challenger(forest, None, holdout, often.tail(1000))


def test_a_bound_holds_for_a_level_that_no_thousand_resamples_resolve() -> None:
    kappa, score = (Difference(measure, 0.54, 0.5, 0.01) for measure in (KAPPA, RPS))
    assert kappa.bound(0.05) == pytest.approx(0.04 - 1.645 * 0.01, abs=1e-5)
    assert kappa.bound(1e-5) == pytest.approx(0.04 - 4.265 * 0.01, abs=1e-5)
    assert score.bound(0.05) == pytest.approx(0.04 + 1.645 * 0.01, abs=1e-5)


def test_the_levels_of_a_holdout_add_up_to_five_per_cent() -> None:
    million = np.arange(1, 1_000_001)
    spent = sum(level_of(int(k)) for k in million[:1000])
    assert spent < ALPHA
    assert ALPHA * million.astype(float) ** -1.5 @ np.ones(len(million)) / 2.6123753486854883 < ALPHA
    assert [level_of(k) for k in (1, 10, 50)] == pytest.approx([0.01914, 0.000605, 0.0000541], rel=1e-3)
    assert level_of(2, level_of(1)) == pytest.approx(level_of(1) + level_of(2))


def test_a_question_says_which_it_is_and_how_sure_the_answer_must_be() -> None:
    assert [name_ordinal(number) for number in (1, 2, 3, 4, 11, 13, 22, 111, 103)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "13th", "22nd", "111th", "103rd")
    ]
    sentence = Question(50, level_of(50)).sentence()
    assert sentence == "the 50th challenger of this holdout: kappa is judged at level 0.0054 %"


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_of_many_series_without_gain_few_let_one_in(alike: float) -> None:
    random, reach = np.random.default_rng(42), Difference(KAPPA, 0.0, 0.0, 1.0)
    common, own = random.normal(size=(SERIES, 1)), random.normal(size=(SERIES, CHALLENGERS))
    gains = np.sqrt(alike) * common + np.sqrt(1 - alike) * own  # what they share is the luck of champion and wines
    needed = [-reach.bound(level_of(k)) for k in range(1, CHALLENGERS + 1)]
    assert (gains > needed).any(axis=1).sum() <= 0.05 * SERIES
    assert (gains > 1.645).any(axis=1).sum() > 0.1 * SERIES  # what the count is for


def test_by_the_gates_own_bootstrap_too_few_series_let_one_in(fitted: dict[str, Evaluation]) -> None:
    table, random = fitted["forest"].predictions["cv"], np.random.default_rng(42)
    world = World.learn(table[TARGET].to_numpy(), table["prediction"].to_numpy())
    found = [find_admissions(world, 500, 40, random) for _ in range(40)]
    assert sum(first > 0 for first, _ in found) <= 0.05 * len(found)
    assert sum(uncorrected for _, uncorrected in found) > 0.3 * len(found)


class Asking:
    """A store with a registered model, and its holdout."""

    def __init__(self, store: Store, data: WineData, split: Split, fitted: dict[str, Evaluation]) -> None:
        self.store, self.data, self.split, self.fitted = store, data, split, fitted

    def register(self, name: str) -> Version:
        tracked = track_model(self.store.experiment_id, None, self.data, self.split, [self.fitted[name]])
        return versions.register_model(tracked.run_id)

    def judge(self, version: Version) -> Verdict:
        return judge_version(version, self.split.holdout)

    def list(self) -> list[tuple[int, str]]:
        return [(question.number, question.answer) for question in list_questions(MODEL, self.split.holdout)]


@pytest.fixture
def asking(store: Store, twin: WineData, twin_split: Split, fitted: dict[str, Evaluation]) -> Iterator[Asking]:
    yield Asking(store, twin, twin_split, fitted)


def test_a_holdout_counts_its_questions_and_an_admission_hands_its_level_on(asking: Asking) -> None:
    refused = asking.judge(asking.register("deep tree"))
    tree = asking.register("tree")
    admitted = asking.judge(tree)
    assert [verdict.admitted for verdict in (refused, admitted)] == [False, True]
    promote(tree, admitted, asking.store.models)
    last = asking.judge(asking.register("forest"))
    asked = [verdict.question for verdict in (refused, admitted, last)]
    levels = [level_of(1), level_of(2), level_of(3, unused=level_of(2))]
    assert [(one.number, one.level) for one in asked if one] == list(zip((1, 2, 3), levels, strict=True))
    assert asking.list() == [(1, "refused"), (2, "admitted"), (3, "admitted" if last.admitted else "refused")]
    assert "the 3rd challenger of this holdout: kappa is judged at level 1 %" in last.sentences()


def test_the_same_question_is_not_counted_again(asking: Asking) -> None:
    tree = asking.register("tree")
    first = asking.judge(tree)
    assert asking.judge(tree) == first
    assert asking.list() == [(1, "admitted")]
    other = pose_question(MODEL, fingerprint_holdout(asking.split.holdout.head(100)), "another", "")
    assert other == Question(1, level_of(1))  # another holdout has its own count
    assert fingerprint_holdout(asking.split.holdout) == fingerprint_holdout(asking.split.holdout.iloc[::-1])


def test_the_champions_digest_is_refused_and_the_holdout_is_not_asked(asking: Asking) -> None:
    tree = asking.register("tree")
    promote(tree, asking.judge(tree), asking.store.models)
    again = asking.register("tree")
    verdict = asking.judge(again)
    assert (again.number, verdict.admitted, verdict.comparisons) == ("2", False, ())
    with pytest.raises(RefusedError, match=naming("version 2", "version 1", "digest", "without a comparison")):
        promote(again, verdict, asking.store.models)
    assert asking.list() == [(1, "admitted")]
    assert [record.event for record in list_records()] == ["promotion", "refusal"]


def test_what_cannot_be_judged_is_not_counted(asking: Asking) -> None:
    tree = asking.register("tree")
    with pytest.raises(BadInputError, match=naming(str(FEWEST_RECENT), "holdout")):
        judge_version(tree, asking.split.holdout, asking.split.holdout.head(9))
    assert asking.list() == []
    assert mlflow.MlflowClient().get_registered_model(MODEL).tags == {}


def test_after_drift_all_three_are_asked_of_the_recent_wines(forest: Bundle, twin_split: Split) -> None:
    recent = twin_split.holdout.head(200)
    verdict = judge_challenger(forest, forest, twin_split.holdout, recent, Terms(margin=0.1))
    assert [(one.scored_on, one.measure) for one in verdict.comparisons] == [
        *(("recent wines", measure) for measure in MEASURES),
        ("holdout", KAPPA),
    ]
    assert [one.passed for one in verdict.comparisons] == [False, True, True, True]
