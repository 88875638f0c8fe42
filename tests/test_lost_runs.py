"""Which runs of Prefect count as having ended badly."""

import os
from collections.abc import Callable
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Cancelled, Completed, Crashed, Failed, Running

from orchestration.tasks.lost_runs import find_bad_end


@pytest.mark.parametrize(
    ("state", "end"),
    [(Failed, "failed"), (Crashed, "crashed"), (Cancelled, "cancelled"), (Completed, ""), (Running, "")],
)
def test_only_what_ended_without_a_result_ended_badly(prefect: str, state: Callable[[], object], end: str) -> None:
    with SyncPrefectClient(api=prefect) as client:
        run = client.create_flow_run(flow(lambda: None, name="any"), state=state())  # type: ignore[arg-type]
    assert find_bad_end(str(run.id)) == end


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("unknown", [str(UUID(int=os.getpid())), "some-run"])
def test_a_run_that_the_server_does_not_know_did_not_end_badly(unknown: str) -> None:
    assert find_bad_end(unknown) == ""
