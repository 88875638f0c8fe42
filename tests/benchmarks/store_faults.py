"""MLflow's store locked, read-only, gone or on a full disk for seconds of a promotion, beside a running API."""

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen, TimeoutExpired

from settings import ROOT
from tests.benchmarks.command_faults import (
    FIRST_THIRD,
    PAUSE,
    PROMOTION,
    SECONDS,
    describe_place,
    find_store,
    finish_command,
    live_with_store,
    measure_seconds,
)
from tests.benchmarks.fault_server import Server
from tests.benchmarks.log_faults import MEGABYTES, obey_rights
from tests.benchmarks.server_faults import NOTHING, Fault
from tests.small_disk import FILLER, fill_disk, mount_small_disk

Breaking = Callable[[Path], AbstractContextManager[None]]
LAST_FIFTH = 0.8  # of a promotion, in which most is done
LONGEST = 8.0  # seconds that a store is broken; a promotion waits five for a lock


@contextmanager
def lock(store: Path) -> Iterator[None]:
    with closing(sqlite3.connect(store, timeout=30, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def forbid(store: Path) -> Iterator[None]:
    store.chmod(0o444)
    yield
    store.chmod(0o644)


@contextmanager
def take_away(store: Path) -> Iterator[None]:
    away = store.with_name("away.db")
    store.rename(away)
    yield
    away.replace(store)


@contextmanager
def fill(store: Path) -> Iterator[None]:
    with suppress(OSError):  # the log takes the rest meanwhile
        fill_disk(store.parent)
    yield
    (store.parent / FILLER).unlink()


@contextmanager
def live_on_a_small_disk(server: Server) -> Iterator[None]:
    with mount_small_disk(server.folder, MEGABYTES), live_with_store(server):
        yield


@contextmanager
def live_with_rights(server: Server) -> Iterator[None]:
    with obey_rights(server), live_with_store(server):
        yield


def break_store(server: Server, breaking: Breaking, *, first: bool = False) -> str:
    """Break the store at a random moment of a promotion, or `first`; mend it, and let the same command do the rest."""
    undisturbed = measure_seconds(find_store(server), PROMOTION)
    moment = 0.0 if first else server.random.uniform(FIRST_THIRD, LAST_FIFTH) * undisturbed
    command, environment = [*server.prefix, sys.executable, "-m", *PROMOTION], describe_place(server.folder)
    process = Popen(command, cwd=ROOT, env=environment, stdout=PIPE, stderr=STDOUT, text=True)
    with suppress(TimeoutExpired):
        process.wait(moment)
    server.broken = time.monotonic()
    with breaking(server.folder / "mlflow.db"), suppress(TimeoutExpired):
        process.wait(server.random.uniform(0, LONGEST))
    output, _ = process.communicate(timeout=SECONDS)
    (last,) = output.strip().splitlines()[-1:]
    assert process.returncode in (0, 1) or last.startswith("error: "), output
    finish_command(server, PROMOTION)
    return NOTHING if process.returncode == 0 else last.replace(str(server.folder), "FOLDER")


STORE_FAULTS = {
    "store locked": Fault(lambda server: break_store(server, lock), live_with_store, PAUSE, True),
    "store read-only": Fault(lambda server: break_store(server, forbid), live_with_rights, PAUSE, True),
    "disk of store, bundles and log full": Fault(
        lambda server: break_store(server, fill), live_on_a_small_disk, PAUSE, True
    ),
    "store gone when the promotion begins": Fault(
        lambda server: break_store(server, take_away, first=True), live_with_store, PAUSE, True
    ),
}
