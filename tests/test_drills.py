"""Failure drills: what is killed, missing, locked, corrupt or full, and what the next run makes of it."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from commands import BadInputError
from experiment_tracking.registry.promotion import list_champions
from experiment_tracking.registry.versions import CHAMPION, export_version, find_version, register_model
from experiment_tracking.runs.store import open_store
from orchestration.flows import compare_flow, prepare_flow, release_flow, search_flow
from orchestration.tasks import steps
from settings import ROOT
from tests.conftest import isolated_environment
from tests.messages import naming
from tests.processes import run_module
from tests.small_disk import fill_disk, mount_small_disk
from wine_data.sources.load import TRAIN_FILE, VALIDATION_FILE, WineData
from wine_data.table.wines import COLUMNS
from wine_quality_training.bundle.bundle import load_current

FAST = ("DecisionTreeClassifier",)
FOREST = ("ExtraTreesClassifier",)

# Runs the pipeline, and stops itself at one point of it, so that the test can kill it there.
STOP = """
import os, signal, sys
import {module} as module
from commands import run_command

def stop(*arguments, **named):
    print("stopped", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

module.{function} = stop
sys.argv = ["flows", "--models", "ExtraTreesClassifier"]
from orchestration.flows import main
run_command(main)
"""


@pytest.mark.full
@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("wine_quality_training.evaluate", "evaluate_leak_free"),
        ("experiment_tracking.registry.versions", "_create_version"),
        ("wine_quality_training.bundle.bundle", "_move_to_free_name"),
    ],
    ids=["training", "registration", "export"],
)
def test_after_a_kill_the_next_run_finishes(tmp_path: Path, module: str, function: str) -> None:
    environment = isolated_environment(tmp_path) | {"WINE_DATA": "twin", "WINE_FOLDS": "2"}
    command = [sys.executable, "-c", STOP.format(module=module, function=function)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"stopped\n"
    process.kill()
    process.wait()
    os.killpg(process.pid, signal.SIGKILL)  # Prefect's temporary server outlives its flow
    models = tmp_path / "deployment" / "models"
    assert not (models / "current").exists()  # nothing half written serves
    done = run_module("orchestration.flows", environment, "--models", "ExtraTreesClassifier", seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    open_store(environment["MLFLOW_TRACKING_URI"], tmp_path / "mlartifacts")
    assert load_current(models).metadata.version == find_version(CHAMPION).number
    assert list_champions() == [find_version(CHAMPION).number]


@pytest.fixture
def here(prefect: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001  (needed, not used)
    """A folder that the flows of this process keep everything in, on a server of Prefect."""
    for name, value in isolated_environment(tmp_path).items():
        if name != "PREFECT_HOME":  # the server has its own
            monkeypatch.setenv(name, value)
    return tmp_path


def write_pair(folder: Path, data: WineData) -> None:
    folder.mkdir(exist_ok=True)
    for name, table in ((TRAIN_FILE, data.train), (VALIDATION_FILE, data.validation)):
        table[list(COLUMNS)].to_csv(folder / name, index=False)


@pytest.mark.full
def test_data_that_come_late_are_waited_for(here: Path, twin: WineData) -> None:
    threading.Timer(4.0, write_pair, (here / "wines", twin)).start()  # after the second try, before the third or fourth
    assert prepare_flow(str(here / "wines")) == twin.fingerprint


def test_corrupt_data_stop_the_run(here: Path, twin: WineData, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(here / "wines", twin)
    path = here / "wines" / TRAIN_FILE
    path.write_text(path.read_text().replace("white", "blue", 1))
    row = 2 + twin.train["type"].tolist().index("white")
    audit = Mock()
    monkeypatch.setattr(steps, "audit_wines", audit)
    start = time.monotonic()
    with pytest.raises(BadInputError, match=naming(TRAIN_FILE, "type", f"row {row}", "blue")):
        prepare_flow(str(here / "wines"))
    audit.assert_not_called()
    assert not (here / "snapshots").exists()
    assert time.monotonic() - start < 15  # it was not tried again


@pytest.fixture
def compared(here: Path, twin: WineData) -> str:  # noqa: ARG001  (needed, not used)
    """The run of a forest that was compared on the twin."""
    prepare_flow("twin")
    return compare_flow(twin.fingerprint, 2, 42, FOREST)[0].run_id


@pytest.mark.full
def test_a_store_that_is_locked_for_five_seconds_is_waited_for(here: Path, twin: WineData) -> None:
    prepare_flow("twin")
    open_store(f"sqlite:///{here / 'mlflow.db'}", here / "mlartifacts")
    store = sqlite3.connect(here / "mlflow.db", timeout=30, check_same_thread=False)
    store.execute("BEGIN EXCLUSIVE")
    threading.Timer(5, store.close).start()
    (tree,) = compare_flow(twin.fingerprint, 2, 42, FAST)
    assert tree.classifies


@pytest.mark.full
def test_a_second_run_refits_nothing_and_a_changed_file_does(here: Path, twin: WineData, compared: str) -> None:
    (again,) = compare_flow(twin.fingerprint, 2, 42, FOREST)
    assert again.run_id == compared
    changed = twin.train.assign(alcohol=twin.train["alcohol"].where(twin.train.index != 7, 12.34))
    write_pair(here / "wines", WineData(changed, twin.validation, "", ""))
    (other,) = compare_flow(prepare_flow(str(here / "wines")), 2, 42, FOREST)
    assert other.run_id != compared


@pytest.mark.full
@pytest.mark.usefixtures("here")
def test_a_search_finds_a_classifier_once(twin: WineData) -> None:
    prepare_flow("twin")
    (winner,) = search_flow(twin.fingerprint, 2, 2, 42)
    assert winner.classifies
    (again,) = search_flow(twin.fingerprint, 2, 2, 42)
    assert again.run_id == winner.run_id


@pytest.mark.full
def test_a_champion_is_not_judged_against_itself(twin: WineData, compared: str) -> None:
    first = release_flow(compared, twin.fingerprint)
    assert first.verdict is not None
    assert first.verdict.admitted
    second = release_flow(compared, twin.fingerprint)
    assert second.verdict is None
    assert second.champion == first.champion
    assert second.answer["model"]["version"] == "1"


@pytest.mark.full
def test_a_full_disk_fails_the_export_and_the_old_bundle_serves_on(here: Path, twin: WineData, compared: str) -> None:
    models = here / "deployment" / "models"
    models.mkdir(parents=True)
    with mount_small_disk(models, megabytes=80):
        release_flow(compared, twin.fingerprint)
        before = (models / "1" / "model.pkl").read_bytes()
        (tree,) = compare_flow(twin.fingerprint, 2, 7, FAST)
        fill_disk(models)
        with pytest.raises(OSError, match="No space left on device"):
            export_version(register_model(tree.run_id), models)
        assert [path.name for path in models.iterdir() if path.is_dir()] == ["1"]
        assert (models / "1" / "model.pkl").read_bytes() == before
        assert load_current(models).metadata.version == find_version(CHAMPION).number == "1"
