"""Ports and commands of an isolated copy of the project's servers: for the drill, the pictures and the tests."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from commands import DONE, NotThereError
from deployment.api.server_process import HOST, find_free_ports
from settings import ROOT

COMMAND_SECONDS = 1800.0  # a busy machine is three times slower


def move_ports() -> dict[str, str]:
    """Settings with free ports for all servers of the project, and a worker that polls every second."""
    api, mlflow, prefect = find_free_ports(3)
    return {
        "WINE_PORT": str(api),
        "WINE_MLFLOW_PORT": str(mlflow),
        "WINE_PREFECT_PORT": str(prefect),
        "PREFECT_API_URL": f"http://{HOST}:{prefect}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


def run_module(environment: Mapping[str, str], log: Path, *command: str, ends: Sequence[int] = (DONE,)) -> None:
    """Run `python -m COMMAND` to its end, and append its output to a log. Raises NotThereError if it fails."""
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


@contextmanager
def run_services(environment: Mapping[str, str], log: Path) -> Iterator[tuple[Future[None], Future[None]]]:
    """Start Prefect's services while the block runs, and stop them after it.

    Yields two futures: for a server that responds, and for a worker after the deployment.
    """
    order = partial(run_module, environment, log, "orchestration.services")

    def start_worker() -> None:
        server.result()
        order("deploy")
        order("worker")

    with ThreadPoolExecutor(max_workers=2) as beside:
        server = beside.submit(order, "prefect")
        worker = beside.submit(start_worker)
        try:
            yield server, worker
        finally:
            wait([server, worker])  # a worker that starts later would outlive the drill
            order("stop")
