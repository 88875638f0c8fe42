"""Faults of a running API's prediction log and of its clock."""

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.benchmarks.fault_server import Server
from tests.benchmarks.server_faults import Fault
from tests.small_disk import FILLER, fill_disk, mount_small_disk
from tests.waiting import wait_until
from tests.web import WEB
from wine_quality_training.bundle.bundle import load_current, select_bundle

SECONDS = 3.0  # that a log is locked or its disk is full
MEGABYTES = 512  # for the rows of all tries
LOG = "prediction log"


def lock_log(server: Server) -> str:
    connection = sqlite3.connect(server.log, timeout=30, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(SECONDS)
    connection.close()
    return "nothing: rows wait in memory until the log is free"


def delete_log(server: Server) -> str:
    """Delete the log's files, and keep a copy of all that they have; nothing is written in between."""
    copy = server.folder / f"kept {len(server.kept_logs)}.db"
    with closing(sqlite3.connect(server.log, timeout=30, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        with closing(sqlite3.connect(server.log)) as log, closing(sqlite3.connect(copy)) as kept:
            log.backup(kept)
        for file in server.log.parent.iterdir():
            file.unlink()
    wait_until(lambda: "anew" in server.read_words(LOG), "another log")
    return server.read_words(LOG)


@contextmanager
def obey_rights(server: Server) -> Iterator[None]:
    """Have a server of root's take files that are read-only for what they are."""
    if os.geteuid() == 0:
        server.prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    yield


def forbid_log(server: Server) -> str:
    """Make the log read-only; the processes that have it open are killed, and others open it."""
    files = [server.log.parent, *server.log.parent.iterdir()]
    for file in files:
        file.chmod(0o555)
    for pid in server.list_workers():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "readonly" in server.read_words(LOG), "another process finds the log read-only", 60)
    for file in files:
        file.chmod(0o755)
    wait_until(lambda: "is written again" in server.read_words(LOG), "the log is written again")
    return server.read_words(LOG)


@contextmanager
def live_on_a_small_disk(server: Server) -> Iterator[None]:
    server.log.parent.mkdir()
    with mount_small_disk(server.log.parent, MEGABYTES):
        yield


def fill_log(server: Server) -> str:
    with suppress(OSError):  # the log takes the rest meanwhile
        fill_disk(server.log.parent)
    time.sleep(SECONDS)
    (server.log.parent / FILLER).unlink()
    if "cannot be written" in server.read_words(LOG):  # not where SQLite had room in the files that it has already
        wait_until(lambda: "is written again" in server.read_words(LOG), "the log is written again")
    return server.read_words(LOG)


@contextmanager
def fake_time(server: Server) -> Iterator[None]:
    """Have the server read its clock through libfaketime, which adds what a file says."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not here: apt-get install libfaketime")
    clock = server.folder / "clock"
    clock.write_text("+0")
    server.given = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    yield


def set_clock_back(server: Server) -> str:
    """Set it back by another hour, and have another model become current."""
    clock = server.folder / "clock"
    clock.write_text(f"{int(clock.read_text()) - 3600:+d}")
    time.sleep(1.5)
    other = {"1": "2", "2": "1"}[load_current(server.models).metadata.version]
    select_bundle(server.models / other)
    ready = f"{server.address}/ready"
    wait_until(lambda: WEB.get(ready).json()["version"] == other, "the new model serves")
    return f"{server.read_words(LOG)}; a new model serves as always"


LOG_FAULTS = {
    f"log locked for {SECONDS:g} s": Fault(lock_log),
    "log deleted": Fault(delete_log),
    "log read-only, and both processes killed": Fault(forbid_log, obey_rights),
    f"disk of the log full for {SECONDS:g} s": Fault(fill_log, live_on_a_small_disk),
    "clock set back by an hour": Fault(set_clock_back, fake_time),
}
