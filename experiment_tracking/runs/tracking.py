"""Runs in MLflow: one parent per pipeline and one nested run per model, with all that is needed to trace a number.

A run contains its parameters, the metrics of each protocol under full names (leak-free.cv.kappa), series if there are
rounds, the wines as a dataset input, the commit, the developer and the library versions. A model's run also contains
its figures, metadata, card, and the pipeline with signature and input example. Functions refer to a run by its id, not
as MLflow's "active" run, so that threads cannot confuse their runs.
"""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from settings import ROOT
from wine_data.schema import FEATURES, ROW, feature_frame
from wine_data.sources.load import Origin
from wine_quality_training.bundle.bundle import MODEL_FILE, XGBOOST
from wine_quality_training.bundle.metadata import dump_metadata
from wine_quality_training.coverage import list_coverage, name_coverage
from wine_quality_training.evaluate import LEAK_FREE, Evaluation, Score

if TYPE_CHECKING:  # most runs have no model, and the registry's commands only read runs
    from mlflow.models.model import ModelInfo

    from wine_data.split import Split


# The lock file sets these versions. They are listed because MLflow would infer them by importing the
# model in a new process, which takes 9 to 15 s.
LIBRARIES = ("mlflow", "numpy", "pandas", "scikit-learn", XGBOOST)
METADATA, CARD, DIGEST = "facts.json", "model_card.md", "model.sha256"
KILLED, PROBLEM = "KILLED", "problem"
PIPELINE, MODEL_RUN = "pipeline", "run."  # the name of a parent run; its tags for the runs of its models


@dataclass(frozen=True)
class TrackedModel:
    """A leak-free model in the store: its run, its address in MLflow, and its scores under both protocols."""

    name: str
    run_id: str
    model_uri: str
    classifies: bool
    scores: tuple[Score, ...]


def start_run(
    experiment_id: str, name: str, data: Origin, parameters: Mapping[str, Any] = {}, tags: Mapping[str, str] = {}
) -> str:
    """Start a run with its data, code and libraries; return its id. nest_under's tags make it nested."""
    client = mlflow.MlflowClient()
    origin = {"data.source": data.source, "data.fingerprint": data.fingerprint}
    run = client.create_run(experiment_id, run_name=name, tags={**describe_code(), **origin, **tags})
    run_id = str(run.info.run_id)
    log_values(run_id, parameters)
    _log_dataset(run_id, data)
    return run_id


def nest_under(parent_id: str | None) -> dict[str, str]:
    """The tags of a nested run. The parent is passed, not found: children may run in parallel."""
    return {MLFLOW_PARENT_RUN_ID: parent_id} if parent_id else {}


def log_values(
    run_id: str,
    parameters: Mapping[str, Any] = {},
    metrics: Mapping[str, float] = {},
    series: Mapping[str, Sequence[float]] = {},
    tags: Mapping[str, str] = {},
) -> None:
    """Log everything in one write; single writes take about twice as long. A series has one value per round, from 0."""
    now = time.time_ns() // 1_000_000
    single = [Metric(name, value, now, 0) for name, value in metrics.items()]
    rounds = [Metric(name, value, now, step) for name, values in series.items() for step, value in enumerate(values)]
    mlflow.MlflowClient().log_batch(
        run_id,
        metrics=single + rounds,
        params=[Param(name, str(value)) for name, value in parameters.items()],
        tags=[RunTag(name, value) for name, value in tags.items()],
    )


def end_run(run_id: str, problem: str | BaseException = "", status: str = "FAILED") -> None:
    """End a run as FINISHED or, if there was a problem, with this status and the reason as a tag."""
    client = mlflow.MlflowClient()
    if problem:
        text = problem if isinstance(problem, str) else f"{type(problem).__name__}: {problem}"
        client.set_tag(run_id, PROBLEM, text[:5000])
    client.set_terminated(run_id, status if problem else "FINISHED")


def start_parent(experiment_id: str, data: Origin, parameters: Mapping[str, Any]) -> str:
    """Start the parent run of a pipeline; return its id."""
    return start_run(experiment_id, PIPELINE, data, parameters)


def finish_parent(run_id: str, table: str, models: Mapping[str, str]) -> None:
    """Log the two-protocol table and each model's run, also an earlier parent's, on the parent run, and end it."""
    mlflow.MlflowClient().log_text(run_id, table, "scores.md")
    log_values(run_id, tags={f"{MODEL_RUN}{name}": model_run for name, model_run in models.items()})
    end_run(run_id)


def find_tracked(experiment_id: str) -> dict[str, str]:
    """The run of each model, by name, under the newest finished parent; empty if there is none."""
    finished = f"attributes.status = 'FINISHED' and attributes.run_name = '{PIPELINE}'"
    found = mlflow.MlflowClient().search_runs([experiment_id], finished, max_results=1)
    tags = found[0].data.tags if found else {}
    return {name.removeprefix(MODEL_RUN): run_id for name, run_id in tags.items() if name.startswith(MODEL_RUN)}


