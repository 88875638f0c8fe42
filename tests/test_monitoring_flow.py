"""What an alarm does: retrain on labelled answers, or say why not; and the whole loop once, by the drill."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import orchestration.monitoring
from commands import BadInputError
from experiment_tracking.registry.promotion import PROMOTED, REFUSED, list_records
from experiment_tracking.registry.versions import find_champion
from experiment_tracking.runs.store import open_store
from monitoring.report.record import RETRAINING, list_monitoring_runs, record_watch
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import sample_drifted
from monitoring.watch import watch_log
from orchestration.flows import compare_flow, learn_flow, main_flow
from orchestration.monitoring import TRAINING, monitoring_flow
from settings import ROOT, load_settings
from tests.conftest import Receiver, isolated_environment, run_here, seed_store, write_few_wines
from tests.test_monitoring import log_refusals, log_wines
from tests.told import find_lines, list_untold
from wine_data.schema import TARGET
from wine_data.twin.sample import sample_twin

TREES, FOLDS, ROWS, FEW = ("ExtraTreesClassifier",), 2, 400, 2_000
VINTAGE = Drift("shift", "alcohol", 1.5)
MORNING = 1_700_000_000.0


@pytest.fixture(scope="module")
def trained(
    request: pytest.FixtureRequest,
    prefect: str,  # noqa: ARG001  (needed, not used)
    empty_stores: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with a champion, in the stores of a project: of few wines, or of all that the twin has ("twin")."""
    folder = tmp_path_factory.mktemp("trained")
    seed_store(folder, empty_stores)
    if getattr(request, "param", "") != "twin":
        write_few_wines(folder / "wines", FEW)
    with pytest.MonkeyPatch.context() as patch:
        move_stores(patch, folder)
        main_flow("", FOLDS, 42, TREES)
    return folder


