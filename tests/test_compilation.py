"""The compiled form of a model answers as its pickle, or there is none."""

from typing import cast

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBRegressor

from commands import BadInputError
from deployment.predictor import SORTED_WINES, Predictor
from tests.messages import list_missing
from wine_data.schema import FEATURES, TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle.bundle import Bundle, CompiledBundle
from wine_quality_training.bundle.compilation import compile_model, prove_equal, sample_rows
from wine_quality_training.bundle.compiled import ROUNDED, CompiledModel
from wine_quality_training.bundle.decision import DecisionRule
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.bundle.graph import convert_pipeline
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.estimators import GradesFromNumbers, OrdinalClassifier, blend_grades, make_kernel_grades
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.models import impute_before, make_model

FORESTS = [RandomForestClassifier(20, random_state=1), ExtraTreesClassifier(20, random_state=1)]
TREES = [*FORESTS, DecisionTreeClassifier(random_state=1)]


def fit(estimator: object, wines: pd.DataFrame) -> Pipeline:
    return impute_before(clone(estimator)).fit(feature_frame(wines), wines[TARGET])


def describe(pipeline: Pipeline, data: WineData, wines: pd.DataFrame) -> ModelMetadata:
    return describe_model(Evaluation("a model", LEAK_FREE, pipeline, (), {}), data, wines)


@pytest.fixture(scope="module")
def forest(twin_split: Split) -> Pipeline:
    return fit(FORESTS[0], twin_split.train)


