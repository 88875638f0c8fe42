"""Start Prefect's server and a worker in the background, and stop them.

    python -m orchestration.services prefect|deploy|worker|stop    (make prefect, make deploy, …)

Both have a log and a pid file in <PREFECT_HOME>: server.log, worker.log, …. If PREFECT_API_URL is set, `deploy` and
`worker` use that server.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psutil

from commands import DONE, BadInputError, NotThereError, run_command
from deployment.api.server_process import HOST, answers, wait_until
from settings import ROOT, load_settings

POOL = "wine-pool"
PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")
START_SECONDS, STOP_SECONDS = 120.0, 20.0


def find_pid_file(name: str) -> Path:
    """The pid file, in the folder where Prefect keeps its server's pid file too."""
    return Path(os.environ["PREFECT_HOME"]) / f"{name}.pid"


def find_process(name: str) -> psutil.Process | None:
    """The process of a pid file; None if it has ended, even if another program or another Prefect has its pid."""
    with suppress(FileNotFoundError, ValueError, psutil.Error):
        process = psutil.Process(int(find_pid_file(name).read_text()))
        is_prefect = any("prefect" in word for word in process.cmdline())
        if is_prefect and process.environ().get("PREFECT_HOME") == os.environ["PREFECT_HOME"]:
            return process
    return None


def start_server() -> None:
    """Start the server, and wait until it responds."""
    port = load_settings().prefect_port
    address = f"http://{HOST}:{port}"
    os.environ["PREFECT_API_URL"] = f"{address}/api"
    is_up = partial(answers, f"{address}/api/health")
    if not is_up():
        end_service("server")  # with a pid file, even of a killed server, Prefect starts none
        log = start_service("server", f"server start --host {HOST} --port {port}", lambda _: is_up())
        print(f"Prefect's server runs: {address}; log: {log}")
    elif find_process("server"):
        print(f"Prefect's server is running already: {address}")
    else:
        raise NotThereError(f"{HOST}:{port} is taken by another server: end it, or set WINE_PREFECT_PORT")
    print("Next: make deploy. To stop it: make stop")


def deploy() -> None:
    """Create the work pool if missing, and deploy prefect.yaml; a second call changes nothing."""
    pages = require_server()
    run_prefect(f"work-pool create {POOL} --type process")  # fails if it exists; on other errors the next line fails
    require_prefect("deploy --all")
    print(f"Deployed to {pages}/deployments: train, score, monitor and tidy, on the work pool {POOL}")
    print("Next: make worker. To start a flow now: Quick run, on that page")


def start_worker() -> None:
    """Start a worker on the pool, and wait until it is ready."""
    pages = require_server()
    if find_process("worker"):
        print("A worker is running already")
    else:
        start = f"worker start --pool {POOL} --type process --name wine-worker --install-policy never"
        log = start_service("worker", start, lambda log: "started!" in log.read_text())
        print(f"A worker runs scheduled flows: {pages}/runs; log: {log}")
    print("To stop it and the server: make stop")


def stop() -> None:
    """Stop the worker and the server that were started here."""
    for name in ("worker", "server"):  # the worker first, because it needs its server
        print(f"The {name} has ended" if end_service(name) else f"No {name} was running")
    print("Next: make prefect starts the server again; deployments are kept")


def start_service(name: str, order: str, is_ready: Callable[[Path], bool]) -> Path:
    """Start a long-running Prefect command, and write its pid file; return the path of its log once it is ready.

    With Prefect's own `--background`, the server gets a pipe that nobody reads, and ends at its first log line.
    Raises NotThereError, with that path, if the command ends or is not ready in time.
    """
    pid_file = find_pid_file(name)
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    log = pid_file.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*PREFECT, *order.split()],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # it keeps running when the terminal closes
        )
    pid_file.write_text(str(process.pid))
    # Not find_process: for a moment after its start, a process has no arguments and no environment yet.
    with suppress(NotThereError):
        wait_until(lambda: is_ready(log) or process.poll() is not None, name, START_SECONDS)
        if process.poll() is None:
            return log
    end_service(name)
    raise NotThereError(f"the {name} did not start; see {log}")


def end_service(name: str) -> bool:
    """Stop the server or the worker; return whether it was running."""
    process = find_process(name)
    if process:
        end_process(process)
    find_pid_file(name).unlink(missing_ok=True)
    return process is not None


def end_process(process: psutil.Process, seconds: float = STOP_SECONDS) -> None:
    """Stop a process: SIGTERM, a second SIGTERM, which a worker sometimes needs, then kill it and its children."""
    for _ in range(2):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
        if psutil.wait_procs([process], seconds)[0]:
            return
    for each in [*process.children(recursive=True), process]:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs([process], seconds)


def require_server() -> str:
    """The address of the server's pages. Raises an error if it does not respond, or needs a password."""
    api = os.environ["PREFECT_API_URL"]
    if not answers(f"{api}/health"):
        raise NotThereError(f"no Prefect server answers at {api}: make prefect")
    user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    if httpx.get(f"{api}/admin/version", auth=(user, password), timeout=30).status_code == httpx.codes.UNAUTHORIZED:
        raise BadInputError(
            f"the Prefect server at {api} needs its password: set PREFECT_API_AUTH_STRING=user:password"
        )
    return api.removesuffix("/api")


def run_prefect(order: str) -> subprocess.CompletedProcess[str]:
    """Run a Prefect command in a new session, so that processes it leaves running are independent of the terminal."""
    command = [*PREFECT, *order.split()]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, start_new_session=True
    )


def require_prefect(order: str) -> None:
    """Run a Prefect command. Raises BadInputError with its output if it fails."""
    done = run_prefect(order)
    if done.returncode:
        raise BadInputError(f"prefect {order} failed:\n{done.stdout}{done.stderr}".rstrip())


def name_server_settings(keep_days: int) -> dict[str, str]:
    """The settings with which Prefect's server frees the slots of lost runs and removes old runs."""
    return {
        # The default keeps leases in memory: after a restart, the slot of a run that ended meanwhile is never freed.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"P{keep_days}D",
    }


ORDERS: dict[str, Callable[[], None]] = {
    "prefect": start_server,
    "deploy": deploy,
    "worker": start_worker,
    "stop": stop,
}


def main() -> int:
    """Run the given order: prefect, deploy, worker or stop."""
    parser = argparse.ArgumentParser(
        description="Start Prefect's server, deploy the flows, start a worker, or stop both."
    )
    parser.add_argument("order", choices=ORDERS)
    order, settings = parser.parse_args().order, load_settings()
    port = settings.prefect_port
    for name, value in {
        "PREFECT_HOME": str(ROOT / ".prefect"),  # separate from other projects
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # By default, any web page in a browser here may call Prefect, and so run commands on this machine.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        **name_server_settings(settings.keep_days),
    }.items():
        os.environ[name] = os.environ.get(name) or value
    ORDERS[order]()
    return DONE


if __name__ == "__main__":
    run_command(main)
