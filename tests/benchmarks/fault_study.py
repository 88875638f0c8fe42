"""One fault on a server under load, and what became of its answers."""

import asyncio
import math
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from tests.benchmarks.command_faults import COMMAND_FAULTS
from tests.benchmarks.fault_server import DEADLINE, Server
from tests.benchmarks.log_faults import LOG_FAULTS
from tests.benchmarks.server_faults import NOTHING, SERVER_FAULTS, Fault
from tests.benchmarks.soak_study import find_missing
from tests.benchmarks.store_faults import STORE_FAULTS
from tests.benchmarks.traffic import LOST, Connection, Traffic
from tests.waiting import free_port

CLIENTS, IN_A_ROW = 4, 10
LONG = 30.0  # seconds
API_FAULTS = SERVER_FAULTS | LOG_FAULTS
FAULTS = API_FAULTS | COMMAND_FAULTS | STORE_FAULTS


@dataclass(frozen=True)
class Outcome:
    """What one try came to."""

    wrong: int
    lost: int
    errors: int
    rows: int
    seconds: float
    seen: str  # by an operator
    problem: str = ""  # why it did not recover


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


async def break_under_load(server: Server, traffic: Traffic, fault: Fault) -> tuple[float, str]:
    """Ask until the fault has come and gone; return the seconds from its beginning, and what an operator sees."""
    over, pick = asyncio.Event(), server.random

    async def keep_asking() -> None:
        connection = Connection(traffic.address)
        while not over.is_set():
            await traffic.ask(connection, [pick.randrange(len(traffic.wines))])
            await asyncio.sleep(fault.pause)
        connection.close()

    asking = [asyncio.create_task(keep_asking()) for _ in range(CLIENTS)]
    await asyncio.sleep(pick.uniform(0.3, 1.5))
    server.note_fault()
    try:
        seen = await asyncio.to_thread(fault.do, server)
        await answers_in_a_row(traffic)
        return time.monotonic() - server.broken, seen
    finally:
        over.set()
        await asyncio.gather(*asking)


def try_fault(name: str, bundles: Path, table: pd.DataFrame, seed: int, tries: int) -> list[Outcome]:
    """Try a fault so often. One server takes all tries, unless it has not recovered or the fault is a slow one."""
    outcomes: list[Outcome] = []
    while not is_enough(outcomes, tries):
        with tempfile.TemporaryDirectory(prefix="wine-fault-") as folder:
            pick = random.Random(f"{name} {seed} {len(outcomes)}")
            server = Server(Path(folder), free_port(), bundles, pick)
            left = 1 if FAULTS[name].slow else tries - len(outcomes)
            outcomes += try_on_one_server(FAULTS[name], server, table, left)
    return outcomes


def is_enough(outcomes: list[Outcome], tries: int) -> bool:
    """Whether a fault was tried so often, or a quarter of it where most tries take over 30 s."""
    is_long = bool(outcomes) and LONG < statistics.median(one.seconds for one in outcomes) < math.inf
    return len(outcomes) >= (max(1, tries // 4) if is_long else tries)


def try_on_one_server(fault: Fault, server: Server, table: pd.DataFrame, tries: int) -> list[Outcome]:
    """Start a server, and break it so often, or until it does not recover."""
    outcomes: list[Outcome] = []
    with fault.around(server):
        if not server.models.exists():
            shutil.copytree(server.bundles, server.models)
        first = Traffic.of_bundles(server.address, server.models, table)
        traffics = [replace(first, ids=[], counts=Counter()) for _ in range(tries)]
        try:
            server.start()
            for traffic in traffics:
                outcomes.append(break_and_recover(fault, server, traffic))
                if outcomes[-1].problem or is_enough(outcomes, tries):
                    break
        finally:
            server.send(signal.SIGTERM)
        logs = [server.log, *server.kept_logs]
        rows = [find_missing(logs, traffic.ids) for traffic in traffics]
    return [replace(outcome, rows=missing) for outcome, missing in zip(outcomes, rows, strict=False)]


def break_and_recover(fault: Fault, server: Server, traffic: Traffic) -> Outcome:
    """Break a server once; its rows are counted after its end."""
    seconds, seen, problem = math.inf, "", ""
    try:
        seconds, seen = asyncio.run(break_under_load(server, traffic, fault))
    except (AssertionError, TimeoutError) as error:
        problem = str(error) or type(error).__name__
    counts = traffic.counts
    errors = sum(counts[status] for status in counts if status.startswith("status") and status != "status 200")
    return Outcome(counts["wrong"], counts["lost"], errors, 0, seconds, seen, problem)


def make_row(fault: str, outcomes: list[Outcome]) -> dict[str, object]:
    """A fault's tries as a row of the table."""
    seconds = [one.seconds for one in outcomes]
    return {
        "trial": fault,
        "tries": len(outcomes),
        "not recovered": sum(bool(one.problem) for one in outcomes),
        "wrong answers": sum(one.wrong for one in outcomes),
        "answers lost": sum(one.lost for one in outcomes),
        "other statuses": sum(one.errors for one in outcomes),
        "rows lost, most in a try": max(one.rows for one in outcomes),
        "seconds to recover": f"{min(seconds):.1f} to {max(seconds):.1f}",
        "the operator sees": describe_seen([one.seen for one in outcomes if one.seen]),
    }


def describe_seen(seen: list[str]) -> str:
    """The longest of what an operator has seen, and in how many tries there was anything to see."""
    longest, silent = max(seen, key=len, default=""), seen.count(NOTHING)
    return (
        longest if silent in (0, len(seen)) else f"{longest} ({len(seen) - silent} of {len(seen)} tries; else nothing)"
    )