@pytest.mark.parametrize("estimator", TREES, ids=lambda estimator: f"{type(estimator).__name__}")
def test_a_compiled_model_answers_as_its_pickle(estimator: object, twin: WineData, twin_split: Split) -> None:
    pipeline = fit(estimator, twin_split.train)
    compiled = compile_model(pipeline, describe(pipeline, twin, twin_split.train))
    assert compiled.content is not None, compiled.proof
    assert compiled.proof.startswith("compiled: ")
    assert list_missing(compiled.proof, "106,505 rows") == []
    wines = feature_frame(twin_split.holdout.dropna())
    model, expected = CompiledModel(compiled.content), pipeline.predict_proba(wines)
    found = model.predict_probabilities(wines.to_numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(model.predict_one(tuple(wines.iloc[0])), found[0], rtol=0, atol=1e-12)


@pytest.mark.full
@pytest.mark.real_data
def test_the_published_forest_compiled_gives_every_published_wine_its_grade(real_data: WineData) -> None:
    pipeline = make_model("RandomForestClassifier", 42).fit(feature_frame(real_data.train), real_data.train[TARGET])
    every = feature_frame(pd.concat([real_data.train, real_data.validation]).dropna()).to_numpy()
    assert prove_equal(pipeline, CompiledModel(convert_pipeline(pipeline)), every).startswith("compiled: ")


def test_rows_with_tied_votes_are_among_those_of_a_proof(forest: Pipeline, twin: WineData, twin_split: Split) -> None:
    rows = sample_rows(describe(forest, twin, twin_split.train))
    ranked = np.sort(forest.predict_proba(pd.DataFrame(rows, columns=list(FEATURES))), axis=1)
    assert (ranked[:, -1] == ranked[:, -2]).sum() > 1000


@pytest.mark.parametrize("is_compiled", [True, False])
def test_of_many_wines_each_gets_the_prediction_that_it_gets_alone(
    forest: Pipeline, twin: WineData, twin_split: Split, is_compiled: bool
) -> None:
    metadata = describe(forest, twin, twin_split.train)
    predictor = Predictor(
        CompiledBundle(convert_pipeline(forest), metadata) if is_compiled else Bundle(forest, metadata, None)
    )
    wines = feature_frame(twin_split.holdout.dropna()).to_numpy()
    assert len(wines) > SORTED_WINES
    alone = [predictor.predict_one(tuple(wine)) for wine in wines[::20].tolist()]
    np.testing.assert_array_equal(predictor.predict_probabilities(wines)[::20], alone)


class OffByLittle(CompiledModel):
    """Its answers are right but for one probability."""

    def predict_probabilities(self, wines: np.ndarray) -> np.ndarray:
        probabilities = super().predict_probabilities(wines)
        probabilities[7, 0] += 2e-6
        return probabilities


def test_one_wrong_probability_or_another_model_is_found_out(forest: Pipeline, twin_split: Split) -> None:
    wines = feature_frame(twin_split.holdout.dropna()).to_numpy()[:50]
    off = prove_equal(forest, OffByLittle(convert_pipeline(forest)), wines)
    other = convert_pipeline(fit(RandomForestClassifier(20, random_state=2), twin_split.train))
    for proof in (off, prove_equal(forest, CompiledModel(other), wines)):
        assert proof.startswith("not compiled: ")
        assert list_missing(proof, "50 rows") == []
    assert list_missing(off, "0", "2e-06") == []


BOOSTED = GradesFromNumbers(XGBRegressor(n_estimators=30, max_depth=5, random_state=1, n_jobs=1))
KERNEL = make_kernel_grades()
SUMS = {"xgboost": BOOSTED, "kernel": KERNEL, "blend": blend_grades(FORESTS[1])}


@pytest.mark.parametrize("classifier", SUMS.values(), ids=SUMS)
def test_what_adds_up_in_32_bits_is_compiled_and_decides_as_its_pickle(
    classifier: object, twin: WineData, twin_split: Split
) -> None:
    pipeline = fit(OrdinalClassifier(classifier), twin_split.train.head(600))
    metadata = describe(pipeline, twin, twin_split.train)
    compiled = compile_model(pipeline, metadata)
    assert compiled.content is not None, compiled.proof
    assert list_missing(compiled.proof, "compiled: ", "106,505 rows", "boundary between grades") == []
    wines = feature_frame(twin_split.holdout.dropna())
    model, expected = CompiledModel(compiled.content), pipeline.predict_proba(wines)
    found = model.predict_probabilities(wines.to_numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.predict_one(tuple(wines.iloc[0])), found[0], rtol=0, atol=1e-6)
    bundle = CompiledBundle(compiled.content, metadata)
    assert Predictor(bundle).is_compiled  # its known answers are the same


class Stub:
    """Of grades 5 and 6, it gives one wine in `every` a probability of 6 of `low`, the others .3."""

    classes_, is_exact, tolerance = np.array([5, 6]), False, ROUNDED

    def __init__(self, low: float, every: int) -> None:
        self.low, self.every = low, every

    def predict_proba(self, wines: pd.DataFrame | np.ndarray) -> np.ndarray:
        six = np.where(np.arange(len(wines)) % self.every, 0.3, self.low)
        return np.column_stack([1 - six, six])

    predict_probabilities = predict_proba


@pytest.mark.parametrize(
    ("pickled", "found", "every", "begin"),
    [
        (0.499949, 0.499951, 5000, "compiled: the same grades on 10,000 rows, 2 of them"),
        (0.499949, 0.499951, 4000, "not compiled: of 10,000 rows, 3 of them"),  # too many
        (0.499940, 0.499960, 5000, "not compiled: "),  # too far from each other
    ],
)
def test_at_a_boundary_one_wine_in_5000_may_get_another_grade(
    pickled: float, found: float, every: int, begin: str
) -> None:
    pipeline, compiled = cast(Pipeline, Stub(pickled, every)), cast(CompiledModel, Stub(found, every))
    proof = prove_equal(pipeline, compiled, np.zeros((10_000, len(FEATURES))), DecisionRule(mean=5.5, slope=1.0))
    assert proof.startswith(begin)


def test_another_grade_is_found_out_away_from_a_boundary() -> None:
    pipeline, compiled = cast(Pipeline, Stub(0.4, 5000)), cast(CompiledModel, Stub(0.6, 5000))
    compiled.tolerance = 1.0
    proof = prove_equal(pipeline, compiled, np.zeros((10_000, len(FEATURES))), DecisionRule(mean=5.5, slope=1.0))
    assert list_missing(proof, "not compiled: ", "2 got another grade") == []


MANY_LEAVES = {
    "leaves of several grades": RandomForestClassifier(20, min_samples_leaf=4, random_state=1),
    "trees of one leaf": ExtraTreesClassifier(3, min_samples_leaf=500, random_state=1),
    "boosted trees of one leaf": GradesFromNumbers(XGBRegressor(n_estimators=3, gamma=1e9, n_jobs=1)),
}


@pytest.mark.parametrize("estimator", MANY_LEAVES.values(), ids=MANY_LEAVES)
def test_trees_of_any_form_answer_as_they_did(estimator: object, twin_split: Split) -> None:
    pipeline = fit(estimator, twin_split.train.head(600))
    wines = feature_frame(twin_split.holdout.dropna())
    found = CompiledModel(convert_pipeline(pipeline)).predict_probabilities(wines.to_numpy())
    np.testing.assert_allclose(found, pipeline.predict_proba(wines), rtol=0, atol=1e-6)


def test_two_grades_are_enough(twin_split: Split) -> None:
    wines = twin_split.train[twin_split.train[TARGET].isin([5, 6])].head(300)
    for estimator in (FORESTS[0], BOOSTED):
        pipeline, X = fit(estimator, wines), feature_frame(wines.dropna())
        found = CompiledModel(convert_pipeline(pipeline)).predict_probabilities(X.to_numpy())
        np.testing.assert_allclose(found, pipeline.predict_proba(X), rtol=0, atol=1e-5)


OTHERS = {
    "KNeighborsClassifier": KNeighborsClassifier(),
    "KNeighborsRegressor": GradesFromNumbers(KNeighborsRegressor()),
    "gblinear": GradesFromNumbers(XGBRegressor(n_estimators=3, booster="gblinear", n_jobs=1)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_has_no_graph_is_not_compiled(name: str, twin: WineData, twin_split: Split) -> None:
    wines = twin_split.train.head(200)
    pipeline = fit(OTHERS[name], wines)
    compiled = compile_model(pipeline, describe(pipeline, twin, wines))
    assert compiled.content is None
    assert list_missing(compiled.proof, "not compiled: ", name) == []


def test_compiling_twice_gives_the_same_bytes(forest: Pipeline) -> None:
    assert convert_pipeline(forest) == convert_pipeline(forest)


def test_what_is_no_compiled_model_is_refused() -> None:
    with pytest.raises(BadInputError, match="compiled model"):
        CompiledModel(b"not a graph")
