"""Runs of the deployments that ended badly: those whose process is gone, and retrainings that trained nothing."""

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
    """Mark runs as crashed whose worker was killed, as nobody else does; return a sentence on each.

    A run that lives renews its hold on its deployment's slot. Prefect frees the slot of one that is gone within
    about five minutes. So where no slot is held, every run that is not over is gone, and for the deployment of
    the run that asks, every other run.
    """
    own = UUID(flow_run.id) if flow_run.id else None
    with get_client(sync_client=True) as client:
        tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[NAME]))
        lost = [
            run for each in client.read_deployments(deployment_filter=tagged) for run in _end_lost(client, each, own)
        ]
    return [f"The run {run.name} was lost with its worker, and is marked as crashed" for run in lost]


def _end_lost(client: SyncPrefectClient, deployment: DeploymentResponse, own: UUID | None) -> Iterator[FlowRun]:
    """End the runs of a deployment that are not over and hold no slot."""
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ALIVE)))),
    )
    # Read after the runs: one that took its slot since then is not among them, and one that left it is over.
    slots = client.read_deployment(deployment.id).global_concurrency_limit
    is_own = own in [run.id for run in runs]
    if slots is None or slots.active_slots > is_own:
        return
    for run in runs:
        now = client.read_flow_run(run.id)
        if run.id != own and now.state and now.state.type in ALIVE:
            client.set_flow_run_state(run.id, Crashed(message=GONE), force=True)
            if is_own:  # Prefect frees a slot at the end of any run, of one that had lost its own too
                held = GlobalConcurrencyLimitUpdate(active_slots=slots.active_slots)
                client.update_global_concurrency_limit(slots.name, held)
            yield now


def find_bad_end(run_id: str) -> str:
    """The name of the state in which a run ended without a result; "" for one that goes on, went well or is unknown."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(run_id)).state
    except (ObjectNotFound, ValueError):  # another server's, or removed since
        return ""
    return state.type.value.lower() if state and state.type in BAD else ""


def has_succeeded(flow: str, since: datetime) -> bool:
    """Whether a run of a flow that was begun since then went well."""
    begun = FlowRunFilterStartTime(after_=since)
    well = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(start_time=begun, state=well),
            limit=1,
        )
    return bool(found)
