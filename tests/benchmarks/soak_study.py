"""A server under all that clients do, and what became of each answer."""

import asyncio
import os
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.results import make_row
from tests.benchmarks.traffic import LOST, POOL, Connection, Traffic, make_bundles
from tests.folders import isolated_environment
from tests.running import run_api
from tests.waiting import wait_until
from tests.web import WEB
from wine_quality_training.bundle.bundle import select_bundle

SINGLES, BATCHES, BATCH = 8, 2, 200
WARM_UP = 0.25  # of the predictions, before memory is looked at
INVALID = ("{", "[]", "{}", '{"wines": 3}', '{"alcohol": "much"}', '{"alcohol": 1e999}')
MEGABYTE = 2**20
STEEPEST, LONG = 0.5, 1_000_000  # megabytes that 100,000 predictions may add, in a soak of so many or more


@dataclass
class Soak:
    """A soak that runs: its traffic, when it is over, and the memory of the server beside the answers till then."""

    traffic: Traffic
    models: Path
    server: int
    predictions: int
    random: random.Random
    memory: list[tuple[int, float]] = field(default_factory=list)
    unread: int = 0  # wines asked for by clients that did not wait for the answer

    @property
    def is_over(self) -> bool:
        return self.traffic.counts["answers"] >= self.predictions

    async def run(self) -> None:
        """Everything at once until all predictions are answered."""
        asking = [self.keep_asking(1) for _ in range(SINGLES)] + [self.keep_asking(BATCH) for _ in range(BATCHES)]
        beside = [self.send_invalid, self.send_slowly, self.drop, self.grade, self.reload, self.measure_memory]
        await asyncio.gather(*asking, *(self.repeat(one) for one in beside))

    async def keep_asking(self, wines: int) -> None:
        connection = Connection(self.traffic.address)
        while not self.is_over:
            await self.traffic.ask(connection, self.random.choices(range(POOL), k=wines))
        connection.close()

    async def repeat(self, step: Callable[[Connection, int], Awaitable[None]]) -> None:
        """Do one of what goes on beside the predictions, again and again, on a connection of its own."""
        connection = Connection(self.traffic.address)
        for number in count():
            if self.is_over:
                return connection.close()
            try:
                await step(connection, number)
            except LOST:
                self.traffic.counts["lost"] += 1
                await asyncio.sleep(0.05)

    async def send_invalid(self, connection: Connection, number: int) -> None:
        path = ("/predict", "/predict/batch")[number % 2]
        status, _ = await connection.post(path, self.random.choice(INVALID))
        self.traffic.counts[f"invalid body: {status}"] += 1
        await asyncio.sleep(0.02)

    async def send_slowly(self, connection: Connection, _: int) -> None:
        place = self.random.randrange(POOL)
        status, answer = await connection.post("/predict", self.traffic.write_wine(place), pause=1.0)
        self.traffic.counts[f"status {status}"] += 1
        self.traffic.counts["slow clients"] += 1
        if status == 200:
            self.traffic.check([place], [answer], answer["model"]["version"])

    async def drop(self, connection: Connection, number: int) -> None:
        """Every second time after the whole request, which may be answered and logged without a reader."""
        self.unread += number % 2
        self.traffic.counts["dropped connections"] += 1
        await connection.drop("/predict", self.traffic.write_wine(self.random.randrange(POOL)), (0.5, 1.0)[number % 2])
        await asyncio.sleep(0.05)

    async def grade(self, connection: Connection, _: int) -> None:
        await asyncio.sleep(0.05)
        if self.traffic.ids:
            body = f'{{"request_id": "{self.random.choice(self.traffic.ids)}", "quality": 6}}'
            status, _answer = await connection.post("/feedback", body)
            self.traffic.counts[f"grade: {status}"] += 1

    async def reload(self, _: Connection, number: int) -> None:
        await asyncio.sleep(2)
        select_bundle(self.models / ("2", "1")[number % 2])
        self.traffic.counts["reloads"] += 1

    async def measure_memory(self, _: Connection, __: int) -> None:
        pages = int(Path(f"/proc/{self.server}/statm").read_text().split()[1])
        self.memory.append((self.traffic.counts["answers"], pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE))
        await asyncio.sleep(0.5)


def find_slope(memory: list[tuple[int, float]], predictions: int) -> float:
    """Megabytes that a server grows by in 100,000 predictions, after the warm-up: least squares."""
    after = np.array([one for one in memory if one[0] >= WARM_UP * predictions])
    return float(np.polyfit(after[:, 0], after[:, 1], 1)[0] * 100_000) if len(after) > 2 else 0.0


