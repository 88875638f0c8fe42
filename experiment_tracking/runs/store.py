"""The store of runs and versions: many processes can open it at once, and it can be moved.

MLflow writes absolute artifact paths into its database. If the artifacts were moved, or copied together with the
database, open_store corrects the paths. It keeps the paths of files that the new artifact folder does not contain.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import quote, unquote

import mlflow
import requests
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from commands import BadInputError, NotThereError, hide_passwords
from experiment_tracking.runs.locks import hold_lock
from settings import load_settings
from wine_data.schema import NAME

EXPERIMENT, PROMOTIONS, MONITORING = f"{NAME}-experiment", f"{NAME}-promotions", f"{NAME}-monitoring"
ANSWER_SECONDS = 10
LOCK_NUMBER = 0x57494E45  # "WINE"; PostgreSQL's advisory locks are named by numbers
MOVES_NUMBER = LOCK_NUMBER + 1  # for promotions, which open the store while they hold this lock
TIDY_NUMBER = LOCK_NUMBER + 2
# Where MLflow 3.17 keeps artifact paths, as (table, column).
_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_UNDER = "({0} = :old OR substr({0}, 1, length(:old) + 1) = :old || '/')"
_MOVED = "(:new || substr({0}, length(:old) + 1))"


def open_store(uri: str, artifacts: Path | str, *, create: bool = True) -> str:
    """Point MLflow at its store, create missing experiments, and return the id of EXPERIMENT.

    Any number of processes may do this at once, also with a new store. `artifacts` is a folder or s3://bucket/path.

    Raises:
        BadInputError: an experiment was deleted in the store, or the server needs a password.
        NotThereError: the server does not answer, or an experiment is missing that may not be created.
    """
    mlflow.set_tracking_uri(uri)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # else it reports twice that it creates tables
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # else one for each file that is read
    if hide_passwords(uri) != uri:
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # else it prints the password after each run
    database = _find_database(uri)
    with _hold_store(uri, database):
        if database and isinstance(artifacts, Path):
            _follow_move(database, artifacts)
        place = artifacts if create else None
        experiments = [_find_or_create(name, uri, place) for name in (EXPERIMENT, PROMOTIONS, MONITORING)]
    return str(experiments[0].experiment_id)


@contextmanager
def hold_store() -> Iterator[None]:
    """Lock the open store against other processes if it is a database; a server has no lock.

    Do not call open_store while holding the lock: it would wait forever.
    """
    uri = mlflow.get_tracking_uri()
    with _hold_store(uri, _find_database(uri)):
        yield


@contextmanager
def _hold_store(uri: str, database: Path | None) -> Iterator[None]:
    """Lock a database against other processes, because its tables can be created only once."""
    if database:
        with hold_lock(database.with_name(f"{database.name}.lock")):
            yield
        return
    try:
        connection = _reach_server(uri)
    except (requests.RequestException, SQLAlchemyError) as error:
        raise NotThereError(
            f"no MLflow store answers at {hide_passwords(uri)}: start it, or correct MLFLOW_TRACKING_URI"
        ) from error
    with connection:
        yield


@contextmanager
def hold_between_machines(number: int = MOVES_NUMBER) -> Iterator[None]:
    """Lock promotions, rollbacks and tidying on all machines, by a lock in each PostgreSQL that they share.

    These are the prediction log's and MLflow's store; behind an MLflow server only the first is known. All take them in
    this order. Without one there is no lock.

    Raises:
        NotThereError: a PostgreSQL does not answer.
    """
    with ExitStack() as locks:
        for uri in dict.fromkeys((load_settings().log_url, mlflow.get_tracking_uri())):
            if uri.startswith("postgresql"):
                locks.enter_context(_lock_moves(uri, number))
        yield


def _lock_moves(uri: str, number: int) -> AbstractContextManager[object]:
    try:
        return _lock_postgres(uri, number)
    except SQLAlchemyError as error:
        raise NotThereError(
            f"the lock of promotions and tidying is in {hide_passwords(uri)}, which does not answer: start it, "
            "or correct MLFLOW_TRACKING_URI or WINE_LOG_URL"
        ) from error


def _lock_postgres(uri: str, number: int) -> AbstractContextManager[object]:
    engine = create_engine(uri, connect_args={"connect_timeout": ANSWER_SECONDS}, poolclass=NullPool)
    connection = engine.connect()
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({number})")  # released with the connection
    return closing(connection)


def _reach_server(uri: str) -> AbstractContextManager[object]:
    """Check once that a server answers, because MLflow would retry for minutes; a PostgreSQL is also locked."""
    if uri.startswith("postgresql"):
        return _lock_postgres(uri, LOCK_NUMBER)
    if uri.startswith("http"):
        requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS).raise_for_status()
    return nullcontext()


def _find_database(uri: str) -> Path | None:
    """The file of a SQLite store; None for a server or another database."""
    if not uri.startswith("sqlite:"):
        return None
    name = make_url(uri).database
    return Path(name).absolute() if name else None


def name_store() -> str:
    """The address of the open store, without its password."""
    return hide_passwords(mlflow.get_tracking_uri())


def find_experiment(name: str) -> Experiment:
    """Find an experiment that open_store created. Raises BadInputError if it was deleted."""
    return _require_active(name, mlflow.get_experiment_by_name(name))


def _require_active(name: str, experiment: Experiment | None) -> Experiment:
    if experiment is None:
        raise NotThereError(f"{name_store()} has no experiment {name}: run make pipeline")
    if experiment.lifecycle_stage != "active":
        raise BadInputError(
            f"the experiment {name} was deleted in {name_store()}. To bring it back: "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )
    return experiment


def _find_or_create(name: str, uri: str, artifacts: Path | str | None) -> Experiment:
    try:
        found = mlflow.get_experiment_by_name(name)
    except MlflowException as error:
        if error.get_http_status_code() != requests.codes.unauthorized:  # type: ignore[no-untyped-call]
            raise
        raise BadInputError(
            f"the MLflow server at {hide_passwords(uri)} needs a password: "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        ) from error
    if found is None:
        if artifacts is None:
            raise NotThereError(f"{hide_passwords(uri)} has no experiment {name} yet: run make pipeline")
        location = None if uri.startswith("http") else _as_uri(artifacts)  # a tracking server has its own location
        try:
            mlflow.create_experiment(name, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # created by another process just before
                raise
        found = mlflow.get_experiment_by_name(name)
    return _require_active(name, found)


def _follow_move(database: Path, artifacts: Path) -> None:
    """Point the paths in a database to `artifacts`, for files that are there and no longer in the old folder."""
    with closing(sqlite3.connect(database, timeout=ANSWER_SECONDS)) as store:
        if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'model_versions'").fetchone():
            return
        found = store.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
        old = str(found[0]) if found else ""
        if not old.startswith("file://") or old == _as_uri(artifacts) or not artifacts.is_dir():
            return
        old_folder, beside = Path(unquote(old.removeprefix("file://"))), database.parent == artifacts.parent
        if not beside and old_folder.is_dir():
            return  # a database that several folders share keeps its artifacts where they are
        store.create_function("is_there", 1, lambda place: Path(unquote(place.removeprefix("file://"))).exists())
        places = {"old": old, "new": _as_uri(artifacts), "copied": beside and old_folder.parent != database.parent}
        kept = [
            there
            for table, column in _PATHS[1:]
            for (there,) in store.execute(
                f"SELECT is_there({_MOVED.format(column)}) FROM {table} WHERE {_UNDER.format(column)}", places
            )
        ]
        if kept and not any(kept):
            return  # another folder, without any file of this store
        with store:
            for table, column in _PATHS:
                moved, under = _MOVED.format(column), _UNDER.format(column)
                store.execute(
                    f"UPDATE {table} SET {column} = {moved} "
                    f"WHERE {under} AND (:copied OR is_there({moved}) OR NOT is_there({column}))",
                    places,
                )


def _as_uri(artifacts: Path | str) -> str:
    return f"file://{quote(str(artifacts))}" if isinstance(artifacts, Path) else artifacts
