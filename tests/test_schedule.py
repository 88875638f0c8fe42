"""The project by itself: a real server, pool, deployments and worker, and a run that the schedule started."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
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

from experiment_tracking.promotion import PROMOTED, list_records
from orchestration.services import POOL, Service
from settings import ROOT
from tests.conftest import free_port, isolated_environment
from wine_quality_training.bundle import load_current

PLAN = yaml.safe_load((ROOT / "prefect.yaml").read_text())


@dataclass(frozen=True)
class Services:
    """A project of its own: its folder, its environment, and what each order printed."""

    folder: Path
    environment: dict[str, str]

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.environment['WINE_PREFECT_PORT']}/api"

    def order(self, order: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchestration.services", order],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def do(self, order: str) -> str:
        done = self.order(order)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def find(self, name: str) -> Service:
        return Service(name, self.folder / ".prefect")

    def list_deployments(self) -> dict[str, Any]:
        """All that the server knows of the deployments, without the dates."""
        found = httpx.post(f"{self.api}/deployments/filter", json={}, timeout=30).raise_for_status().json()
        return {deployment["name"]: forget_dates(deployment) for deployment in found}


def forget_dates(told: Any) -> Any:
    if isinstance(told, dict):
        passing = ("created", "updated", "status", "last_polled", "version_id", "version_info")
        return {name: forget_dates(value) for name, value in told.items() if name not in passing}
    return [forget_dates(value) for value in told] if isinstance(told, list) else told


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A server that runs, with the deployments made; ended after the tests whatever happened."""
    folder = tmp_path_factory.mktemp("by itself")
    environment = isolated_environment(folder) | {
        "WINE_DATA": "twin",
        "WINE_PREFECT_PORT": str(free_port()),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",  # 60, else: a schedule for the next moments is missed
    }
    environment.pop("PREFECT_API_URL", None)
    started = Services(folder, environment)
    try:
        assert "Next: make deploy" in started.do("prefect")
        yield started
    finally:
        started.order("stop")
    assert not started.find("server").lives()


@pytest.fixture(scope="module")
def deployed(services: Services) -> Services:
    assert "Next: make worker" in services.do("deploy")
    return services


@pytest.fixture(scope="module")
def scheduled_run(deployed: Services) -> FlowRun:
    """The run of `train` that a schedule started on a real worker, some seconds after it was made."""
    assert "A worker runs what is due" in deployed.do("worker")
    with SyncPrefectClient(api=deployed.api) as client:
        train = client.read_deployment_by_name("wine-quality-pipeline/train")
        soon = IntervalSchedule(
            interval=timedelta(days=1), anchor_date=datetime.now(UTC) + timedelta(seconds=20), timezone="UTC"
        )
        client.create_deployment_schedules(train.id, [DeploymentScheduleCreate(schedule=soon, active=True)])
    return wait_for_end(deployed, soon)


def wait_for_end(services: Services, schedule: IntervalSchedule, seconds: float = 400) -> FlowRun:
    """Wait for the first run of a schedule to end."""
    due = schedule.anchor_date + timedelta(seconds=5)
    question = {  # its parts are flow runs too, without a deployment
        "flow_runs": {"expected_start_time": {"before_": due.isoformat()}},
        "deployments": {"name": {"any_": ["train"]}},
    }
    deadline = time.monotonic() + seconds
    told: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):  # two cores that train leave the server slow at times
            told = httpx.post(f"{services.api}/flow_runs/filter", json=question, timeout=30).raise_for_status().json()
        if told and told[0]["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return FlowRun.model_validate(told[0])
        time.sleep(1)
    log = services.find("worker").log.read_text()[-3000:]
    raise AssertionError(f"no run ended within {seconds:g} s: {json.dumps(told)[:1000]}\n{log}")


def test_the_plan_names_flows_that_exist_and_no_place_of_this_machine() -> None:
    for deployment in PLAN["deployments"]:
        path = deployment["entrypoint"].replace(".py:", ".").replace("/", ".")
        assert isinstance(import_object(path), Flow)
        assert deployment["work_pool"]["name"] == POOL
        assert [schedule["timezone"] for schedule in deployment["schedules"]] == ["Europe/Lisbon"]
    assert str(ROOT.parent) not in (ROOT / "prefect.yaml").read_text()


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
        done = nobody.order(order)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert done.stderr.endswith(": make prefect\n")
    assert nobody.do("stop").startswith("No worker was running\nNo server was running\n")


def test_a_server_that_runs_is_not_started_twice(services: Services) -> None:
    pid = services.find("server").pid_file.read_text()
    assert "runs already" in services.do("prefect")
    assert services.find("server").pid_file.read_text() == pid


def test_deploying_twice_changes_nothing(deployed: Services) -> None:
    first = deployed.list_deployments()
    assert sorted(first) == ["monitor", "score", "train"]
    deployed.do("deploy")
    assert deployed.list_deployments() == first


def test_plain_prefect_deploy_works_too(deployed: Services) -> None:
    first = deployed.list_deployments()
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "deploy", "--all"],
        cwd=ROOT, env=deployed.environment | {"PREFECT_API_URL": deployed.api}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert deployed.list_deployments() == first


def test_a_run_that_the_schedule_started_finishes(scheduled_run: FlowRun) -> None:
    assert scheduled_run.state is not None
    assert scheduled_run.state.is_completed(), scheduled_run.state.message
    assert scheduled_run.auto_scheduled
    assert scheduled_run.created_by is not None
    assert scheduled_run.created_by.type == "SCHEDULE"


def test_its_verdict_is_recorded_and_its_model_serves(scheduled_run: FlowRun, deployed: Services) -> None:
    assert scheduled_run.name
    mlflow.set_tracking_uri(deployed.environment["MLFLOW_TRACKING_URI"])
    (record,) = list_records()
    assert (record.event, record.version) == (PROMOTED, "1")
    assert record.verdict
    assert load_current(Path(deployed.environment["WINE_SERVING_MODELS"])).facts.version == "1"


def test_worker_and_server_end_and_are_seen_to_have_ended(scheduled_run: FlowRun, deployed: Services) -> None:
    assert scheduled_run.name
    pids = [int(deployed.find(name).pid_file.read_text()) for name in ("worker", "server")]
    assert deployed.do("stop").startswith("The worker has ended\nThe server has ended\n")
    for name in ("worker", "server"):
        assert not deployed.find(name).lives()
        assert not deployed.find(name).pid_file.exists()
    assert [pid for pid in pids if is_running(pid)] == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{deployed.api}/health")


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody has picked up yet."""
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(told.strip()) and not told.startswith("Z")


def test_a_service_that_does_not_want_to_end_is_killed(tmp_path: Path) -> None:
    stubborn = Service("stubborn", tmp_path)
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(60)"
    )
    stubborn.start([sys.executable, "-c", script], dict(os.environ))
    deadline = time.monotonic() + 20
    while "here" not in stubborn.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert stubborn.stop(seconds=0.5)
    assert not stubborn.lives()


def test_a_pid_file_that_was_left_behind_ends_nobody(tmp_path: Path) -> None:
    left = Service("left", tmp_path)
    left.pid_file.write_text(str(os.getpid()))
    assert not left.lives()
    assert not left.stop()
