"""Deployment runs that ended badly: runs whose process is gone, and retrainings without a result."""

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from wine_data.schema import NAME

ALIVE = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
GONE = "Its process is gone: the worker was killed, or its machine went down."
BAD = (StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


def end_lost_runs() -> list[str]:
    """Mark runs as crashed if their worker was killed, because Prefect does not; return a sentence on each.

    A live run renews the lease on its deployment's concurrency slot. Prefect frees the slot of a dead run within about
    five minutes. So if no slot is taken, every unfinished run is dead. The caller's own run and slot do not count.
    """
    own = UUID(flow_run.id) if flow_run.id else None
    with get_client(sync_client=True) as client:
        tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[NAME]))
        lost = [
            run for each in client.read_deployments(deployment_filter=tagged) for run in _end_lost(client, each, own)
        ]
    return [f"The run {run.name} was lost with its worker, and is marked as crashed" for run in lost]


def _end_lost(client: SyncPrefectClient, deployment: DeploymentResponse, own: UUID | None) -> Iterator[FlowRun]:
    """Mark a deployment's unfinished runs without a slot as crashed."""
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ALIVE)))),
    )
    # Read after the runs: a run that took its slot since then is not among them, and one that freed it has finished.
    slots = client.read_deployment(deployment.id).global_concurrency_limit
    is_own = own in [run.id for run in runs]
    if slots is None or slots.active_slots > is_own:
        return
    for run in runs:
        now = client.read_flow_run(run.id)
        if run.id != own and now.state and now.state.type in ALIVE:
            client.set_flow_run_state(run.id, Crashed(message=GONE), force=True)
            if is_own:  # at the end of any run Prefect frees a slot, even if the run had lost its own
                held = GlobalConcurrencyLimitUpdate(active_slots=slots.active_slots)
                client.update_global_concurrency_limit(slots.name, held)
            yield now


def find_bad_end(run_id: str) -> str:
    """The state in which a run failed, crashed or was cancelled; "" if it is unfinished, successful or unknown."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(run_id)).state
    except (ObjectNotFound, ValueError):  # of another server, or deleted
        return ""
    return state.type.value.lower() if state and state.type in BAD else ""


def has_succeeded(flow: str, since: datetime) -> bool:
    """Whether a run of a flow that started after `since` has succeeded."""
    begun = FlowRunFilterStartTime(after_=since)
    well = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(start_time=begun, state=well),
            limit=1,
        )
    return bool(found)
