"""What tidying removes and what it never does; a year of schedules, shortened, whose stores stay flat."""

import os
import shutil
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import ViewType

from experiment_tracking.registry.promotion import PROMOTED, list_champions, list_records, roll_back
from experiment_tracking.registry.versions import (
    MODEL,
    find_version,
    list_versions,
    load_version,
    register_model,
    set_alias,
)
from experiment_tracking.runs.store import EXPERIMENT, MONITORING, find_experiment
from experiment_tracking.tidy import tracked
from experiment_tracking.tidy.folders import list_downloads, list_wines
from experiment_tracking.tidy.piece import list_partials
from experiment_tracking.tidy.tidying import take_inventory
from orchestration.flows import compare_flow, tidy_flow
from settings import load_settings
from tests.benchmarks.year_study import WEEK, Schedule
from tests.conftest import Store, isolated_environment, run_at_once, run_here, seed_store
from tests.faults import EXIT, make_faults, run_alone
from tests.messages import list_missing
from tests.postgres import needs_postgres, run_postgres
from wine_data.snapshots.snapshot import keep_snapshot, read_snapshot
from wine_data.sources.load import WineData
from wine_quality_training.bundle.bundle import load_current

KEEP_DAYS, REPORTS = 14, 3
YOUNG = KEEP_DAYS * 86_400 // WEEK  # weeks


def fill(folder: Path, uri: str = "") -> None:
    """Six weeks that nobody tidied: versions 1, 3, 5 and 7 were champion, 2 is pending, 4 and 6 were refused."""
    schedule = Schedule.find(folder, KEEP_DAYS, REPORTS, uri)
    schedule.looks = 2
    schedule.retrain("the first")
    watch = schedule.watch()
    for week in range(1, 7):
        schedule.pass_week()
        schedule.retrain("a person said so" if week % 2 == 0 else "", judged=week != 1)
        schedule.monitor(watch)


