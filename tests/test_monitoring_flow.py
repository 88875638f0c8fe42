"""What an alarm does: retrain on labelled answers, or say why not; and the whole loop once, by the drill."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prefect.testing.utilities import prefect_test_harness

import orchestration.monitoring
from commands import BadInputError
from experiment_tracking.promotion import PROMOTED, REFUSED, list_records
from experiment_tracking.versions import find_champion
from monitoring.record import RETRAINING, list_looks, record_watch
from monitoring.simulate import Drift, draw_wines
from monitoring.watch import watch_log
from orchestration.flows import compare_flow, learn_flow, main_flow
from orchestration.monitoring import TRAINING, monitoring_flow
from settings import ROOT, load_settings
from tests.conftest import Receiver, isolated_environment
from tests.test_monitoring import log_refusals, log_wines
from wine_data.schema import TARGET
from wine_data.sources import WineData
from wine_data.twin import sample_twin

TREES, FOLDS, ROWS = ("ExtraTreesClassifier",), 2, 400
VINTAGE = Drift("shift", "alcohol", 1.5)
MORNING = 1_700_000_000.0


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def started(prefect: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:  # noqa: ARG001
    """A folder with a champion of the twin that everything of this module happens in, step by step."""
    folder = tmp_path_factory.mktemp("loop")
    moved = {k: v for k, v in isolated_environment(folder).items() if k != "PREFECT_HOME"}  # the harness has its own
    moved |= {"WINE_WINDOW_ROWS": str(ROWS), "WINE_DATA": "twin"}
    before = dict(os.environ)
    os.environ.update(moved)
    main_flow("twin", FOLDS, 42, TREES)
    yield folder
    os.environ.clear()
    os.environ.update(before)


def log(folder: Path, drift: Drift, windows: int, start: float, labels: float = 0.0) -> None:
    settings = load_settings()
    wines = draw_wines(drift, windows * ROWS, seed=int(start) % 1000)
    log_wines(settings.log_url, folder / "deployment" / "models", wines, MORNING + start, labels)


def test_the_loop_step_by_step(started: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINE_WEBHOOK", receiver.address)
    # too little traffic
    log_wines(load_settings().log_url, started / "deployment" / "models", sample_twin(10, 1), MORNING - 100)
    assert monitoring_flow(True, TREES, FOLDS).windows == 0
    # normal traffic
    log(started, Drift("none"), 3, start=0)
    quiet = monitoring_flow(True, TREES, FOLDS)
    assert (quiet.windows, quiet.alarm, quiet.action) == (3, "", "")
    assert Path(quiet.page).is_file()
    (look,) = list_looks()
    # nothing has come since
    assert monitoring_flow(True, TREES, FOLDS) == type(quiet)(3, "", "")
    assert list_looks() == [look]
    # drift, and nobody has graded anything
    log(started, VINTAGE, 2, start=5_000)
    alarmed = monitoring_flow(True, TREES, FOLDS)
    assert alarmed.alarm.startswith("drift of alcohol")
    assert alarmed.action.startswith("no retraining: no answer of the log has a grade")
    assert receiver.told[-1]["alarm"] == alarmed.alarm
    assert receiver.told[-1]["action"] == alarmed.action
    # too few grades
    log(started, VINTAGE, 1, start=10_000, labels=0.1)
    assert "where the gate needs 50" in monitoring_flow(True, TREES, FOLDS).action
    # enough of them, and nobody to train
    log(started, VINTAGE, 2, start=15_000, labels=0.8)
    assert f"there is no deployment {TRAINING}" in monitoring_flow(True, TREES, FOLDS).action
    # within the cool-down of a retraining that was started
    log(started, VINTAGE, 1, start=20_000, labels=0.8)
    settings = load_settings()
    record_watch(watch_log(settings), f"{RETRAINING}: some run")
    log(started, VINTAGE, 1, start=25_000)
    assert "the cool-down is not over" in monitoring_flow(True, TREES, FOLDS).action


def test_a_window_in_which_everything_was_refused_is_recorded_without_reports(
    started: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert started.is_dir()
    monkeypatch.setenv("WINE_LOG_URL", f"sqlite:///{tmp_path / 'predictions.db'}")
    log_refusals(load_settings().log_url, 3 * ROWS, "chlorides", MORNING)
    outcome = monitoring_flow(False, TREES, FOLDS)
    assert (outcome.alarm, outcome.action) == ("drift of chlorides refused", "told only")
    assert Path(outcome.page).is_file()


def test_reports_that_cannot_be_drawn_leave_the_alarm_and_what_was_done_on_record(
    started: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WINE_LOG_URL", f"sqlite:///{tmp_path / 'predictions.db'}")
    log(started, VINTAGE, 2, start=40_000)

    def fail(*_: object) -> None:
        raise ImportError("no such name in a new version of the library")

    monkeypatch.setattr(orchestration.monitoring, "write_window_reports", fail)
    with pytest.raises(ImportError):
        monitoring_flow(False, TREES, FOLDS)
    assert list_looks()[-1].action == "told only"


def test_a_retraining_that_is_no_better_is_refused_and_the_champion_stays(
    started: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WINE_LOG_URL", f"sqlite:///{tmp_path / 'predictions.db'}")
    wines = draw_wines(Drift("none"), 800, seed=4)
    random = np.random.default_rng(0)
    shuffled = wines.assign(**{TARGET: random.permutation(wines[TARGET].to_numpy())})  # tasters who throw dice
    log_wines(load_settings().log_url, started / "deployment" / "models", shuffled, MORNING, labels=1.0)
    result = main_flow("twin", FOLDS, 42, TREES, reason="a test")
    assert result.release.verdict is not None
    assert not result.release.verdict.admitted
    champion = find_champion()
    assert champion is not None
    assert champion.number == "1"
    assert list_records()[-1].event == REFUSED


def test_a_reason_without_labelled_answers_trains_nothing(
    started: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert started.is_dir()
    monkeypatch.setenv("WINE_LOG_URL", f"sqlite:///{tmp_path / 'predictions.db'}")
    log_wines(load_settings().log_url, started / "deployment" / "models", sample_twin(20, 1), MORNING)
    with pytest.raises(BadInputError, match="no answer of the log has a grade"):
        main_flow("twin", FOLDS, 42, TREES, reason="a test")


def test_what_a_champion_learned_from_labelled_answers_the_next_scheduled_run_learns_too(
    started: Path, twin: WineData
) -> None:
    settings = load_settings()
    retrained = main_flow("twin", FOLDS, 42, TREES, reason="drift of alcohol", labelled_since=MORNING + 4_000)
    assert retrained.release.verdict is not None
    assert [one.scored_on for one in retrained.release.verdict.comparisons] == ["recent wines", "holdout"]
    champion = find_champion()
    assert champion is not None
    assert champion.fingerprint == retrained.fingerprint
    assert "labelled answers" in champion.source
    record = list_records()[-1]
    assert (record.event, record.reason) == (PROMOTED, "drift of alcohol")
    assert learn_flow(twin.fingerprint) == retrained.fingerprint
    (again,) = compare_flow(retrained.fingerprint, FOLDS, 42, TREES)
    assert again.run_id == champion.run_id  # nothing is fitted twice
    assert not watch_log(settings, now=MORNING + 30_000).alarm.raised  # the new reference knows that vintage
    assert started.is_dir()


def test_the_drill_goes_through_the_whole_loop(tmp_path: Path) -> None:
    environment = isolated_environment(tmp_path) | {"WINE_MONITORING_REPORTS": str(tmp_path / "reports")}
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.drill"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=850, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    steps = (
        "version 1 is trained", "the API serves it", "No alarm", "drift of alcohol", "promotion of version 2",
        "the API answers with version 2", "version 2 on the drifted wines", "No alarm", "rolled back", "Done",
    )  # fmt: skip
    place = 0
    for step in steps:
        place = done.stdout.index(step, place)
    assert (tmp_path / "reports" / "drill.png").stat().st_size > 20_000
