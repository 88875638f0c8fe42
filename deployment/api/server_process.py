"""A server of the project as a child process: on a free port, awaited until it answers, and ended.

The notebooks, the drill and what takes the pictures serve like this; `make serve` needs nothing of it.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import httpx

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
    """Run `python -m module` beside this process for as long as the block lasts, from when it is ready.

    Args:
        module: the server, such as deployment.serve.
        ready: the address that answers with success once it is.
        environment: its settings, its port among them.
        log: the file for what it prints.
        seconds: how long it may take to be ready.

    Raises:
        NotThereError: it ended before it was ready, or was not ready in that time.
    """
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: server.poll() is not None or answers(ready), f"{module} to answer on {ready}", seconds)
        if server.returncode is not None:
            raise NotThereError(f"{module} ended with {server.returncode}:\n{log.read_text()}".rstrip())
        yield
    finally:
        _end(server)


def wait_until(happened: Callable[[], object], what: str, seconds: float = WAIT_SECONDS, every: float = 0.1) -> int:
    """Check until something has happened; return how many checks that took.

    Args:
        happened: checks, and returns what is true or not.
        what: what is waited for, as the error says it: "waited 60 s in vain for what".
        seconds: how long to wait.
        every: seconds between two checks.

    Raises:
        NotThereError: it did not happen in that time.
    """
    deadline = time.monotonic() + seconds
    looks = 1
    while not happened():
        if time.monotonic() > deadline:
            raise NotThereError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(every)
        looks += 1
    return looks


def answers(address: str) -> bool:
    """Whether a server answers there with success."""
    with suppress(httpx.HTTPError):
        return _make_client().get(address).is_success
    return False


@cache
def _make_client() -> httpx.Client:
    """One for all checks: making it costs the starting server 30 times as much as a check."""
    return httpx.Client(timeout=5, limits=httpx.Limits(max_keepalive_connections=0))


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask a server to end, and see that it has."""
    server.terminate()
    try:
        server.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
