"""Places, ports and commands of a project of its own: for the drill, the pictures and the tests."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from commands import DONE, NotThereError
from deployment.api.server_process import HOST, find_free_ports
from settings import ROOT

COMMAND_SECONDS = 1800.0  # a busy machine takes three times as long as an idle one


def move_paths(folder: Path) -> dict[str, str]:
    """The environment of this process, with every path that the project writes to moved under a folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WINE_", "PREFECT_"))}
    return inherited | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "WINE_MLFLOW_ARTIFACTS": str(folder / "mlartifacts"),
        "WINE_SERVING_MODELS": str(folder / "deployment" / "models"),
        "WINE_DOWNLOADS": str(folder / "downloads"),
        "WINE_SNAPSHOTS": str(folder / "snapshots"),
        "WINE_AUDIT_FIGURE": str(folder / "audit.png"),
        "WINE_TRAINING_MODELS": str(folder / "wine_quality_training" / "models"),
        "WINE_LOG_URL": f"sqlite:///{folder / 'predictions.db'}",
        "WINE_LOAD_REPORTS": str(folder / "load_reports"),
        "WINE_MONITORING_REPORTS": str(folder / "reports"),
        "WINE_BATCH_WINES": str(folder / "to_score"),
        "WINE_BATCH_ANSWERS": str(folder / "answers"),
        "PREFECT_HOME": str(folder / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


def move_ports() -> dict[str, str]:
    """Free ports for every server of the project, and a worker that asks each second."""
    api, mlflow, prefect = find_free_ports(3)
    return {
        "WINE_PORT": str(api),
        "WINE_MLFLOW_PORT": str(mlflow),
        "WINE_PREFECT_PORT": str(prefect),
        "PREFECT_API_URL": f"http://{HOST}:{prefect}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


def run_module(environment: Mapping[str, str], log: Path, *command: str, ends: Sequence[int] = (DONE,)) -> None:
    """Run `python -m COMMAND` to its end, and add what it prints to a log. Raises NotThereError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    name = f"python -m {' '.join(command)}"
    with log.open("a") as file:
        file.write(f"$ {name}\n{done.stdout}\n")
    if done.returncode not in ends:
        raise NotThereError(f"{name} ended with {done.returncode}:\n{done.stdout}".rstrip())


class Services:
    """Prefect's server, deployments and worker, by the commands that users run; they start beside the drill."""

    def __init__(self, environment: Mapping[str, str], log: Path, beside: ThreadPoolExecutor) -> None:
        """Start the server; after it, the deployments and a worker."""
        self._environment, self._log = environment, log
        self.server: Future[None] = beside.submit(self._order, "prefect")
        self.worker: Future[None] = beside.submit(self._start_worker)

    def stop(self) -> None:
        """End worker and server, once neither is still starting: a worker that came later would outlive the drill."""
        wait([self.server, self.worker])
        self._order("stop")

    def _start_worker(self) -> None:
        self.server.result()
        self._order("deploy")
        self._order("worker")

    def _order(self, order: str) -> None:
        run_module(self._environment, self._log, "orchestration.services", order)


@contextmanager
def run_services(environment: Mapping[str, str], log: Path) -> Iterator[Services]:
    """Have Prefect's services start beside what the block does, and end them after it."""
    with ThreadPoolExecutor(max_workers=2) as beside:
        services = Services(environment, log, beside)
        try:
            yield services
        finally:
            services.stop()
