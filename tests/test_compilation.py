"""The compiled form of a model answers as its pickle, or there is none."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier

from commands import BadInputError
from tests.messages import list_missing
from wine_data.schema import FEATURES, TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle.compilation import compile_model, convert_pipeline, prove_equal, sample_rows
from wine_quality_training.bundle.compiled import CompiledModel
from wine_quality_training.bundle.description import describe_model
from wine_quality_training.bundle.metadata import ModelMetadata
from wine_quality_training.estimators import GradesFromNumbers, KernelRegressor, blend_grades
from wine_quality_training.evaluate import LEAK_FREE, Evaluation
from wine_quality_training.models import impute_before, make_model

FORESTS = [RandomForestClassifier(20, random_state=1), ExtraTreesClassifier(20, random_state=1)]
TREES = [*FORESTS, DecisionTreeClassifier(random_state=1)]


def fit(estimator: object, wines: pd.DataFrame) -> Pipeline:
    return impute_before(estimator).fit(feature_frame(wines), wines[TARGET])


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


BLEND = blend_grades(ExtraTreesClassifier(5, random_state=1))


@pytest.mark.parametrize("estimator", [GradesFromNumbers(KernelRegressor()), BLEND], ids=["by itself", "in a blend"])
def test_what_has_no_converter_is_not_compiled(estimator: object, twin: WineData, twin_split: Split) -> None:
    wines = twin_split.train.head(200)
    pipeline = fit(estimator, wines)
    compiled = compile_model(pipeline, describe(pipeline, twin, wines))
    assert compiled.content is None
    assert compiled.proof.startswith("not compiled: ")
    assert "GradesFromNumbers" in compiled.proof


def test_compiling_twice_gives_the_same_bytes(forest: Pipeline) -> None:
    assert convert_pipeline(forest) == convert_pipeline(forest)


def test_what_is_no_compiled_model_is_refused() -> None:
    with pytest.raises(BadInputError, match="compiled model"):
        CompiledModel(b"not a graph")
