"""What may go from MLflow: refused versions, runs that nobody needs with their models, reports of old windows.

A run goes with its metrics, files and models for good, as `mlflow gc` does it, which knows no ages of models and would
also empty the trash of other experiments. Each step leaves what the next tidying finds again: a run is marked as
deleted, its files go, and its row goes last.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import mlflow
from mlflow.entities import LoggedModel, Run, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from atomic_files import DAY
from experiment_tracking.registry.promotion import divide_versions, remove_refused
from experiment_tracking.registry.versions import Version
from experiment_tracking.runs.store import EXPERIMENT, MONITORING, find_experiment, name_store
from experiment_tracking.runs.tracking import MODEL_RUN, PIPELINE
from experiment_tracking.tidy.piece import Piece, measure_folder
from settings import load_settings

VERSIONS, RUNS, COPIES = "refused versions", "runs in MLflow", "reports in MLflow"
REPORTS, REMOVED = "reports", "removed"  # monitoring's artifacts, and their tag once they are gone
SERVED = "mlflow-artifacts:"  # artifacts that a server keeps and sends
WORKING_DAYS = 2  # a pipeline that is RUNNING for longer was killed


@dataclass(frozen=True)
class Tracked:
    """What is in MLflow: the versions that stay, the fingerprints of wines that runs need, and the pieces.

    `obstacle` says why runs and versions cannot be removed from here; it is "" if they can.
    """

    versions: tuple[Version, ...]
    fingerprints: frozenset[str]
    pieces: tuple[Piece, ...]
    obstacle: str


def list_tracked(before: float, monitored_before: float, reports: int, models: Path) -> Tracked:
    """Look through MLflow.

    Args:
        before: seconds since 1970; runs and refusals from then on stay.
        monitored_before: the same for monitoring's runs.
        reports: the newest runs of monitoring that keep their reports.
        models: the folder of the serving bundles, where the lock of promotions is.
    """
    then = datetime.fromtimestamp(before, UTC)
    kept, refused = divide_versions(then)
    copies = _search(MONITORING)
    stay = {run.info.run_id for run in copies if _ended(run) >= monitored_before}
    active = [run for run in copies if run.info.run_id in stay and run.info.lifecycle_stage == "active"]
    pieces = [*_list_copies(active, reports)]
    runs = _search(EXPERIMENT)
    needed, obstacle = {run.info.run_id for run in runs}, _find_obstacle()
    if not obstacle:
        needed = _find_needed(runs, kept, before)
        pieces += [Piece(VERSIONS, one.number, 0, partial(remove_refused, one.number, then, models)) for one in refused]
        models_by_run = _list_models(find_experiment(EXPERIMENT).experiment_id)
        pieces += _list_runs(runs, needed, models_by_run)
        pieces += _list_left(models_by_run, needed, before)
        pieces += _list_runs(copies, stay, {})
    data = {run.data.tags.get("data.fingerprint", "") for run in runs if run.info.run_id in needed}
    return Tracked(tuple(kept), frozenset(data | {version.fingerprint for version in kept}), tuple(pieces), obstacle)


def _find_obstacle() -> str:
    if not _is_database():
        return (
            f"{name_store()} is an MLflow server, which removes nothing for good. Tidy where its database can be "
            "reached, with the database's address in MLFLOW_TRACKING_URI"
        )
    location = find_experiment(EXPERIMENT).artifact_location
    if location.startswith(SERVED) and _locate(location).startswith("file:") and not _find_folder(location).is_dir():
        return (
            f"the artifacts of {name_store()} are not in {load_settings().mlflow_artifacts}. Set WINE_MLFLOW_ARTIFACTS "
            "to the place that its server has as --artifacts-destination"
        )
    return ""


def _is_database() -> bool:
    return hasattr(_open_backend(), "_hard_delete_run")


def _open_backend() -> Any:
    """The store behind MLflow's client, whose way to remove for good is that of `mlflow gc` and has no public name."""
    return _get_store()  # type: ignore[no-untyped-call]


def _search(experiment: str) -> list[Run]:
    """All runs of an experiment, deleted ones too, the newest first."""
    ids = [find_experiment(experiment).experiment_id]
    return mlflow.search_runs(ids, run_view_type=ViewType.ALL, output_format="list")


def _ended(run: Run) -> float:
    """When a run ended, or, where it was killed, began."""
    return float(run.info.end_time or run.info.start_time) / 1000


