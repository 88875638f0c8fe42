"""The project by itself: a real server, pool, deployments and worker, and a run that the schedule started."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.flows import Flow
from prefect.utilities.importtools import import_object

from experiment_tracking.registry.promotion import PROMOTED, list_records
from orchestration.services import POOL, Service
from settings import ROOT
from tests.conftest import isolated_environment, seed_store, write_few_wines
from tests.processes import run_program, run_python
from tests.told import assert_told_in_one_line, find_lines, list_untold
from tests.waiting import free_port, wait_until
from tests.web import WEB
from wine_quality_training.bundle.files import load_current

PLAN = yaml.safe_load((ROOT / "prefect.yaml").read_text())


class Services:
    """A project of its own: its folder and environment, and the orders to its services."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder = folder
        self.environment = isolated_environment(folder) | {"WINE_PREFECT_PORT": str(free_port())} | more
        self.environment.pop("PREFECT_API_URL", None)
        self.api = f"http://127.0.0.1:{self.environment['WINE_PREFECT_PORT']}/api"

    def order(self, order: str) -> "subprocess.CompletedProcess[str]":
        return run_python("-m", "orchestration.services", order, env=self.environment)

    def do(self, order: str) -> str:
        done = self.order(order)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def find(self, name: str) -> Service:
        return Service(name, self.folder / ".prefect")

    def ask(self, kind: str, **question: object) -> list[dict[str, Any]]:
        """What the server knows of deployments or flow runs."""
        answer = WEB.post(f"{self.api}/{kind}/filter", json=question, timeout=30).raise_for_status()
        return list(answer.json())

    def list_deployments(self) -> dict[str, Any]:
        return {deployment["name"]: forget_dates(deployment) for deployment in self.ask("deployments")}


def forget_dates(described: Any) -> Any:
    if isinstance(described, dict):
        passing = ("created", "updated", "status", "last_polled", "version_id", "version_info")
        return {name: forget_dates(value) for name, value in described.items() if name not in passing}
    return [forget_dates(value) for value in described] if isinstance(described, list) else described


@contextmanager
def run_services(folder: Path, empty_stores: Path) -> Iterator[Services]:
    """A project in a folder, with few wines, and a server that runs; all is ended after the block."""
    seed_store(folder, empty_stores)
    services = Services(
        folder,
        WINE_DATA=str(write_few_wines(folder / "wines")),
        PREFECT_WORKER_QUERY_SECONDS="1",
        PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="1",  # 60, else: a schedule for the next moments is missed
    )
    try:
        assert "make deploy" in services.do("prefect")
        yield services
    finally:
        services.order("stop")


