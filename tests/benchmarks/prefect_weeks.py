"""Weeks of runs on a real Prefect server in minutes: after each, the times in its database move back by a week."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from tests.services import run_services
from tests.waiting import wait_until

DATABASE, EVENT_DAYS = ".prefect/prefect.db", 7  # Prefect keeps events for a week, whatever is set for runs
TABLES = ("flow_run", "task_run", "log", "artifact", "events")
TIMES = {"flow_run": "end_time", "events": "occurred", "event_resources": "occurred"}  # the server removes by these


@task
def log_lines(lines: int) -> None:
    """Log some lines, as a task of the pipeline does."""
    for line in range(lines):
        get_run_logger().info("line %d", line)


@flow
def part() -> None:
    """A flow inside another, with an artifact."""
    log_lines(3)
    create_markdown_artifact("a table of scores\n" * 20, key="scores")


@flow
def scheduled() -> None:
    """What a schedule starts: a task, and a flow inside."""
    log_lines(3)
    part()


@dataclass(frozen=True)
class PrefectWeeks:
    """A Prefect server in a folder, with the settings of `make prefect`; `keep_days` is WINE_KEEP_DAYS."""

    folder: Path
    keep_days: int

    def run(self, runs: int) -> None:
        """Run so many scheduled flows, which end now."""
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # its thread takes a second to end
            for _ in range(runs):
                scheduled()
        APILogWorker.drain_all(timeout=60)

    def pass_week(self) -> None:
        """Move the times back by a week, and wait until the server has removed what became too old."""
        with self.connect() as database, database:
            for table, column in TIMES.items():
                moved = f"strftime('%Y-%m-%d %H:%M:', {column}, '-7 days') || substr({column}, 18)"
                database.execute(f"UPDATE {table} SET {column} = {moved}")
        wait_until(lambda: self.count_old() == 0, "old runs and events are removed", seconds=300, every=0.5)

    def count_old(self) -> int:
        """The rows that became too old an hour ago, or before."""
        days = dict.fromkeys(TIMES, EVENT_DAYS) | {"flow_run": self.keep_days}
        counts = [
            f"SELECT count(*) FROM {table} WHERE {column} < datetime('now', '-{days[table]} days', '-1 hour')"
            for table, column in TIMES.items()
        ]
        with self.connect() as database:
            return sum(database.execute(count).fetchone()[0] for count in counts)

    def count_rows(self) -> dict[str, int]:
        """The rows of each table that grows with the runs."""
        with self.connect() as database:
            return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}

    def measure(self) -> int:
        """The database in bytes."""
        return (self.folder / DATABASE).stat().st_size

    def connect(self) -> closing[sqlite3.Connection]:
        """The server's database."""
        return closing(sqlite3.connect(self.folder / DATABASE, timeout=60))


@contextmanager
def start_prefect(folder: Path, empty_stores: Path, keep_days: int) -> Iterator[PrefectWeeks]:
    """Start a server that looks each second for what is old, and end it after the block."""
    often = {f"PREFECT_SERVER_SERVICES_DB_VACUUM_{each}LOOP_SECONDS": "1" for each in ("", "ORPHAN_CLEANUP_")}
    with (
        run_services(folder, empty_stores, WINE_KEEP_DAYS=str(keep_days), **often) as services,
        temporary_settings({PREFECT_API_URL: services.api}),
    ):
        yield PrefectWeeks(folder, keep_days)
