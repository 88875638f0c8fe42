"""Prefect's server and a worker, started in the background and ended by order.

    python -m orchestration.services prefect|deploy|worker|stop    (make prefect, make deploy, …)

Each service writes <PREFECT_HOME>/<service>.log and .pid, and holds a lock on its .pid file for as long as it
lives: the system frees that lock whichever way it ends, so a pid that another process has since is never
taken for it. PREFECT_API_URL, where it is set, says which server `deploy` and `worker` speak to.
"""

import argparse
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from commands import DONE, BadInputError, NotThereError, run_command
from deployment.api.server_process import answers, wait_until
from settings import ROOT, load_settings

POOL, HOST = "wine-pool", "127.0.0.1"
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 120.0, 20.0, 0.2


@dataclass(frozen=True)
class Service:
    """A process in the background, known by its files."""

    name: str
    home: Path

    @property
    def pid_file(self) -> Path:
        """Holds the pid, and is locked while the service lives."""
        return self.home / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        """What the service printed."""
        return self.home / f"{self.name}.log"

    def lives(self) -> bool:
        """Say whether the process is there."""
        try:
            with self.pid_file.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def start(self, command: list[str], environment: dict[str, str]) -> None:
        """Start a command in a session of its own, so that closing the terminal does not end it."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self.pid_file.open("a+") as pid_file, self.log.open("wb") as log:
            fcntl.flock(pid_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[pid_file.fileno()],
            )
            pid_file.truncate(0)
            pid_file.write(str(process.pid))

    def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """End the process: asked once, asked again, then killed with all it started. Say whether it lived.

        A worker does not always end when it is first asked to.
        """
        if not self.lives():
            return False
        pid = int(self.pid_file.read_text())
        for ask in (os.kill, os.kill, os.killpg):
            with suppress(ProcessLookupError):
                ask(pid, signal.SIGKILL if ask is os.killpg else signal.SIGTERM)
            if _wait(lambda: not self.lives(), seconds):
                break
        else:
            raise NotThereError(f"{self.name}, process {pid}, does not end; see {self.log}")
        self.pid_file.unlink(missing_ok=True)
        return True


def find_server() -> tuple[str, str]:
    """The address of the server's API and that of its pages."""
    api = os.environ.get("PREFECT_API_URL") or f"http://{HOST}:{load_settings().prefect_port}/api"
    return api, api.removesuffix("/api")


def find_home() -> Path:
    """Prefect's folder: PREFECT_HOME, or .prefect here, so that other projects' is left alone."""
    return Path(os.environ.get("PREFECT_HOME") or ROOT / ".prefect")


def start_server() -> None:
    """Start the server, and wait until it answers."""
    port, server = load_settings().prefect_port, Service("server", find_home())
    address = f"http://{HOST}:{port}"
    health = f"{address}/api/health"
    if server.lives() and answers(health):
        print(f"Prefect's server runs already: {address}")
    elif answers(health):
        raise NotThereError(f"{HOST}:{port} is taken by another server: end it, or set WINE_PREFECT_PORT")
    else:
        server.stop()
        server.start(_prefect("server", "start", "--host", HOST, "--port", str(port)), _environment(f"{address}/api"))
        if not _wait(lambda: answers(health) or not server.lives(), START_SECONDS) or not server.lives():
            server.stop()
            raise NotThereError(f"Prefect's server did not start; see {server.log}")
        print(f"Prefect's server: {address}, its log {server.log}")
    print("Next: make deploy. To end it: make stop")


def deploy() -> None:
    """Make the pool if it is new, and deploy what prefect.yaml holds; a second time changes nothing."""
    api, pages = _require_server()
    if _run("work-pool", "inspect", POOL, api=api).returncode:
        _run_or_tell("work-pool", "create", POOL, "--type", "process", api=api)
    _run_or_tell("deploy", "--all", api=api)
    print(f"Deployed to {pages}/deployments: train, score and monitor, on the work pool {POOL}")
    print("Next: make worker. Not to wait for the schedule: Quick run, on that page")


def start_worker() -> None:
    """Start a worker on the pool, and wait until the server knows of it."""
    api, pages = _require_server()
    worker = Service("worker", find_home())
    if worker.lives():
        print("A worker runs already")
    else:
        command = ("worker", "start", "--pool", POOL, "--type", "process", "--name", "wine-worker")
        worker.start(_prefect(*command, "--install-policy", "never"), _environment(api))
        if not _wait(lambda: "started!" in worker.log.read_text() or not worker.lives(), START_SECONDS):
            worker.stop()
        if not worker.lives():
            raise NotThereError(f"the worker did not start; see {worker.log}")
        print(f"A worker runs what is due: {pages}/runs, its log {worker.log}")
    print("To end it, and the server: make stop")


def stop() -> None:
    """End the worker and the server that were started here."""
    for name in ("worker", "server"):  # the worker first: it would look for its server
        ended = Service(name, find_home()).stop()
        print(f"The {name} has ended" if ended else f"No {name} was running")
    print("Next: make prefect starts again; what was deployed is remembered")


def _require_server() -> tuple[str, str]:
    api, pages = find_server()
    if not answers(f"{api}/health"):
        raise NotThereError(f"no Prefect server answers at {api}: make prefect")
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    if httpx.get(f"{api}/admin/version", auth=(user, password), timeout=30).status_code == httpx.codes.UNAUTHORIZED:
        raise BadInputError(
            f"the Prefect server at {api} needs its password: set PREFECT_API_AUTH_STRING=user:password"
        )
    return api, pages


def _prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", "--no-prompt", *arguments]


def _environment(api: str) -> dict[str, str]:
    ours = {"PREFECT_HOME": str(find_home()), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return ours | os.environ | {"PREFECT_API_URL": api}


def _run(*arguments: str, api: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _prefect(*arguments), cwd=ROOT, env=_environment(api), capture_output=True, text=True, timeout=300, check=False
    )


def _run_or_tell(*arguments: str, api: str) -> None:
    done = _run(*arguments, api=api)
    if done.returncode:
        raise BadInputError(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}".rstrip())


def _wait(happened: Callable[[], bool], seconds: float) -> bool:
    with suppress(NotThereError):
        wait_until(happened, "a service", seconds, POLL_SECONDS)
        return True
    return False


ORDERS: dict[str, Callable[[], None]] = {
    "prefect": start_server,
    "deploy": deploy,
    "worker": start_worker,
    "stop": stop,
}


def main() -> int:
    """Start, deploy or end, as ordered."""
    parser = argparse.ArgumentParser(description="Prefect's server and worker: start them, deploy to them, end them.")
    parser.add_argument("order", choices=ORDERS)
    ORDERS[parser.parse_args().order]()
    return DONE


if __name__ == "__main__":
    run_command(main)