@pytest.fixture(scope="module")
def deployed(empty_stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A server that runs, with the deployments made."""
    with run_services(tmp_path_factory.mktemp("deployed"), empty_stores) as services:
        services.do("deploy")
        yield services


def run_by_schedule(services: Services) -> FlowRun:
    """Give `train` one more schedule, for a small run that is due in some seconds, and wait until it has ended."""
    due = datetime.now(UTC) + timedelta(seconds=4)
    soon = IntervalSchedule(interval=timedelta(days=1), anchor_date=due, timezone="UTC")
    small = {"models": ["DecisionTreeClassifier"], "folds": 2}
    with SyncPrefectClient(api=services.api) as client:
        train = client.read_deployment_by_name("wine-quality-pipeline/train").id
        schedule = DeploymentScheduleCreate(schedule=soon, active=True, parameters=small)
        client.create_deployment_schedules(train, [schedule])
    ended = {
        "expected_start_time": {"before_": (due + timedelta(seconds=5)).isoformat()},
        "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}},
    }
    only = {"id": {"any_": [str(train)]}}  # the run's parts are flow runs too, without a deployment
    what = f"the end of a scheduled run; see {services.find('worker').log}"
    found = wait_until(lambda: services.ask("flow_runs", flow_runs=ended, deployments=only), what, 300, every=0.5)
    return FlowRun.model_validate(found[0])


def test_the_plan_names_flows_that_exist_and_no_path_of_this_machine() -> None:
    for deployment in PLAN["deployments"]:
        path = deployment["entrypoint"].replace(".py:", ".").replace("/", ".")
        assert isinstance(import_object(path), Flow)
        assert deployment["work_pool"]["name"] == POOL
        assert [schedule["timezone"] for schedule in deployment["schedules"]] == ["Europe/Lisbon"]
    assert str(ROOT.parent) not in (ROOT / "prefect.yaml").read_text()


@pytest.mark.full
@pytest.mark.parametrize("deployment", PLAN["deployments"], ids=lambda deployment: str(deployment["name"]))
def test_a_process_of_a_worker_finds_the_flow_of_a_deployment(deployment: dict[str, Any]) -> None:
    """A new process, as a worker starts it: a file may not stand in for a package that it has not imported yet."""
    load = "import sys; from prefect.flows import load_flow_from_entrypoint as load; load(sys.argv[1], False)"
    run_python("-c", load, deployment["entrypoint"], check=True)


def test_to_deploy_or_work_without_a_server_says_what_to_start(tmp_path: Path) -> None:
    nobody = Services(tmp_path)
    for order in ("deploy", "worker"):
        assert_told_in_one_line(nobody.order(order), 3, nobody.api, "make prefect")
    assert list_untold(nobody.do("stop"), "no worker", "no server") == []


def test_what_is_deployed_runs_by_its_schedule_until_the_services_end(empty_stores: Path, tmp_path: Path) -> None:
    with run_services(tmp_path, empty_stores) as services:
        assert "Next: make worker" in services.do("deploy")
        assert "A worker runs what is due" in services.do("worker")
        run = run_by_schedule(services)
        assert run.state is not None
        assert run.state.is_completed(), run.state.message
        assert run.auto_scheduled
        mlflow.set_tracking_uri(services.environment["MLFLOW_TRACKING_URI"])
        (record,) = list_records()
        assert (record.event, record.version) == (PROMOTED, "1")
        assert load_current(Path(services.environment["WINE_SERVING_MODELS"])).metadata.version == "1"
        pids = [int(services.find(name).pid_file.read_text()) for name in ("worker", "server")]
        assert services.do("stop").startswith("The worker has ended\nThe server has ended\n")
    assert not list((tmp_path / ".prefect").glob("*.pid"))
    assert [pid for pid in pids if is_running(pid)] == []
    with pytest.raises(httpx.ConnectError):
        WEB.get(f"{services.api}/health")


@pytest.mark.full
def test_a_server_that_runs_is_not_started_twice(deployed: Services) -> None:
    pid = deployed.find("server").pid_file.read_text()
    assert find_lines(deployed.do("prefect"), deployed.api.removesuffix("/api"))
    assert deployed.find("server").pid_file.read_text() == pid


@pytest.mark.full
@pytest.mark.parametrize("again", ["make deploy", "prefect deploy --all"])
def test_deploying_again_changes_nothing(deployed: Services, again: str) -> None:
    first = deployed.list_deployments()
    assert sorted(first) == ["monitor", "score", "train"]
    if again == "make deploy":
        deployed.do("deploy")
    else:
        environment = deployed.environment | {"PREFECT_API_URL": deployed.api}
        run_python("-m", *again.split(), env=environment, stdin=subprocess.DEVNULL, check=True)
    assert deployed.list_deployments() == first


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody has picked up yet."""
    state = run_program("ps", "-o", "stat=", "-p", str(pid)).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_a_service_that_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    stubborn = Service("stubborn", tmp_path)
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"
    stubborn.start([sys.executable, "-c", script], dict(os.environ))
    wait_until(lambda: "here" in stubborn.log.read_text(), "a word of the process")
    assert stubborn.stop(seconds=0.5)
    assert not stubborn.lives()


def test_a_pid_file_that_was_left_behind_ends_nobody(tmp_path: Path) -> None:
    left = Service("left", tmp_path)
    left.pid_file.write_text(str(os.getpid()))
    assert not left.lives()
    assert not left.stop()
