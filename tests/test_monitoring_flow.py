"""What an alarm does: retrain on labelled answers, or say why not; and the whole loop once, by the drill."""

import re
import shutil
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed, Running

import orchestration.monitoring
from deployment.prediction_log.findings import ALARM, DRIFTED_CHECKS, read_findings
from deployment.prediction_log.reader import read_answers
from deployment.prediction_log.tables import make_engine
from experiment_tracking.registry.promotion import PROMOTED, REFUSED, list_records
from experiment_tracking.registry.versions import CHAMPION, find_version
from experiment_tracking.runs.store import open_store
from monitoring.report.record import RETRAINING, describe_retraining, list_monitoring_runs, record_watch
from monitoring.simulate.drifts import Drift
from monitoring.simulate.traffic import sample_drifted
from monitoring.watch import watch_log
from orchestration.batch import batch_flow
from orchestration.flows import compare_flow, learn_flow, main_flow, tidy_flow
from orchestration.monitoring import TRAINING, monitoring_flow, note_bad_end, start_retraining
from orchestration.tasks.lost_runs import find_bad_end
from settings import load_settings
from tests.answers import log_grades, log_refusals, log_wines
from tests.conftest import Receiver, isolated_environment, run_here, seed_store, write_few_wines
from tests.messages import find_lines, list_missing
from tests.processes import run_module
from wine_data.schema import TARGET
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.bundle import load_current

pytestmark = pytest.mark.usefixtures("started")

TREES, FOLDS, ROWS, FEW = ("ExtraTreesClassifier",), 2, 400, 2_000
NO_DRIFT, VINTAGE = Drift("none"), Drift("shift", "alcohol", 1.5)
MORNING = 1_700_000_000.0


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, empty_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a champion, in the stores of a project: of few wines, or of all that the twin has ("twin")."""
    request.getfixturevalue("prefect")
    folder = tmp_path_factory.mktemp("trained")
    seed_store(folder, empty_stores)
    if getattr(request, "param", "") != "twin":
        write_few_wines(folder / "wines", FEW)
    with pytest.MonkeyPatch.context() as patch:
        move_stores(patch, folder)
        main_flow("", FOLDS, 42, TREES)
    return folder


@pytest.fixture
def started(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process work in a copy of that folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    move_stores(monkeypatch, tmp_path)
    settings = load_settings()
    open_store(settings.mlflow_uri, settings.mlflow_artifacts)


def move_stores(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let this process keep everything in a folder, but for Prefect, whose server has a home of its own."""
    wines = folder / "wines"
    data = {"WINE_WINDOW_ROWS": str(ROWS), "WINE_DATA": str(wines) if wines.is_dir() else "twin"}
    for name, value in (isolated_environment(folder) | data).items():
        if name != "PREFECT_HOME":
            patch.setenv(name, value)


def log(drift: Drift, windows: float, start: float, labels: float = 0.0) -> None:
    """Log windows of answers of the champion, a share of them graded, from so many seconds after MORNING on."""
    settings = load_settings()
    wines = sample_drifted(drift, int(windows * ROWS), seed=int(start) % 1000)
    log_wines(settings.log_url, load_current(settings.serving_models), wines, MORNING + start, labels)