def _find_needed(runs: Sequence[Run], versions: Sequence[Version], before: float) -> set[str]:
    """The runs that stay: young ones, those of versions with their parents, and what pipelines that stay used again."""
    pipelines = [run for run in runs if run.info.run_name == PIPELINE and run.info.lifecycle_stage == "active"]
    since = time.time() - WORKING_DAYS * DAY
    if any(run.info.status == "RUNNING" and run.info.start_time / 1000 >= since for run in pipelines):
        return {run.info.run_id for run in runs}  # it may use any run again, and says which at its end
    finished = [run.info.run_id for run in pipelines if run.info.status == "FINISHED"]
    stay = {run.info.run_id for run in runs if _ended(run) >= before} | set(finished[:1])
    tags = {run.info.run_id: run.data.tags for run in runs}
    used = [tags[run_id].items() for run_id in finished if run_id in stay]
    ours = {version.run_id for version in versions}
    parents = {tags[run_id].get(MLFLOW_PARENT_RUN_ID, "") for run_id in ours & tags.keys()}
    again = {run_id for pairs in used for name, run_id in pairs if name.startswith(MODEL_RUN)}
    return stay | ours | parents | again


def _list_copies(runs: Sequence[Run], most: int) -> Iterator[Piece]:
    """The reports of monitoring's runs, the newest first; the first `most` stay."""
    for place, run in enumerate(runs):
        if run.data.tags.get(REPORTS) != REMOVED:
            size = measure_folder(_find_folder(run.info.artifact_uri) / REPORTS)
            if size or not _locate(run.info.artifact_uri).startswith("file:"):
                yield Piece(COPIES, run.info.run_id, size, partial(_remove_copy, run) if place >= most else None)


def _remove_copy(run: Run) -> None:
    _remove_artifacts(run.info.artifact_uri, REPORTS)
    mlflow.MlflowClient().set_tag(run.info.run_id, REPORTS, REMOVED)


def _list_runs(runs: Sequence[Run], needed: set[str], models: dict[str, list[LoggedModel]]) -> Iterator[Piece]:
    """Runs with their models, which are taken from `models`."""
    for run in runs:
        run_id, own = run.info.run_id, models.pop(run.info.run_id, [])
        folders = [_find_folder(uri) for uri in (run.info.artifact_uri, *(model.artifact_location for model in own))]
        size = sum(map(measure_folder, folders)) - measure_folder(folders[0] / REPORTS)
        yield Piece(RUNS, run_id, size, None if run_id in needed else partial(_remove_run, run, own))


def _list_left(models: dict[str, list[LoggedModel]], needed: set[str], before: float) -> Iterator[Piece]:
    """Old models whose run is gone, as `mlflow gc` leaves them."""
    for run_id, left in models.items():
        for model in left if run_id not in needed else ():
            if model.creation_timestamp / 1000 < before:
                size = measure_folder(_find_folder(model.artifact_location))
                yield Piece(RUNS, model.model_id, size, partial(_remove_model, model))


def _list_models(experiment_id: str) -> dict[str, list[LoggedModel]]:
    """All logged models by their run, deleted ones too."""
    client, store, token = mlflow.MlflowClient(), _open_backend(), None
    found: list[LoggedModel] = []
    while token is None or token:
        page = client.search_logged_models([experiment_id], page_token=token)
        found, token = [*found, *page], page.token or ""
    deleted = [store.get_logged_model(each, allow_deleted=True) for each in store._get_deleted_logged_models()]
    models = defaultdict(list)
    for model in [*found, *(each for each in deleted if each.experiment_id == experiment_id)]:
        models[model.source_run_id].append(model)
    return models


def _remove_run(run: Run, models: Sequence[LoggedModel]) -> None:
    """Remove a run for good, unless it has become a version meanwhile."""
    run_id, client = run.info.run_id, mlflow.MlflowClient()
    if client.search_model_versions(f"run_id = '{run_id}'"):
        return
    if run.info.lifecycle_stage == "active":
        client.delete_run(run_id)
    for model in models:
        _remove_model(model)
    _remove_files(run.info.artifact_uri)
    _open_backend()._hard_delete_run(run_id)


def _remove_model(model: LoggedModel) -> None:
    store = _open_backend()
    if model.model_id not in store._get_deleted_logged_models():
        store.delete_logged_model(model.model_id)
    _remove_files(model.artifact_location)
    store._hard_delete_logged_model(model.model_id)


def _remove_files(uri: str) -> None:
    """Remove the artifacts of a run or model, wherever they are, and the folder around them here."""
    _remove_artifacts(uri)
    around = _find_folder(uri).parent
    if _locate(uri).startswith("file:") and around.is_dir() and not any(around.iterdir()):
        around.rmdir()


def _locate(uri: str) -> str:
    """The address of artifacts; beside the server's database, those that it keeps are in WINE_MLFLOW_ARTIFACTS."""
    if not uri.startswith(SERVED) or not _is_database():
        return uri
    place, path = load_settings().mlflow_artifacts, uri.removeprefix(SERVED).lstrip("/")
    return (place.absolute() / path).as_uri() if isinstance(place, Path) else f"{place}/{path}"


def _remove_artifacts(uri: str, part: str | None = None) -> None:
    get_artifact_repository(_locate(uri)).delete_artifacts(part)  # type: ignore[no-untyped-call]


def _find_folder(uri: str) -> Path:
    """The folder of artifacts on this machine; for others one that is not there."""
    return Path(unquote(_locate(uri).removeprefix("file://")))