def is_tracked(model: TrackedModel) -> bool:
    """Whether the run of a model is in the store; it may have been removed since."""
    try:
        return bool(mlflow.MlflowClient().get_run(model.run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def track_model(
    experiment_id: str, parent_id: str | None, data: Origin, split: "Split", evaluations: Sequence[Evaluation]
) -> TrackedModel:
    """Log one model: parameters, metrics of each protocol, a figure, metadata, card, and the leak-free pipeline itself.

    `evaluations` are all of one model and include the leak-free one. If logging fails, the run ends as failed.
    """
    leak_free = next(evaluation for evaluation in evaluations if evaluation.protocol == LEAK_FREE)
    scores = tuple(score for evaluation in evaluations for score in evaluation.scores)
    metrics = {name: value for score in scores for name, value in score.name_metrics().items()}
    metrics |= name_coverage(list_coverage(leak_free))
    run_id = start_run(experiment_id, leak_free.name, data, tags={"model": leak_free.name, **nest_under(parent_id)})
    try:
        _log_files(run_id, leak_free, evaluations, data, split)
        model = _log_pipeline(run_id, leak_free, split)
        parameters = leak_free.pipeline.named_steps["model"].get_params(deep=False)
        pickled = Path(mlflow.artifacts.download_artifacts(f"{model.artifact_path}/{MODEL_FILE}")).read_bytes()
        log_values(run_id, parameters, metrics, tags={DIGEST: sha256(pickled).hexdigest()})
    except BaseException as error:
        end_run(run_id, error)
        raise
    end_run(run_id)
    return TrackedModel(leak_free.name, run_id, str(model.model_uri), leak_free.classifies, scores)


@lru_cache
def describe_code() -> dict[str, str]:
    """Tags of the code that ran: commit, clean tree or not, developer (each "unknown" outside git), and versions."""
    changes = _run_git("status", "--porcelain")
    developer = _run_git("config", "user.name") or "unknown"
    return {
        "mlflow.user": developer,
        "mlflow.source.name": Path(sys.argv[0]).name or "python",
        "mlflow.source.git.commit": _run_git("rev-parse", "HEAD") or "unknown",
        "git.clean": "unknown" if changes is None else str(changes == "").lower(),
        "developer": f"{developer} <{_run_git('config', 'user.email') or 'unknown'}>",
        **{f"library.{library}": version(library) for library in LIBRARIES},
    }


def _run_git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _log_pipeline(run_id: str, evaluation: Evaluation, split: "Split") -> "ModelInfo":
    """Write the pipeline as an MLflow model; a serving bundle will contain the same pickle."""
    from mlflow.models import infer_signature

    wines = feature_frame(split.train).head(5)
    # MLflow warns at each call that a pickle can run any code when it is loaded. So can a skops file
    # whose own list of types is trusted. The protection is the digest, which is checked before loading.
    logging.getLogger("mlflow.sklearn").setLevel(logging.ERROR)
    mlflow.start_run(run_id=run_id, nested=True)  # else MLflow puts the model under its default experiment
    try:
        model: ModelInfo = mlflow.sklearn.log_model(
            evaluation.pipeline,
            name="model",
            serialization_format="pickle",
            signature=infer_signature(wines, evaluation.pipeline.predict(wines)),
            input_example=wines,
            pip_requirements=[f"{library}=={version(library)}" for library in LIBRARIES],
        )
    finally:
        mlflow.end_run("RUNNING")  # it is no longer MLflow's active run, but metrics and digest follow
    return model


def _log_files(
    run_id: str, leak_free: Evaluation, evaluations: Sequence[Evaluation], data: Origin, split: "Split"
) -> None:
    from experiment_tracking.registry.model_card import render_card
    from wine_quality_training.bundle.description import describe_model
    from wine_quality_training.report.figures import plot_confusion, plot_predictions, plot_reliability

    client = mlflow.MlflowClient()
    metadata = describe_model(leak_free, data, split.train)
    client.log_text(run_id, dump_metadata(metadata), METADATA)
    client.log_text(run_id, render_card(metadata, evaluations), CARD)
    if leak_free.classifies:
        client.log_figure(run_id, plot_confusion(leak_free), "figures/confusion.png")
        if "cv" in leak_free.predictions:
            client.log_figure(run_id, plot_reliability(leak_free), "figures/reliability.png")
    else:
        client.log_figure(run_id, plot_predictions([leak_free]), "figures/predictions.png")


def _log_dataset(run_id: str, data: Origin) -> None:
    """Log the wines as the run's input; the digest is the start of this project's fingerprint.

    MLflow searches for a dataset and then adds it. If two runs are the first on new wines, PostgreSQL may refuse one of
    them; on its second attempt it finds the other's dataset.
    """
    columns = [{"type": "double", "name": name, "required": False} for name in FEATURES]
    dataset = Dataset(
        name=f"{ROW} pair",
        digest=data.fingerprint[:32],
        source_type="wine_data",
        source=json.dumps({"source": data.source, "fingerprint": data.fingerprint}),
        schema=json.dumps({"mlflow_colspec": columns}),
        profile=json.dumps(data.rows),
    )
    inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
    try:
        mlflow.MlflowClient().log_inputs(run_id, inputs)
    except MlflowException as error:
        if "duplicate key" not in str(error):
            raise
        mlflow.MlflowClient().log_inputs(run_id, inputs)