@pytest.fixture
def started(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which this process works in."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    move_stores(monkeypatch, tmp_path)
    settings = load_settings()
    open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    return tmp_path


def move_stores(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let this process keep everything in a folder, but for Prefect, whose server has a home of its own."""
    wines = folder / "wines"
    moved = isolated_environment(folder) | {
        "WINE_WINDOW_ROWS": str(ROWS),
        "WINE_DATA": str(wines) if wines.is_dir() else "twin",
    }
    for name, value in moved.items():
        if name != "PREFECT_HOME":
            patch.setenv(name, value)


def log(folder: Path, drift: Drift, windows: int, start: float, labels: float = 0.0) -> None:
    settings = load_settings()
    wines = sample_drifted(drift, windows * ROWS, seed=int(start) % 1000)
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
    (look,) = list_monitoring_runs()
    # nothing has come since
    assert monitoring_flow(True, TREES, FOLDS) == type(quiet)(3, "", "")
    assert list_monitoring_runs() == [look]
    # drift, and nobody has graded anything
    log(started, VINTAGE, 2, start=5_000)
    alarmed = monitoring_flow(True, TREES, FOLDS)
    assert list_untold(alarmed.alarm, "alcohol") == []
    assert list_untold(alarmed.action, "POST /feedback") == []
    assert receiver.told[-1]["alarm"] == alarmed.alarm
    assert receiver.told[-1]["action"] == alarmed.action
    # too few grades
    log(started, VINTAGE, 1, start=10_000, labels=0.1)
    assert list_untold(monitoring_flow(True, TREES, FOLDS).action, "50") == []
    # enough of them, and nobody to train
    log(started, VINTAGE, 2, start=15_000, labels=0.8)
    assert list_untold(monitoring_flow(True, TREES, FOLDS).action, TRAINING, "make deploy") == []
    # within the cool-down of a retraining that was started
    log(started, VINTAGE, 1, start=20_000, labels=0.8)
    settings = load_settings()
    record_watch(watch_log(settings), f"{RETRAINING}: some run")
    log(started, VINTAGE, 1, start=25_000)
    assert list_untold(monitoring_flow(True, TREES, FOLDS).action, "cool-down") == []


def test_the_command_ends_with_1_and_says_what_it_did_about_an_alarm(started: Path) -> None:
    log(started, VINTAGE, 2, start=60_000)
    done = run_here("orchestration.monitoring", {}, "--no-retraining", "--models", *TREES)
    assert done.returncode == 1
    assert find_lines(done.stdout, "2 windows", "Alarm", "alcohol")
    assert find_lines(done.stdout, "Next", "index.html")


@pytest.mark.usefixtures("started")
def test_a_window_in_which_everything_was_refused_is_recorded_without_reports() -> None:
    log_refusals(load_settings().log_url, 3 * ROWS, "chlorides", MORNING)
    outcome = monitoring_flow(False, TREES, FOLDS)
    assert list_untold(outcome.alarm, "chlorides refused") == []
    assert outcome.action
    assert not outcome.action.startswith(RETRAINING)
    assert Path(outcome.page).is_file()


def test_reports_that_cannot_be_drawn_leave_the_alarm_and_what_was_done_on_record(
    started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(started, VINTAGE, 2, start=40_000)

    def fail(*_: object) -> None:
        raise ImportError("no such name in a new version of the library")

    monkeypatch.setattr(orchestration.monitoring, "write_window_reports", fail)
    with pytest.raises(ImportError):
        monitoring_flow(False, TREES, FOLDS)
    look = list_monitoring_runs()[-1]
    assert list_untold(look.reason, "alcohol") == []
    assert look.action
    assert not look.action.startswith(RETRAINING)


@pytest.mark.full
def test_a_retraining_that_is_no_better_is_refused_and_the_champion_stays(started: Path) -> None:
    wines = sample_drifted(Drift("none"), 800, seed=4)
    random = np.random.default_rng(0)
    shuffled = wines.assign(**{TARGET: random.permutation(wines[TARGET].to_numpy())})  # tasters who throw dice
    log_wines(load_settings().log_url, started / "deployment" / "models", shuffled, MORNING, labels=1.0)
    result = main_flow("", FOLDS, 42, TREES, reason="a test")
    assert result.release.verdict is not None
    assert not result.release.verdict.admitted
    champion = find_champion()
    assert champion is not None
    assert champion.number == "1"
    assert list_records()[-1].event == REFUSED


@pytest.mark.full
def test_a_reason_without_labelled_answers_trains_nothing(started: Path) -> None:
    log_wines(load_settings().log_url, started / "deployment" / "models", sample_twin(20, 1), MORNING)
    with pytest.raises(BadInputError, match="POST /feedback"):
        main_flow("", FOLDS, 42, TREES, reason="a test")


@pytest.mark.full
@pytest.mark.parametrize("trained", ["twin"], indirect=True)  # with fewer, the gate cannot tell
def test_what_a_champion_learned_from_labelled_answers_the_next_scheduled_run_learns_too(started: Path) -> None:
    log(started, Drift("none"), 2, start=0)
    log(started, VINTAGE, 2, start=5_000, labels=0.8)
    settings, known = load_settings(), find_champion()
    assert known is not None
    retrained = main_flow("", FOLDS, 42, TREES, reason="drift of alcohol", labelled_since=MORNING + 4_000)
    assert retrained.release.verdict is not None
    assert [one.scored_on for one in retrained.release.verdict.comparisons] == ["recent wines", "holdout"]
    champion = find_champion()
    assert champion is not None
    assert champion.fingerprint == retrained.fingerprint
    assert "labelled answers" in champion.source
    record = list_records()[-1]
    assert (record.event, record.reason) == (PROMOTED, "drift of alcohol")
    assert learn_flow(known.fingerprint) == retrained.fingerprint
    (again,) = compare_flow(retrained.fingerprint, FOLDS, 42, TREES)
    assert again.run_id == champion.run_id  # nothing is fitted twice
    assert not watch_log(settings, now=MORNING + 30_000).alarm.raised  # the new reference knows that vintage


@pytest.mark.full
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
