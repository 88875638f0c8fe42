"""Workers and servers that are killed: the slot of a deployment is free again, and what was lost is ended."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect import Task, flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Crashed, Failed, Running

from orchestration import batch, flows, monitoring
from orchestration.tasks.lost_runs import end_lost_runs, find_bad_end
from tests.benchmarks.prefect_study import ALONE, KILLED, SERVER, break_runs
from tests.services import SCORE, Services, await_state, count_slots, kill_service, run_services
from tests.waiting import wait_until

LEASE_SECONDS = 30  # the least that Prefect takes; 300 by default


@pytest.fixture
def services(empty_stores: Path, tmp_path: Path) -> Iterator[Services]:
    """A server with deployments and a worker, whose leases are short."""
    short = {
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "1",
        "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": str(LEASE_SECONDS),
    }
    with run_services(tmp_path, empty_stores, **short) as running:
        running.do("deploy")
        with temporary_settings({PREFECT_API_URL: running.api}):
            yield running


@pytest.fixture
def client(services: Services) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(api=services.api) as client:
        yield client


@flow
def do_nothing() -> None:
    """A run that can be in any state."""


def kill_and_recover(services: Services, client: SyncPrefectClient, moment: StateType, patience: float) -> None:
    """Kill the worker at a moment of a run, and the server after it; the next run has its turn."""
    services.do("worker")
    score = client.read_deployment_by_name(SCORE).id
    lost = client.create_flow_run_from_deployment(score).id
    await_state(client, lost, moment)
    kill_service(services, "worker")
    assert end_lost_runs() == []  # its slot is held, as if it went on
    kill_service(services, "server")
    services.do("prefect")
    wait_until(lambda: count_slots(client, score) == 0, "the slot is free", seconds=patience, every=1)
    assert len(end_lost_runs()) == 1
    assert find_bad_end(str(lost)) == "crashed"
    assert end_lost_runs() == []
    services.do("worker")
    await_state(client, client.create_flow_run_from_deployment(score).id, StateType.COMPLETED)
    assert count_slots(client, score) == 0


@pytest.mark.full
def test_a_worker_killed_before_its_run_began_does_not_keep_the_slot(
    services: Services, client: SyncPrefectClient
) -> None:
    kill_and_recover(services, client, StateType.PENDING, LEASE_SECONDS + 60)


@pytest.mark.full
def test_the_next_run_of_monitor_ends_one_that_was_lost_though_it_has_nothing_else_to_do(
    services: Services, client: SyncPrefectClient
) -> None:
    services.do("worker")
    monitor = client.read_deployment_by_name("wine-quality-monitoring/monitor").id
    lost = client.create_flow_run_from_deployment(monitor).id
    await_state(client, lost, StateType.PENDING, StateType.RUNNING)
    kill_service(services, "worker")
    wait_until(lambda: count_slots(client, monitor) == 0, "the slot is free", seconds=LEASE_SECONDS + 60, every=1)
    assert find_bad_end(str(lost)) == ""
    services.do("worker")
    following = client.create_flow_run_from_deployment(monitor).id
    await_state(client, following, StateType.FAILED)  # no model serves here
    assert find_bad_end(str(lost)) == "crashed"
    assert count_slots(client, monitor) == 0


@pytest.mark.full
def test_of_runs_whose_worker_or_server_is_killed_none_keeps_its_slot(
    services: Services, client: SyncPrefectClient
) -> None:
    services.do("worker")
    tries = break_runs(services, client, {KILLED: 1, SERVER: 1, ALONE: 1}, seed=1)  # PENDING, RUNNING, PENDING
    assert [one.is_sound for one in tries] == [True, True, True], tries


def test_a_task_has_no_tag_for_which_prefects_server_would_be_asked_for_a_slot() -> None:
    tasks = [each for module in (flows, batch, monitoring) for each in vars(module).values() if isinstance(each, Task)]
    assert len(tasks) > 20
    assert [each.name for each in tasks if each.tags] == []


@pytest.mark.full
@pytest.mark.parametrize(
    ("state", "end"),
    [(Failed, "failed"), (Crashed, "crashed"), (Cancelled, "cancelled"), (Completed, ""), (Running, "")],
)
def test_only_what_ended_without_a_result_ended_badly(prefect: str, state: Callable[[], object], end: str) -> None:
    with SyncPrefectClient(api=prefect) as client:
        run = client.create_flow_run(do_nothing, state=state())  # type: ignore[arg-type]
    assert find_bad_end(str(run.id)) == end


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("unknown", [str(UUID(int=1)), "some-run"])
def test_a_run_that_the_server_does_not_know_did_not_end_badly(unknown: str) -> None:
    assert find_bad_end(unknown) == ""