def count_rows(log: Path, table: str = "predictions") -> int:
    """The rows of a log's table."""
    with closing(sqlite3.connect(log)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def find_missing(logs: Sequence[Path], ids: list[str]) -> int:
    """How many of these answers none of the logs has a row for."""
    missing = set(ids)
    for log in logs:
        if log.exists():
            with closing(sqlite3.connect(log)) as connection:
                missing -= {row[0] for row in connection.execute("SELECT request_id FROM predictions")}
    return len(missing)


def read_lost(address: str) -> float:
    """Rows that the API says its log lost."""
    lines = WEB.get(f"{address}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("wine_log_lost_rows_total"))


def run_soak(folder: Path, predictions: int, seed: int) -> tuple[list[dict[str, str]], bool]:
    """The rows of the table, and whether nothing was wrong or lost."""
    models, log = folder / "deployment" / "models", folder / "predictions.db"
    table = make_bundles(models)
    settings: dict[str, Any] = {"serving_models": models, "log_url": f"sqlite:///{log}", "log_rows": 10 * predictions}
    with run_api(isolated_environment(folder), **settings) as (address, server):
        traffic = Traffic.of_bundles(address, models, table)
        soak, start = Soak(traffic, models, server.pid, predictions, random.Random(seed)), time.monotonic()
        asyncio.run(soak.run())
        seconds, answers = time.monotonic() - start, traffic.counts["answers"]
        with suppress(AssertionError):  # the table has what is missing
            wait_until(lambda: count_rows(log) >= answers, "a row for each answer", seconds=30)
        lost_rows = read_lost(address)
    missing, extra = find_missing((log,), traffic.ids), count_rows(log) - answers
    return make_rows(soak, seconds, Rows(missing, extra, count_rows(log, "feedback"), lost_rows))


@dataclass(frozen=True)
class Rows:
    """What the log has: answers without a row, rows beyond the answers, tasters' grades, rows that it says it lost."""

    missing: int
    extra: int
    grades: int
    lost: float


def make_rows(soak: Soak, seconds: float, rows: Rows) -> tuple[list[dict[str, str]], bool]:
    """What a soak came to, and whether every goal is met; memory has none in a short soak."""
    counts = soak.traffic.counts
    errors = sum(number for name, number in counts.items() if name.split()[-1].startswith("5"))
    not_answered = sum(number for name, number in counts.items() if name.startswith("status ") and name != "status 200")
    answers, wrong, lost = counts["answers"], counts["wrong"], counts["lost"]
    versions = " and ".join(f"{counts[f'by version {version}']:,}" for version in ("1", "2"))
    refused = sum(number for name, number in counts.items() if name.startswith("invalid body: 4"))
    taken = counts["grade: 200"] + counts["grade: 201"]
    refused_grades = (
        sum(number for name, number in counts.items() if name.startswith("grade: 4")) - counts["grade: 409"]
    )
    slope, last = find_slope(soak.memory, soak.predictions), soak.memory[-1][1]
    table = [
        make_row("predictions answered", "", f"{answers:,} in {seconds:,.0f} s, {answers / seconds:,.0f} a second"),
        make_row("by version 1 and 2, over reloads", "", f"{versions}, {counts['reloads']} reloads"),
        make_row("wrong answers", "0", f"{wrong}"),
        make_row("requests without an answer", "0", f"{lost}"),
        make_row("valid requests with another status than 200", "0", f"{not_answered}"),
        make_row("answers of 5xx", "0", f"{errors}"),
        make_row("invalid bodies refused with 4xx", "", f"{refused:,}"),
        make_row("slow clients; dropped connections", "", f"{counts['slow clients']}; {counts['dropped connections']}"),
        make_row("tasters' grades taken; in the log", "the same", f"{taken:,}; {rows.grades:,}"),
        make_row("first grades refused, though the answer was given", "0", f"{refused_grades}"),
        make_row("answers without a row in the log", "0", f"{rows.missing}"),
        make_row("rows of clients that left before the answer", f"at most {soak.unread}", f"{rows.extra}"),
        make_row("rows that the log lost", "0", f"{rows.lost:.0f}"),
        make_row("memory at the end", "", f"{last:.0f} MB"),
        make_row("memory after warm-up, per 100,000 predictions", f"at most {STEEPEST} MB", f"{slope:+.2f} MB"),
    ]
    kept = not (rows.missing or rows.lost or refused_grades) and rows.grades == taken and 0 <= rows.extra <= soak.unread
    flat = slope <= STEEPEST or soak.predictions < LONG
    return table, kept and flat and not (wrong or lost or not_answered or errors)
