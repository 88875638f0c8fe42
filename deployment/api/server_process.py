"""A server of the project as a child process: on a free port, awaited until it answers, and ended.

For the notebooks, the drill and the pictures; `make serve` needs nothing of it.
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
START_SECONDS, STOP_SECONDS, WAIT_SECONDS = 180.0, 20.0, 60.0  # a busy machine takes many times what an idle one does


def find_free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at this moment."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextmanager
def run_server(
    module: str, ready: str, environment: Mapping[str, str], log: Path, seconds: float = START_SECONDS
) -> Iterator[None]:
    """Run `python -m module` beside this process for as long as the block lasts.

    The block begins once the address `ready` answers with success, within so many seconds. The environment has
    the server's settings, its port among them; the file `log` gets what it prints.

    Raises:
        NotThereError: it ended before it was ready, or was not ready in that time.
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
    """Run the API of `make serve` on a free port for as long as the block lasts; yield its address.

    It has this process's settings, other than `variables`. As it ends, it writes what its log still waits for.
    """
    (port,) = find_free_ports(1)
    address, environment = f"http://{HOST}:{port}", os.environ | {"WINE_PORT": str(port)} | variables
    with ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory()), "server.log")
        stack.enter_context(run_server("deployment.serve", f"{address}/ready", environment, log))
        yield address


def wait_until(happened: Callable[[], object], what: str, seconds: float = WAIT_SECONDS, every: float = 0.1) -> int:
    """Check every so many seconds until something has happened; return how many checks that took.

    Raises:
        NotThereError: it did not happen in that time: "waited 60 s for what: it did not happen".
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
    """Whether a server answers there with success."""
    with suppress(OSError, HTTPException), urlopen(address, timeout=5):
        return True
    return False
