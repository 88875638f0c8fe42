"""What a drill has for itself: places, ports, and Prefect's server and worker."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from deployment.api.server_process import find_free_ports
from settings import ROOT

WINDOW, FOLDS = 400, 2
STEP_SECONDS = 240


class StepFailedError(Exception):
    """A command or server of the drill failed; the text says which, and what it printed."""


def make_environment(folder: Path) -> dict[str, str]:
    """The environment of here, with every place and port of the project moved to the drill's own."""
    prefect_port, api_port = find_free_ports(2)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WINE_", "PREFECT_"))}
    return inherited | {
        "WINE_DATA": "twin",
        "WINE_FOLDS": str(FOLDS),
        "WINE_WINDOW_ROWS": str(WINDOW),
        "WINE_PORT": str(api_port),
        "WINE_PREFECT_PORT": str(prefect_port),
        "WINE_LOG_URL": f"sqlite:///{folder / 'predictions.db'}",
        "WINE_MLFLOW_ARTIFACTS": str(folder / "mlartifacts"),
        "WINE_SERVING_MODELS": str(folder / "models"),
        "WINE_TRAINING_MODELS": str(folder / "candidates"),
        "WINE_SNAPSHOTS": str(folder / "snapshots"),
        "WINE_DOWNLOADS": str(folder / "downloads"),
        "WINE_AUDIT_FIGURE": str(folder / "audit.png"),
        "WINE_MONITORING_REPORTS": str(folder / "reports"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(folder / ".prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect_port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


class Services:
    """Prefect's server, deployments and worker, by the commands that users run; they start beside the drill."""

    def __init__(self, environment: Mapping[str, str], log: Path, beside: ThreadPoolExecutor) -> None:
        """Start the server; after it, the deployments and a worker."""
        self._environment, self._log = environment, log
        self._server: Future[None] = beside.submit(self._order, "prefect")
        self._worker: Future[None] = beside.submit(self._start_worker)

    def await_server(self) -> None:
        """Wait until the server answers. Raises StepFailedError."""
        self._server.result()

    def await_worker(self) -> None:
        """Wait until a worker is there for what is deployed. Raises StepFailedError."""
        self._worker.result()

    def stop(self) -> None:
        """End worker and server, once neither is still starting: a worker that came later would outlive the drill."""
        wait([self._server, self._worker])
        self._order("stop")

    def _start_worker(self) -> None:
        self._server.result()
        self._order("deploy")
        self._order("worker")

    def _order(self, order: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "orchestration.services", order],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        with self._log.open("a") as log:
            log.write(f"$ python -m orchestration.services {order}\n{done.stdout}{done.stderr}\n")
        if done.returncode:
            raise StepFailedError(f"orchestration.services {order} ended with {done.returncode}:\n{done.stderr}")


@contextmanager
def run_services(environment: Mapping[str, str], log: Path) -> Iterator[Services]:
    """Have Prefect's services start beside what the block does, and end them after it."""
    with ThreadPoolExecutor(max_workers=2) as beside:
        services = Services(environment, log, beside)
        try:
            yield services
        finally:
            services.stop()
