"""Ask at a constant rate, and count from when each request was due."""

import asyncio
import random
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.traffic import POOL, Connection, Traffic, make_bundles
from tests.folders import isolated_environment
from tests.running import run_api

CONNECTIONS = 64
SHARES = (0.25, 0.5, 0.75)


async def run_closed(traffic: Traffic, seconds: float) -> list[float]:
    """Ask on every connection as soon as it is answered; return the seconds of each answer."""
    taken, end = list[float](), time.perf_counter() + seconds

    async def keep_asking(pick: random.Random) -> None:
        connection = Connection(traffic.address)
        while (start := time.perf_counter()) < end:
            await traffic.ask(connection, [pick.randrange(POOL)])
            taken.append(time.perf_counter() - start)
        connection.close()

    await asyncio.gather(*(keep_asking(random.Random(number)) for number in range(CONNECTIONS)))
    return taken


async def run_open(traffic: Traffic, rate: float, seconds: float) -> list[float]:
    """Ask so many times a second, whatever is answered; return the seconds from when each request was due."""
    taken, places, start = list[float](), iter(range(int(rate * seconds))), time.perf_counter()

    async def take_next() -> None:
        connection = Connection(traffic.address)
        for number in places:  # of all connections together: a free one takes the next that is due
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await traffic.ask(connection, [number % POOL])
            taken.append(time.perf_counter() - due)
        connection.close()

    await asyncio.gather(*(take_next() for _ in range(CONNECTIONS)))
    return taken


def make_row(load: str, taken: list[float], seconds: float) -> dict[str, str]:
    """A row of the table."""
    p50, p99, p999 = np.percentile(np.array(taken) * 1000, [50, 99, 99.9])
    figures = {"p50": p50, "p99": p99, "p99.9": p999}
    return {"load": load, "answers a second": f"{len(taken) / seconds:,.0f}"} | {
        name: f"{value:.1f} ms" for name, value in figures.items()
    }


def measure(folder: Path, seconds: int) -> list[dict[str, str]]:
    """The rows of the table: the closed loop at full speed, then open loops at shares of its rate."""
    models = folder / "deployment" / "models"
    table = make_bundles(models)
    with run_api(isolated_environment(folder), serving_models=models) as (address, _):
        traffic = Traffic.of_bundles(address, models, table)
        asyncio.run(run_closed(traffic, 2))
        taken = asyncio.run(run_closed(traffic, seconds))
        rate = len(taken) / seconds
        rows = [make_row(f"closed loop, {CONNECTIONS} connections", taken, seconds)]
        for share in SHARES:
            start = time.perf_counter()
            taken = asyncio.run(run_open(traffic, share * rate, seconds))
            rows.append(make_row(f"open loop, {share:.0%} of that rate", taken, time.perf_counter() - start))
    bad = {name: count for name, count in traffic.counts.items() if count and name[:6] in ("wrong", "lost", "status")}
    assert set(bad) == {"status 200"}, bad
    return rows