def test_the_loop_step_by_step(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINE_WEBHOOK", receiver.address)
    # too little traffic
    log(NO_DRIFT, 0.025, start=-100)
    assert monitoring_flow(True, TREES, FOLDS).windows == 0
    # normal traffic
    log(NO_DRIFT, 3, start=0)
    quiet = monitoring_flow(True, TREES, FOLDS)
    assert (quiet.windows, quiet.alarm, quiet.action) == (3, "", "")
    assert Path(quiet.page).is_file()
    (recorded,) = list_monitoring_runs()
    # nothing has come since
    assert monitoring_flow(True, TREES, FOLDS) == type(quiet)(3, "", "")
    assert list_monitoring_runs() == [recorded]
    # drift, and nobody has graded anything
    log(VINTAGE, 2, start=5_000)
    alarmed = monitoring_flow(True, TREES, FOLDS)
    assert list_missing(alarmed.alarm, "alcohol") == []
    assert list_missing(alarmed.action, "POST /feedback") == []
    assert receiver.received[-1]["alarm"] == alarmed.alarm
    assert receiver.received[-1]["action"] == alarmed.action
    # too few grades
    log(VINTAGE, 1, start=10_000, labels=0.1)
    assert list_missing(monitoring_flow(True, TREES, FOLDS).action, "50") == []
    # enough of them, and nobody to train
    log(VINTAGE, 2, start=15_000, labels=0.8)
    assert list_missing(monitoring_flow(True, TREES, FOLDS).action, TRAINING, "make deploy") == []
    # enough of them, one graded as no wine the model knows
    settings = load_settings()
    log(VINTAGE, 1, start=20_000, labels=0.8)
    answers = read_answers(settings.log_url, since=MORNING + 20_000)
    log_grades(settings.log_url, answers["request_id"][answers["quality"].isna()][:1], 10)
    with monkeypatch.context() as patch:
        patch.setattr(orchestration.monitoring, "run_deployment", Mock(return_value=Mock(id="some-run")))
        started = start_retraining(watch_log(settings), settings, TREES, FOLDS)
    assert list_missing(started, RETRAINING, "labelled answers", "1 grades", "some-run") == []
    # within the cool-down of a retraining that was started
    record_watch(watch_log(settings), f"{RETRAINING}: some run")
    log(VINTAGE, 1, start=25_000)
    assert list_missing(monitoring_flow(True, TREES, FOLDS).action, "cool-down") == []


@pytest.mark.parametrize("end", [Crashed, Failed, Cancelled])
def test_a_retraining_that_came_to_nothing_is_asked_for_again(
    end: Callable[[], State[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log(VINTAGE, 2, start=80_000, labels=0.8)
    with get_client(sync_client=True) as client:
        lost = client.create_flow_run(main_flow, state=end())
    record_watch(watch_log(load_settings()), describe_retraining("labelled answers", str(lost.id)))
    monkeypatch.setattr(orchestration.monitoring, "run_deployment", Mock(return_value=Mock(id="another-run")))
    again = monitoring_flow(True, TREES, FOLDS)  # nothing has come since, and the cool-down would not be over
    assert list_missing(again.action, RETRAINING, "another-run") == []
    ended = list_monitoring_runs()[0].describe_action()
    assert list_missing(ended, end().type.value.lower(), "no retraining") == []
    assert ended in unescape(Path(again.page).read_text())
    assert monitoring_flow(True, TREES, FOLDS).action == again.action


def test_after_three_bad_ends_in_a_row_alarms_start_no_retraining_until_one_went_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log(VINTAGE, 2, start=90_000, labels=0.8)
    watch = watch_log(load_settings())
    monkeypatch.setattr(orchestration.monitoring, "run_deployment", Mock(return_value=Mock(id="another-run")))

    def end_badly() -> str:
        with get_client(sync_client=True) as client:
            lost = client.create_flow_run(main_flow, state=Failed())
        record_watch(watch, describe_retraining("labelled answers", str(lost.id)))
        assert list_missing(note_bad_end(), "failed") == []
        return start_retraining(watch, load_settings(), TREES, FOLDS)

    assert [end_badly().startswith(RETRAINING) for _ in range(3)] == [True, True, False]
    log(VINTAGE, 1, start=95_000)
    stopped = monitoring_flow(True, TREES, FOLDS)
    assert list_missing(stopped.action, "no retraining", "last 3", "failed", TRAINING, "by hand") == []
    assert stopped.action in unescape(Path(stopped.page).read_text())
    with get_client(sync_client=True) as client:
        client.create_flow_run(main_flow, state=Running())
        assert not start_retraining(watch, load_settings(), TREES, FOLDS).startswith(RETRAINING)
        mended = client.create_flow_run(main_flow)
        client.set_flow_run_state(mended.id, Running(), force=True)
        client.set_flow_run_state(mended.id, Completed(), force=True)
    assert start_retraining(watch, load_settings(), TREES, FOLDS).startswith(RETRAINING)
    assert [end_badly().startswith(RETRAINING) for _ in range(3)] == [True, True, False]


def hang() -> None:
    """Wait in small steps: Prefect cannot use SIGALRM, which pytest-timeout has, and stops between two of them."""
    for _ in range(3_000):
        time.sleep(0.1)


def test_a_run_that_hangs_between_its_tasks_fails_once_and_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestration.monitoring, "note_bad_end", hang)
    hangs = monitoring_flow.with_options(timeout_seconds=5)
    state = hangs(False, return_state=True)
    assert (state.name, state.type.value) == ("TimedOut", "FAILED")
    with get_client(sync_client=True) as client:
        assert state.state_details.flow_run_id
        assert client.read_flow_run(state.state_details.flow_run_id).run_count == 1
    assert find_bad_end(str(state.state_details.flow_run_id)) == "failed"
    for scheduled in (main_flow, monitoring_flow, tidy_flow, batch_flow):
        assert (bool(scheduled.timeout_seconds), scheduled.retries) == (True, 0), scheduled.name


def test_the_command_ends_with_1_and_says_what_it_did_about_an_alarm() -> None:
    log(VINTAGE, 2, start=60_000)
    done = run_here("orchestration.monitoring", {}, "--no-retraining", "--models", *TREES)
    assert done.returncode == 1
    assert find_lines(done.stdout, "2 windows", "Alarm", "alcohol")
    assert find_lines(done.stdout, "Next", "index.html")
    found = read_findings(make_engine(load_settings().log_url))  # for /metrics
    assert (found[ALARM, ""], found[DRIFTED_CHECKS, ""] >= 1) == (1, True)


def test_a_window_in_which_everything_was_refused_is_recorded_without_reports() -> None:
    log_refusals(load_settings().log_url, 3 * ROWS, "chlorides", MORNING)
    outcome = monitoring_flow(False, TREES, FOLDS)
    assert list_missing(outcome.alarm, "chlorides refused") == []
    assert outcome.action
    assert not outcome.action.startswith(RETRAINING)
    assert Path(outcome.page).is_file()


def test_an_alarm_is_recorded_even_if_its_reports_cannot_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    log(VINTAGE, 2, start=40_000)
    monkeypatch.setattr(orchestration.monitoring, "write_window_reports", Mock(side_effect=ImportError))
    with pytest.raises(ImportError):
        monitoring_flow(False, TREES, FOLDS)
    recorded = list_monitoring_runs()[-1]
    assert list_missing(recorded.reason, "alcohol") == []
    assert recorded.action
    assert not recorded.action.startswith(RETRAINING)


@pytest.mark.full
def test_a_retraining_that_is_no_better_is_refused_and_the_champion_stays() -> None:
    settings, wines = load_settings(), sample_twin(800, seed=4)
    wines[TARGET] = np.random.default_rng(0).permutation(wines[TARGET])  # tasters who throw dice
    log_wines(settings.log_url, load_current(settings.serving_models), wines, MORNING, labels=1.0)
    result = main_flow("", FOLDS, 42, TREES, reason="a test")
    assert result.release.verdict is not None
    assert not result.release.verdict.admitted
    assert find_version(CHAMPION).number == "1"
    assert list_records()[-1].event == REFUSED


@pytest.mark.full
@pytest.mark.parametrize("trained", ["twin"], indirect=True)  # with fewer, the gate cannot tell
def test_what_a_champion_learned_from_labelled_answers_the_next_scheduled_run_learns_too() -> None:
    log(NO_DRIFT, 2, start=0)
    log(VINTAGE, 2, start=5_000, labels=0.8)
    settings, known = load_settings(), find_version(CHAMPION)
    retrained = main_flow("", FOLDS, 42, TREES, reason="drift of alcohol", labelled_since=MORNING + 4_000)
    assert retrained.release.verdict is not None
    assert [one.scored_on for one in retrained.release.verdict.comparisons] == [*["recent wines"] * 3, "holdout"]
    champion = find_version(CHAMPION)
    assert champion.fingerprint == retrained.fingerprint
    assert "labelled answers" in champion.source
    record = list_records()[-1]
    assert (record.event, record.reason) == (PROMOTED, "drift of alcohol")
    assert learn_flow(known.fingerprint) == retrained.fingerprint
    (again,) = compare_flow(retrained.fingerprint, FOLDS, 42, TREES)
    assert again.run_id == champion.run_id  # nothing is fitted twice
    assert not watch_log(settings, now=MORNING + 30_000).alarm.raised  # the new reference knows that vintage


@pytest.mark.full
def test_the_drill_goes_through_the_whole_loop(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("drill")
    done = run_module("orchestration.drill", isolated_environment(folder), seconds=850)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [
        "version 1 is trained",
        "the API serves it",
        "No alarm",
        "drift of alcohol",
        "promotion of version 2",
        "the API answers with version 2",
        "version 2 on the drifted wines",
        "No alarm",
        "rolled back",
        "Done",
    ]
    assert re.search(".*".join(steps), done.stdout, re.DOTALL)
    assert (folder / "reports" / "drill.png").stat().st_size > 20_000
