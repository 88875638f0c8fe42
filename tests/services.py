"""Prefect's server, deployments and worker, in a folder of their own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.schedules import IntervalSchedule

from settings import ROOT
from tests.folders import isolated_environment, seed_store
from tests.waiting import free_port, wait_until
from tests.web import WEB
from tests.wines import write_few_wines

SCORE = "wine-quality-batch/score"


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

    def find_pid_file(self, name: str) -> Path:
        return self.folder / ".prefect" / f"{name}.pid"

    def list_deployments(self) -> dict[str, Any]:
        """All that the server knows of the deployments, without the dates."""
        found = WEB.post(f"{self.api}/deployments/filter", json={}, timeout=30).raise_for_status().json()
        return {deployment["name"]: forget_dates(deployment) for deployment in found}


def forget_dates(found: Any) -> Any:
    if isinstance(found, dict):
        passing = ("created", "updated", "status", "last_polled", "version_id", "version_info")
        return {name: forget_dates(value) for name, value in found.items() if name not in passing}
    return [forget_dates(value) for value in found] if isinstance(found, list) else found


@contextmanager
def run_services(folder: Path, empty_stores: Path, **settings: str) -> Iterator[Services]:
    """A project in a folder, with few wines, and a server that runs; all is ended after the block."""
    seed_store(folder, empty_stores)
    environment = isolated_environment(folder) | {
        "WINE_DATA": str(write_few_wines(folder / "wines")),
        "WINE_FOLDS": "2",
        "WINE_PREFECT_PORT": str(free_port()),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",  # 60, else: a schedule for the next moments is missed
        **settings,
    }
    environment.pop("PREFECT_API_URL", None)
    services = Services(folder, environment)
    try:
        assert "make deploy" in services.do("prefect")
        yield services
    finally:
        services.order("stop")


def count_slots(client: SyncPrefectClient, deployment: UUID) -> int:
    limit = client.read_deployment(deployment).global_concurrency_limit
    assert limit is not None
    return limit.active_slots


def await_state(client: SyncPrefectClient, run: UUID, *types: StateType) -> FlowRun:
    def ask() -> FlowRun | None:
        found = client.read_flow_run(run)
        return found if found.state and found.state.type in types else None

    found = wait_until(ask, f"{run} is {types}", seconds=180, every=0.1)
    assert found is not None
    return found


def kill_service(services: Services, name: str) -> None:
    """End a service and all that it started as the system does where memory runs out."""
    process = psutil.Process(int(services.find_pid_file(name).read_text()))
    for each in [process, *process.children(recursive=True)]:
        each.kill()
    process.wait(30)


def schedule_soon(
    client: SyncPrefectClient, deployment: UUID, seconds: float = 4, **parameters: object
) -> IntervalSchedule:
    """Give a deployment one more schedule, due in some seconds."""
    due = datetime.now(UTC) + timedelta(seconds=seconds)
    soon = IntervalSchedule(interval=timedelta(days=1), anchor_date=due, timezone="UTC")
    client.create_deployment_schedules(
        deployment, [DeploymentScheduleCreate(schedule=soon, active=True, parameters=parameters)]
    )
    return soon
