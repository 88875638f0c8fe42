"""The project by itself: a real server, pool, deployments and worker, and a run that the schedule started."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import mlflow
import psutil
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.flows import Flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.importtools import import_object

from commands import NotThereError
from experiment_tracking.registry.promotion import PROMOTED, list_records
from experiment_tracking.runs.store import EXPERIMENT
from orchestration.batch import score_task
from orchestration.flows import compare_flow, main_flow, prepare_flow, search_flow
from orchestration.monitoring import monitoring_flow
from orchestration.services import POOL, end_process
from orchestration.tasks.wiring import prefect_server
from settings import ROOT
from tests.conftest import isolated_environment
from tests.messages import assert_failed_in_one_line, find_lines, list_missing, naming
from tests.services import Services, run_services, schedule_soon
from tests.waiting import free_port, wait_until
from tests.web import WEB
from wine_quality_training.bundle.bundle import load_current

PLAN = yaml.safe_load((ROOT / "prefect.yaml").read_text())


@pytest.fixture(scope="module")
def deployed(empty_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A server that runs, with the deployments made."""
    with run_services(tmp_path_factory.mktemp("deployed"), empty_stores) as services:
        services.do("deploy")
        yield services


def test_a_command_whose_prefect_server_is_down_says_so_before_a_run_begins() -> None:
    api = f"http://127.0.0.1:{free_port()}/api"
    refused = pytest.raises(NotThereError, match=naming(api, "PREFECT_API_URL"))
    with temporary_settings({PREFECT_API_URL: api}), refused, prefect_server():
        pass


def wait_for_end(services: Services, schedule: IntervalSchedule) -> FlowRun:
    """Wait for the first run of a schedule to end."""
    due = schedule.anchor_date + timedelta(seconds=5)
    question = {  # its parts are flow runs too, without a deployment
        "flow_runs": {
            "expected_start_time": {"before_": due.isoformat()},
            "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}},
        },
        "deployments": {"name": {"any_": ["train"]}},
    }

    def find_ended() -> list[dict[str, Any]]:
        found = WEB.post(f"{services.api}/flow_runs/filter", json=question, timeout=30).raise_for_status().json()
        return list(found)

    log = services.find_pid_file("worker").with_suffix(".log")
    return FlowRun.model_validate(
        wait_until(find_ended, f"the end of a scheduled run; see {log}", seconds=300, every=0.5)[0]
    )


def test_the_plan_names_flows_that_exist_and_no_place_of_this_machine() -> None:
    for deployment in PLAN["deployments"]:
        path = deployment["entrypoint"].replace(".py:", ".").replace("/", ".")
        assert isinstance(import_object(path), Flow)
        assert deployment["work_pool"]["name"] == POOL
        expected = "UTC" if "interval" in deployment["schedules"][0] else "Europe/Lisbon"
        assert [schedule["timezone"] for schedule in deployment["schedules"]] == [expected]
    assert str(ROOT.parent) not in (ROOT / "prefect.yaml").read_text()


@pytest.mark.parametrize("started", [main_flow, prepare_flow, compare_flow, search_flow, monitoring_flow])
def test_a_flow_that_nobody_gave_folds_or_a_seed_takes_those_of_the_settings(started: Flow[..., Any]) -> None:
    defaults = started.parameters.model_dump()["properties"]
    assert {defaults[name].get("default") for name in ("folds", "seed") if name in defaults} == {None}


def test_a_file_is_scored_for_as_long_as_it_takes() -> None:
    assert score_task.timeout_seconds is None


@pytest.mark.full
@pytest.mark.parametrize("deployment", PLAN["deployments"], ids=lambda deployment: str(deployment["name"]))
def test_a_process_of_a_worker_finds_the_flow_of_a_deployment(deployment: dict[str, Any]) -> None:
    """A new process, as a worker starts it: a file may not stand in for a package that it has not imported yet."""
    subprocess.run(
        [sys.executable, "-c", "import sys; from prefect.flows import load_flow_from_entrypoint as load; "
         "load(sys.argv[1], use_placeholder_flow=False)", deployment["entrypoint"]],
        cwd=ROOT, check=True, timeout=120,
    )  # fmt: skip


def test_to_deploy_or_work_without_a_server_says_what_to_start(tmp_path: Path) -> None:
    environment = isolated_environment(tmp_path) | {"WINE_PREFECT_PORT": str(free_port())}
    environment.pop("PREFECT_API_URL", None)
    nobody = Services(tmp_path, environment)
    for order in ("deploy", "worker"):
        assert_failed_in_one_line(nobody.order(order), 3, nobody.api, "make prefect")
    assert list_missing(nobody.do("stop"), "no worker", "no server") == []


