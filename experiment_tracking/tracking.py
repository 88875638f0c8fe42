"""Runs in MLflow: one parent a pipeline, one nested run a model, with all that is needed to trace a number."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
from mlflow.entities import Metric, Param
from mlflow.models import infer_signature

from commands import BadInputError
from wine_data.schema import feature_frame
from wine_data.sources import WineData
from wine_data.split import Sides
from wine_quality_training.evaluate import LEAK_FREE, Evaluation

EXPERIMENT = "wine-quality-experiment"
REQUIREMENTS = [f"{package}=={version(package)}" for package in ("mlflow", "scikit-learn", "numpy", "pandas")]
# What skops rebuilds when it loads one of our models, beside what is on its own list.
TRUSTED_TYPES = [
    "numpy.dtype",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
]


@dataclass(frozen=True)
class TrackedModel:
    """A leak-free model in the store: its run, and where MLflow keeps it."""

    name: str
    run_id: str
    model_uri: str


def open_store(uri: str, artifacts: Path) -> str:
    """Point MLflow at its store, make the experiment if it is new, and return the experiment's id.

    Raises:
        BadInputError: somebody deleted the experiment there.
    """
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return mlflow.create_experiment(EXPERIMENT, artifact_location=f"file://{quote(str(artifacts))}")
    if experiment.lifecycle_stage != "active":
        raise BadInputError(
            f"the experiment {EXPERIMENT} was deleted in {uri}. To bring it back: "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )
    return str(experiment.experiment_id)


def start_parent(experiment_id: str, data: WineData, parameters: dict[str, Any]) -> str:
    """Start the parent run of a pipeline and return its id."""
    run = mlflow.MlflowClient().create_run(experiment_id, run_name="pipeline", tags=_tag_data(data))
    _log_batch(run.info.run_id, parameters=parameters)
    return str(run.info.run_id)


def finish_parent(run_id: str, table: str) -> None:
    """Put the two-protocol table on the parent run and end it."""
    client = mlflow.MlflowClient()
    client.log_text(run_id, table, "scores.md")
    client.set_terminated(run_id)


def abandon_parent(run_id: str) -> None:
    """End the parent run of a pipeline that failed or was stopped."""
    mlflow.MlflowClient().set_terminated(run_id, "FAILED")


def track_model(
    experiment_id: str, parent_id: str, data: WineData, sides: Sides, evaluations: Sequence[Evaluation]
) -> TrackedModel:
    """Log one model as a nested run: parameters, metrics of each protocol, and the leak-free pipeline itself.

    Metrics are named <protocol>.<scored on>.<measure>, as in leak-free.cv.kappa.
    """
    leak_free = next(evaluation for evaluation in evaluations if evaluation.protocol == LEAK_FREE)
    tags = _tag_data(data) | {"model": leak_free.name}
    with mlflow.start_run(
        experiment_id=experiment_id, run_name=leak_free.name, parent_run_id=parent_id, nested=True, tags=tags
    ) as run:
        _log_batch(
            run.info.run_id,
            parameters={
                name: str(value) for name, value in leak_free.pipeline.named_steps["model"].get_params().items()
            },
            metrics={
                name: value
                for evaluation in evaluations
                for score in evaluation.scores
                for name, value in score.name_metrics().items()
            },
        )
        return TrackedModel(leak_free.name, run.info.run_id, _log_pipeline(leak_free, sides))


def _log_pipeline(evaluation: Evaluation, sides: Sides) -> str:
    wines = feature_frame(sides.training).head(5)
    signature = infer_signature(wines, evaluation.pipeline.predict(wines))
    logged = mlflow.sklearn.log_model(
        evaluation.pipeline,
        name="model",
        signature=signature,
        input_example=wines,
        pip_requirements=REQUIREMENTS,  # named, because inferring them imports the model anew: 9 to 15 s
        skops_trusted_types=TRUSTED_TYPES,
    )
    return str(logged.model_uri)


def _tag_data(data: WineData) -> dict[str, str]:
    return {"data.source": data.source, "data.fingerprint": data.fingerprint}


def _log_batch(run_id: str, parameters: dict[str, Any] | None = None, metrics: dict[str, float] | None = None) -> None:
    """Log everything in one write: one by one costs about twice as long."""
    now = time.time_ns() // 1_000_000
    mlflow.MlflowClient().log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in (metrics or {}).items()],
        params=[Param(name, str(value)) for name, value in (parameters or {}).items()],
    )
