"""The same wines through function, flow, registry, bundle, API and batch: the same grades, the same probabilities."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline

from deployment.batch.file import score_file
from experiment_tracking.registry.versions import CHAMPION, find_version, load_version
from tests.conftest import PipelineRun
from tests.web import WEB
from wine_data.schema import FEATURES, WineQuality, feature_array, feature_frame
from wine_data.split import Split, split_wines
from wine_quality_training.bundle.files import load_current
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import make_model

ROWS = 60


@pytest.fixture(scope="module")
def split(pipeline_run: PipelineRun) -> Split:
    data = pipeline_run.load_data()
    return split_wines(data.train, data.validation, folds=5, seed=42)


@pytest.fixture(scope="module")
def wines(split: Split) -> pd.DataFrame:
    """Complete wines, from both sides, some of them with tied votes."""
    both = pd.concat([split.train, split.holdout]).dropna()
    return feature_frame(both.sample(ROWS, random_state=7))


@pytest.fixture(scope="module")
def by_function(pipeline_run: PipelineRun, split: Split) -> Pipeline:
    """The model as the plain function fits it, with no flow around it."""
    champion = load_current(pipeline_run.serving_models).metadata.model
    return evaluate_leak_free(champion, make_model(champion, seed=42), split).pipeline


@pytest.mark.parametrize("place", ["registry", "bundle"])
def test_a_stored_model_answers_as_the_function(
    place: str, pipeline_run: PipelineRun, by_function: Pipeline, wines: pd.DataFrame
) -> None:
    mlflow.set_tracking_uri(pipeline_run.mlflow_uri)
    registry = place == "registry"
    bundle = load_version(find_version(CHAMPION)) if registry else load_current(pipeline_run.serving_models)
    assert_same(bundle.pipeline.predict(wines), bundle.pipeline.predict_proba(wines), by_function, wines)


def test_api_answers_as_the_function(api: str, by_function: Pipeline, wines: pd.DataFrame) -> None:
    bodies = [WineQuality.model_validate(row) for row in wines.to_dict("records")]
    answers = [WEB.post(f"{api}/predict", json=body.model_dump()).raise_for_status().json() for body in bodies]
    table = pd.DataFrame(feature_array(bodies), columns=list(FEATURES))
    probabilities = np.array([list(answer["probabilities"].values()) for answer in answers])
    assert_same([answer["prediction"] for answer in answers], probabilities, by_function, table)
    grades = by_function.classes_.astype(float)
    np.testing.assert_allclose([answer["expected_quality"] for answer in answers], probabilities @ grades, atol=1e-9)


def test_batch_answers_as_the_function(
    pipeline_run: PipelineRun, by_function: Pipeline, wines: pd.DataFrame, tmp_path: Path
) -> None:
    wines.to_csv(tmp_path / "wines.csv", index=False)
    scored = score_file(tmp_path / "wines.csv", pipeline_run.serving_models, tmp_path)
    answers = pd.read_parquet(scored.answers)
    assert (scored.scored, scored.refused) == (len(wines), None)
    assert_same(answers["prediction"], answers.filter(like="probability_"), by_function, wines)


def assert_same(grades: ArrayLike, probabilities: ArrayLike, model: Pipeline, wines: pd.DataFrame) -> None:
    np.testing.assert_array_equal(grades, model.predict(wines))
    np.testing.assert_allclose(probabilities, model.predict_proba(wines), rtol=0, atol=1e-6)
