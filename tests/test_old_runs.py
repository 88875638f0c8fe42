"""Prefect's server removes what is older than WINE_KEEP_DAYS, by its own service, on the version in the lock."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Running

from tests.benchmarks.prefect_weeks import start_prefect
from tests.faults import run_alone
from tests.waiting import wait_until

pytestmark = pytest.mark.full


@flow
def do_nothing() -> None:
    """A run that can be in any state."""


def test_the_server_removes_runs_that_ended_longer_ago_than_keep_days(empty_stores: Path, tmp_path: Path) -> None:
    with (
        start_prefect(tmp_path, empty_stores, keep_days=2) as prefect,
        SyncPrefectClient(api=PREFECT_API_URL.value()) as client,
    ):
        young, old = (client.create_flow_run(do_nothing, state=Completed()).id for _ in range(2))
        unended = client.create_flow_run(do_nothing, state=Running()).id
        with prefect.connect() as database, database:
            for run, days in ((young, 1), (old, 3)):
                end = f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d %H:%M:%S.%f}"
                database.execute("UPDATE flow_run SET end_time = ? WHERE id = ?", (end, str(run)))

        def list_runs() -> set[UUID]:
            return {run.id for run in client.read_flow_runs()}

        assert wait_until(lambda: old not in list_runs(), "the old run is gone", seconds=90, every=0.5)
        assert {young, unended} <= list_runs()


def test_weeks_of_runs_leave_no_more_than_those_of_keep_days(empty_stores: Path, tmp_path: Path) -> None:
    """In a process of its own: Prefect's sender of events knows one server for as long as a process lives."""
    run_alone(pass_weeks, empty_stores, tmp_path)


def pass_weeks(empty_stores: Path, folder: Path) -> None:
    with start_prefect(folder, empty_stores, keep_days=10) as prefect:
        for kept in (2, 4, 4, 4):
            prefect.pass_week()
            prefect.run(2)
            # A run has another inside, three tasks, 6 lines of its own in the log besides Prefect's, and an artifact.
            expected = {"flow_run": 2 * kept, "task_run": 3 * kept, "artifact": kept}

            def has_expected(expected: dict[str, int] = expected) -> bool:
                return expected.items() <= prefect.count_rows().items()

            wait_until(has_expected, f"{expected}: written and removed in the background", seconds=60)
            lines = prefect.count_rows()["log"] / kept
            assert lines == int(lines) >= 6
