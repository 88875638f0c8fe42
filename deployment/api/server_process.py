"""Run a server of the project as a child process: on a free port, until it is ready, then stop it.

The notebooks, the drill and the pictures use it; `make serve` does not.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from commands import NotThereError
from settings import ROOT

HOST = "127.0.0.1"
START_SECONDS, STOP_SECONDS, WAIT_SECONDS = 180.0, 20.0, 60.0  # a busy machine is many times slower


def find_free_ports(count: int) -> list[int]:
    """Find ports that are free at this moment."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextmanager
def run_server(
    module: str, ready: str, environment: Mapping[str, str], log: Path, seconds: float = START_SECONDS
) -> Iterator[None]:
    """Run `python -m module` as a child process while the block runs.

    The block starts when the address `ready` responds with success, at most `seconds` later. `environment` has the
    server's settings, including its port; the file `log` receives its output.

    Raises:
        NotThereError: the server ended before it was ready, or was not ready in that time.
    """
    command = [sys.executable, "-m", module]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: server.poll() is not None or answers(ready), f"{module} to answer on {ready}", seconds)
        if server.returncode is not None:
            raise NotThereError(f"{module} ended with {server.returncode}:\n{log.read_text()}".rstrip())
        yield
    finally:
        server.terminate()
        try:
            server.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def serve_beside(**variables: str) -> Iterator[str]:
    """Run the API of `make serve` on a free port while the block runs; yield its address.

    It has this process's settings, except `variables`. When it stops, it writes the rows still waiting for its log.
    """
    (port,) = find_free_ports(1)
    address, environment = f"http://{HOST}:{port}", os.environ | {"WINE_PORT": str(port)} | variables
    with ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory()), "server.log")
        stack.enter_context(run_server("deployment.serve", f"{address}/ready", environment, log))
        yield address


def wait_until(happened: Callable[[], object], what: str, seconds: float = WAIT_SECONDS, every: float = 0.1) -> int:
    """Check at intervals of `every` seconds until `happened` is true; return the number of checks.

    Raises:
        NotThereError: timeout: "waited 60 s for what: it did not happen".
    """
    deadline = time.monotonic() + seconds
    checks = 1
    while not happened():
        if time.monotonic() > deadline:
            raise NotThereError(f"waited {seconds:g} s for {what}: it did not happen")
        time.sleep(every)
        checks += 1
    return checks


def answers(address: str) -> bool:
    """Whether a server responds with success at an address."""
    with suppress(OSError, HTTPException), urlopen(address, timeout=5):  # nosec B310  # servers of this machine
        return True
    return False
