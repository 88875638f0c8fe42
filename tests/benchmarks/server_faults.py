"""Faults of a running API: its processes and its model. log_faults.py has those of its log and its clock."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.fault_server import Server
from tests.waiting import wait_until
from wine_quality_training.bundle.bundle import COMPILED_FILE, METADATA_FILE, select_bundle

Damage = Callable[[Path], None]
NOTHING = "nothing"  # what an operator sees of some faults


@dataclass(frozen=True)
class Fault:
    """How to break a server; it returns what an operator sees.

    `around` is the block in which the server lives, `pause` the seconds between two requests of a client. One that is
    `slow` takes over 30 s, and has a server of its own for each try.
    """

    do: Callable[[Server], str]
    around: Callable[[Server], AbstractContextManager[object]] = nullcontext
    pause: float = 0.0
    slow: bool = False


def kill_worker(server: Server) -> str:
    killed = server.list_workers()[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in server.list_workers() and len(server.list_workers()) == 2, "another process")
    return "uvicorn starts another process by itself"


def kill_server(server: Server) -> str:
    server.send(signal.SIGKILL)
    server.start()
    return "connections are refused until it is started again"


def stop_server(server: Server) -> str:
    server.send(signal.SIGTERM)
    server.start()
    return "requests in progress are answered; then connections are refused until it is started again"


def promote_damaged(server: Server, damage: Callable[[Path], None]) -> str:
    """Have a damaged bundle become current, see it refused, and roll back."""
    wait_until(lambda: not server.read_refusal(), "the end of an earlier refusal")
    shutil.rmtree(server.models / "2")
    shutil.copytree(server.bundles / "2", server.models / "2")
    damage(server.models / "2")
    select_bundle(server.models / "2")
    reason = wait_until(server.read_refusal, "a refusal")
    select_bundle(server.models / "1")
    return f"/ready: {reason.replace(str(server.models), 'MODELS')}"


def swap_model(bundle: Path) -> None:
    shutil.copy(bundle.with_name("1") / COMPILED_FILE, bundle / COMPILED_FILE)


def truncate_model(bundle: Path) -> None:
    os.truncate(bundle / COMPILED_FILE, (bundle / COMPILED_FILE).stat().st_size // 2)


def flip_bit(bundle: Path) -> None:
    data = bytearray((bundle / COMPILED_FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / COMPILED_FILE).write_bytes(data)


def truncate_metadata(bundle: Path) -> None:
    os.truncate(bundle / METADATA_FILE, 100)


SERVER_FAULTS = {
    "kill -9 of one of two processes": Fault(kill_worker),
    "kill -9 of the server": Fault(kill_server),
    "SIGTERM to the server": Fault(stop_server),
    "model file swapped for another": Fault(lambda server: promote_damaged(server, swap_model)),
    "model file truncated": Fault(lambda server: promote_damaged(server, truncate_model)),
    "one bit of the model file flipped": Fault(lambda server: promote_damaged(server, flip_bit)),
    "metadata truncated": Fault(lambda server: promote_damaged(server, truncate_metadata)),
}