@pytest.fixture(scope="module")
def untidy(empty_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untidy")
    seed_store(folder, empty_stores)
    run_alone(fill, folder)
    return folder


def open_copy(untidy: Path, folder: Path) -> Schedule:
    """The schedule of a copy, with its store open."""
    shutil.copytree(untidy, folder, dirs_exist_ok=True)
    return Schedule.find(folder, KEEP_DAYS, REPORTS)


@pytest.fixture
def schedule(untidy: Path, tmp_path: Path) -> Schedule:
    return open_copy(untidy, tmp_path)


def assert_tidied(schedule: Schedule) -> None:
    """Nothing is left to remove, and all that may be needed is there."""
    settings = schedule.settings
    assert take_inventory(settings).gone == []
    assert {*list_champions(), "2"} <= {version.number for version in list_versions()}
    for version in list_versions():
        load_version(version)
        data = read_snapshot(settings.snapshots, version.fingerprint)
        assert mlflow.MlflowClient().get_run(version.run_id).data.tags["data.fingerprint"] == data.fingerprint
    load_current(settings.serving_models)
    assert len(list(settings.monitoring_reports.glob("*/"))) == REPORTS
    runs = {run.info.run_id for run in search_all()}
    assert isinstance(settings.mlflow_artifacts, Path)
    assert {path.name for path in settings.mlflow_artifacts.iterdir() if len(path.name) == 32} <= runs


def search_all() -> list[mlflow.entities.Run]:
    experiments = [each.experiment_id for each in mlflow.search_experiments()]
    return mlflow.search_runs(experiments, run_view_type=ViewType.ALL, output_format="list")


@pytest.mark.full
def test_months_of_schedules_leave_the_stores_flat_and_every_champion_there(empty_stores: Path, tmp_path: Path) -> None:
    seed_store(tmp_path, empty_stores)
    schedule = Schedule.find(tmp_path, KEEP_DAYS, REPORTS)
    schedule.looks = 2
    weeks = list(schedule.run(weeks=12, promoted_every=5))
    assert list_champions() == ["1", "6", "11"]
    sizes = [{store: there for store, there, *_ in inventory.rows()} for inventory in weeks]
    for store in ("runs in MLflow", "kept wines", "bundles"):  # a champion stays with its run, its parent and its wines
        assert sizes[-1][store] <= sizes[YOUNG + 2][store] + 2 * len(list_champions()), store
    for store in ("reports", "reports in MLflow"):
        assert sizes[-1][store] == sizes[YOUNG + 2][store] <= REPORTS + schedule.looks
    counts = mlflow.MlflowClient().get_registered_model(MODEL).tags
    assert len(counts) == 13  # one for each question to the gate, however old
    for former in ("6", "1"):
        assert roll_back(schedule.settings.serving_models)[0].number == former
        load_version(find_version(former))
        assert load_current(schedule.settings.serving_models).metadata.version == former
    assert mlflow.MlflowClient().get_registered_model(MODEL).tags == counts


@pytest.mark.full
def test_tidying_keeps_what_champions_and_pending_challengers_need(schedule: Schedule) -> None:
    before = len(search_all())
    inventory = schedule.tidy()
    gone = [piece.name for piece in inventory.gone if piece.store == tracked.VERSIONS]
    assert gone == ["4"]  # refused long ago; 6 lately, 2 not at all, and 1, 3, 5 and 7 were champion
    assert len(search_all()) < before
    assert_tidied(schedule)
    number = schedule.retrain(judged=False).number
    assert number == "8"  # the number of one that went is not used again
    assert [record.event for record in list_records()].count(PROMOTED) == 4


@pytest.mark.full
def test_a_version_that_is_needed_since_it_was_looked_at_stays(schedule: Schedule) -> None:
    inventory = take_inventory(schedule.settings)
    set_alias("kept", "4")
    for piece in inventory.gone:
        assert piece.remove
        piece.remove()
    load_version(find_version("4"))


@pytest.mark.full
def test_a_run_that_became_a_version_since_it_was_looked_at_stays(schedule: Schedule) -> None:
    inventory = take_inventory(schedule.settings)
    runs = [run for run in search_all() if run.info.run_name == "tree of 3"]
    version = register_model(runs[-1].info.run_id)
    for piece in inventory.gone:
        assert piece.remove
        piece.remove()
    load_version(version)


@pytest.mark.full
def test_what_a_person_deleted_in_mlflow_goes_with_its_files_once_it_is_old(schedule: Schedule) -> None:
    client = mlflow.MlflowClient()
    runs = [run.info.run_id for run in search_all() if run.info.run_name == "tree of 3"]
    young, old = runs[0], runs[-1]
    look = mlflow.search_runs(experiment_names=[MONITORING], output_format="list")[REPORTS].info.run_id
    for run_id in (young, old, look):
        client.delete_run(run_id)
    schedule.tidy()
    left = {run.info.run_id for run in search_all()}
    assert {young, look} <= left
    assert old not in left
    assert not (schedule.settings.mlflow_artifacts / old).exists()


@pytest.mark.full
def test_nothing_goes_while_a_pipeline_may_use_it_again(schedule: Schedule) -> None:
    experiment = find_experiment(EXPERIMENT).experiment_id
    working = mlflow.MlflowClient().create_run(experiment, run_name="pipeline").info.run_id
    stays = {run.info.run_id for run in search_all() if run.info.experiment_id == experiment}
    schedule.tidy()
    assert stays <= {run.info.run_id for run in search_all()}
    mlflow.MlflowClient().set_terminated(working)
    schedule.tidy()
    assert_tidied(schedule)


def tidy_and_die(untidy: Path, folder: Path, step: int) -> None:
    schedule = open_copy(untidy, folder)
    with make_faults(folder, step, EXIT):
        schedule.tidy()
    (folder / "ended").touch()


@pytest.mark.full
def test_a_tidying_that_is_killed_is_finished_by_the_next(untidy: Path, tmp_path: Path) -> None:
    steps = []
    for step in range(20, 400, 37):
        folder = tmp_path / str(step)
        run_alone(tidy_and_die, untidy, folder, step)
        if (folder / "ended").exists():
            break
        steps.append(step)
        schedule = Schedule.find(folder, KEEP_DAYS, REPORTS)
        schedule.tidy()
        assert_tidied(schedule)
        roll_back(schedule.settings.serving_models)
    assert len(steps) > 3


TIDY = """
from experiment_tracking.tidy.__main__ import main
print("ready", flush=True); input(); main()
"""


@pytest.mark.full
def test_two_at_once_remove_everything_once(schedule: Schedule, tmp_path: Path) -> None:
    both = run_at_once(TIDY, ["--verbose", "--verbose"], name_settings(tmp_path))
    assert [done.returncode for done in both] == [0, 0], both
    assert_tidied(schedule)


def name_settings(folder: Path) -> dict[str, str]:
    return isolated_environment(folder) | {"WINE_KEEP_DAYS": str(KEEP_DAYS), "WINE_KEEP_REPORTS": str(REPORTS)}


@pytest.mark.full
def test_the_command_says_what_goes_and_a_dry_run_removes_nothing(schedule: Schedule, tmp_path: Path) -> None:
    planned = len(take_inventory(schedule.settings).gone)
    trial = run_here("experiment_tracking.tidy", name_settings(tmp_path), "--dry-run", "--verbose")
    assert (
        list_missing(trial.stdout, "refused versions", "reports", f"{planned} of", "nothing was removed", "Next") == []
    )
    assert trial.stdout.count("would go: ") == planned == len(take_inventory(schedule.settings).gone)
    done = run_here("experiment_tracking.tidy", name_settings(tmp_path))
    assert (trial.returncode, done.returncode) == (0, 0)
    assert list_missing(done.stdout, f"{planned} of", "are gone", "Next") == []
    assert_tidied(schedule)


@pytest.mark.full
def test_where_another_registry_serves_wines_and_bundles_stay(schedule: Schedule, tmp_path: Path) -> None:
    kept = sorted(path.name for path in schedule.settings.snapshots.glob("*/"))
    schedule.settings = schedule.settings.model_copy(update={"mlflow_uri": f"sqlite:///{tmp_path / 'another.db'}"})
    inventory = schedule.tidy()
    assert list_missing(" ".join(inventory.notes), "no version of", "another.db", "serves from") == []
    assert sorted(path.name for path in schedule.settings.snapshots.glob("*/")) == kept


@pytest.mark.full
@pytest.mark.usefixtures("prefect")
def test_a_kept_result_whose_run_is_gone_is_worked_out_again(
    store: Store, small: WineData, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in isolated_environment(store.folder).items():
        if name != "PREFECT_HOME":
            monkeypatch.setenv(name, value)
    keep_snapshot(small, load_settings().snapshots)
    plan = (small.fingerprint, 2, 42, ("DecisionTreeClassifier",))
    (first,), (second,) = compare_flow(*plan), compare_flow(*plan)
    assert second == first
    mlflow.MlflowClient().delete_run(first.run_id)
    (third,), (fourth,) = compare_flow(*plan), compare_flow(*plan)
    assert third.run_id != first.run_id
    assert fourth == third
    register_model(third.run_id)
    assert tidy_flow(return_state=True).is_completed()


@pytest.mark.full
@needs_postgres
def test_a_store_in_postgresql_is_tidied(tmp_path: Path) -> None:
    with run_postgres() as postgres:
        address = postgres.make_database("tidy")
        run_alone(fill, tmp_path, address)
        schedule = Schedule.find(tmp_path, KEEP_DAYS, REPORTS, address)
        schedule.tidy()
        assert_tidied(schedule)


def test_a_download_goes_once_it_is_old_but_for_the_one_in_use(tmp_path: Path) -> None:
    for name in ("s3/bucket/old", "s3/bucket/used", "s3/bucket/used/part", "s3/other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "wines.csv").write_text("1")
    (tmp_path / "winequality-red.csv").write_text("from UCI")
    young = [*list_downloads(tmp_path, "auto", before=time.time() - 60)]
    assert [piece.remove for piece in young] == [None] * 4
    old = [*list_downloads(tmp_path, "s3://bucket/used/part", before=time.time() + 60)]
    assert [piece.name for piece in old if piece.remove] == ["old", "other"]


def test_wines_that_a_run_uses_again_since_they_were_looked_at_stay(small: WineData, tmp_path: Path) -> None:
    about = keep_snapshot(small, tmp_path) / "about.json"
    os.utime(about, (0, 0))
    assert [piece.remove for piece in list_wines(tmp_path, {small.fingerprint}, before=1_000)] == [None]
    (piece,) = list_wines(tmp_path, {"another"}, before=1_000)
    assert piece.remove
    keep_snapshot(small, tmp_path)
    piece.remove()
    read_snapshot(tmp_path, small.fingerprint)
    os.utime(about, (0, 0))
    piece.remove()
    assert [*tmp_path.iterdir()] == []


def test_what_a_killed_process_left_half_written_goes_after_a_day(tmp_path: Path) -> None:
    for name in (".partial-abc", ".7.partial-xyz", "7", ".moving.lock.d"):
        (tmp_path / name).mkdir()
    assert [*list_partials(tmp_path)] == []
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert sorted(piece.name for piece in list_partials(tmp_path)) == [".7.partial-xyz", ".partial-abc"]
