"""One fault on a server under load, and what became of its answers."""

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from settings import ROOT
from tests.benchmarks.soak_study import find_missing
from tests.benchmarks.traffic import LOST, POOL, Connection, Traffic
from tests.folders import isolated_environment
from tests.waiting import free_port, wait_for, wait_until
from tests.web import WEB
from wine_quality_training.bundle.bundle import COMPILED_FILE, METADATA_FILE, select_bundle

CLIENTS, IN_A_ROW, DEADLINE = 4, 10, 60.0
LOCKED_SECONDS = 3.0


@dataclass
class Server:
    """An API in a folder of its own, which can be started again on the same port."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def models(self) -> Path:
        return self.folder / "deployment" / "models"

    @property
    def log(self) -> Path:
        return self.folder / "predictions.db"

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    def start(self) -> None:
        """Serve with two processes. What they print is kept in a file."""
        given = {"WINE_PORT": str(self.port), "WINE_WORKERS": "2", "WINE_SERVING_MODELS": str(self.models)}
        environment = isolated_environment(self.folder) | given | {"WINE_LOG_URL": f"sqlite:///{self.log}"}
        command = [sys.executable, "-m", "deployment.serve"]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        wait_for(f"{self.address}/ready", self.process)

    def send(self, number: int) -> None:
        """Send the server a signal and wait for its end; kill -9 goes to all of its processes."""
        assert self.process
        if number == signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        self.process.wait(timeout=DEADLINE)

    def list_workers(self) -> list[int]:
        """The processes that answer."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def read_refusal(self) -> str:
        """Why a model is not served, as /ready says."""
        return str(WEB.get(f"{self.address}/ready").json()["refused"])


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


def lock_log(server: Server) -> str:
    connection = sqlite3.connect(server.log, timeout=30, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    time.sleep(LOCKED_SECONDS)
    connection.close()
    return "nothing: rows wait in memory until the log is free"


FAULTS: dict[str, Callable[[Server], str]] = {
    "kill -9 of one of two processes": kill_worker,
    "kill -9 of the server": kill_server,
    "SIGTERM to the server": stop_server,
    "model file swapped for another": lambda server: promote_damaged(server, swap_model),
    "model file truncated": lambda server: promote_damaged(server, truncate_model),
    "one bit of the model file flipped": lambda server: promote_damaged(server, flip_bit),
    "metadata truncated": lambda server: promote_damaged(server, truncate_metadata),
    f"log locked for {LOCKED_SECONDS:g} s": lock_log,
}


@dataclass(frozen=True)
class Outcome:
    """What one try came to."""

    wrong: int
    lost: int
    errors: int
    rows: int
    seconds: float
    seen: str


async def answers_in_a_row(traffic: Traffic) -> None:
    """Wait until so many requests in a row are answered, each on a connection of its own."""
    good = 0
    async with asyncio.timeout(DEADLINE):
        while good < IN_A_ROW:
            connection = Connection(traffic.address)
            try:
                status, answer = await connection.post("/predict", traffic.write_wine(0))
            except LOST:
                good = 0
                await asyncio.sleep(0.05)
                continue
            connection.close()
            good = good + 1 if status == 200 else 0
            if status == 200:
                traffic.check([0], [answer], answer["model"]["version"])


async def break_under_load(server: Server, traffic: Traffic, fault: str, pick: random.Random) -> tuple[float, str]:
    """Ask until the fault has come and gone; return the seconds from its beginning, and what an operator sees."""
    over = asyncio.Event()

    async def keep_asking() -> None:
        connection = Connection(traffic.address)
        while not over.is_set():
            await traffic.ask(connection, [pick.randrange(POOL)])
        connection.close()

    asking = [asyncio.create_task(keep_asking()) for _ in range(CLIENTS)]
    await asyncio.sleep(pick.uniform(0.3, 1.5))
    start = time.monotonic()
    seen = await asyncio.to_thread(FAULTS[fault], server)
    await answers_in_a_row(traffic)
    seconds = time.monotonic() - start
    over.set()
    await asyncio.gather(*asking)
    return seconds, seen


def try_fault(fault: str, bundles: Path, table: pd.DataFrame, seed: int) -> Outcome:
    """One fault, once, on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="wine-fault-") as folder:
        server = Server(Path(folder), free_port())
        shutil.copytree(bundles, server.models)
        traffic = Traffic.of_bundles(server.address, server.models, table)
        server.start()
        try:
            seconds, seen = asyncio.run(break_under_load(server, traffic, fault, random.Random(f"{fault} {seed}")))
        finally:
            server.send(signal.SIGTERM)
        counts, missing = traffic.counts, find_missing(server.log, traffic.ids)
        errors = sum(counts[name] for name in counts if name.startswith("status") and name != "status 200")
        return Outcome(counts["wrong"], counts["lost"], errors, missing, seconds, seen)


def make_row(fault: str, outcomes: list[Outcome]) -> dict[str, object]:
    """A fault's tries as a row of the table."""
    seconds = [one.seconds for one in outcomes]
    return {
        "trial": fault,
        "tries": len(outcomes),
        "wrong answers": sum(one.wrong for one in outcomes),
        "answers lost": sum(one.lost for one in outcomes),
        "other statuses": sum(one.errors for one in outcomes),
        "rows lost, most in a try": max(one.rows for one in outcomes),
        "seconds to recover": f"{min(seconds):.1f} to {max(seconds):.1f}",
        "the operator sees": outcomes[-1].seen,
    }