def test_what_is_deployed_runs_by_its_schedule_until_the_services_end(empty_stores: Path, tmp_path: Path) -> None:
    with run_services(tmp_path, empty_stores) as services:
        assert "Next: make worker" in services.do("deploy")
        assert "A worker runs scheduled flows" in services.do("worker")
        with SyncPrefectClient(api=services.api) as client:  # a training that takes little time
            train = client.read_deployment_by_name("wine-quality-pipeline/train").id
            soon = schedule_soon(client, train, models=["ExtraTreesClassifier"])
        run = wait_for_end(services, soon)
        assert run.state is not None
        assert run.state.is_completed(), run.state.message
        assert run.auto_scheduled
        assert run.created_by is not None
        assert run.created_by.type == "SCHEDULE"
        mlflow.set_tracking_uri(services.environment["MLFLOW_TRACKING_URI"])
        (record,) = list_records()
        assert (record.event, record.version) == (PROMOTED, "1")
        assert record.verdict
        runs = mlflow.search_runs(experiment_names=[EXPERIMENT])
        assert set(runs["params.folds"].dropna()) == {"2"}  # as WINE_FOLDS says
        assert load_current(Path(services.environment["WINE_SERVING_MODELS"])).metadata.version == "1"
        pids = [int(services.find_pid_file(name).read_text()) for name in ("worker", "server")]
        assert services.do("stop").startswith("The worker has ended\nThe server has ended\n")
    for name in ("worker", "server"):
        assert not services.find_pid_file(name).exists()
    assert [pid for pid in pids if is_running(pid)] == []
    with pytest.raises(httpx.ConnectError):
        WEB.get(f"{services.api}/health")


@pytest.mark.full
def test_a_server_that_runs_is_not_started_twice(deployed: Services) -> None:
    pid = deployed.find_pid_file("server").read_text()
    assert find_lines(deployed.do("prefect"), deployed.api.removesuffix("/api"))
    assert deployed.find_pid_file("server").read_text() == pid


@pytest.mark.full
@pytest.mark.parametrize("again", ["make deploy", "prefect deploy --all"])
def test_deploying_again_changes_nothing(deployed: Services, again: str) -> None:
    first = deployed.list_deployments()
    assert sorted(first) == ["monitor", "score", "tidy", "train"]
    if again == "make deploy":
        deployed.do("deploy")
    else:
        subprocess.run(
            [sys.executable, "-m", *again.split()],
            cwd=ROOT, env=deployed.environment | {"PREFECT_API_URL": deployed.api}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
    assert deployed.list_deployments() == first


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody has picked up yet."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(found.strip()) and not found.startswith("Z")


def test_a_process_that_ignores_signals_is_killed() -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as stubborn:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == "here\n"
        end_process(psutil.Process(stubborn.pid), seconds=0.5)
        assert not is_running(stubborn.pid)


def test_a_server_that_logs_lives_on(tmp_path: Path) -> None:
    environment = isolated_environment(tmp_path) | {
        "WINE_PREFECT_PORT": str(free_port()),
        "PREFECT_SERVER_LOGGING_LEVEL": "DEBUG",
    }
    environment.pop("PREFECT_API_URL", None)
    services = Services(tmp_path, environment)
    try:
        services.do("prefect")
        log = services.find_pid_file("server").with_suffix(".log")
        before = log.read_text()
        assert services.list_deployments() == {}
        wait_until(lambda: len(log.read_text()) > len(before), "another line of the log")
        assert services.list_deployments() == {}
    finally:
        assert "The server has ended" in services.do("stop")


OTHERS = {
    "another program": ["sleep", "60"],
    "the worker of another project": [sys.executable, "-c", "import time; time.sleep(60)", "prefect"],
}


@pytest.mark.parametrize("command", OTHERS.values(), ids=OTHERS)
def test_a_pid_file_that_was_left_behind_ends_nobody(tmp_path: Path, command: list[str]) -> None:
    services = Services(tmp_path, isolated_environment(tmp_path) | {"WINE_PREFECT_PORT": str(free_port())})
    with subprocess.Popen(command) as other:
        services.find_pid_file("worker").parent.mkdir()
        services.find_pid_file("worker").write_text(str(other.pid))
        assert "No worker was running" in services.do("stop")
        assert is_running(other.pid)
        other.kill()
