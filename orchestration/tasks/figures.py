"""A plot of a pipeline run."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter, TaskRunFilterStartTime
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import TaskRunSort

from figure_style import GREY, RED, make_axes

KEPT = "Cached"


def read_tasks(flow_run_names: Sequence[str]) -> list[TaskRun]:
    """The finished task runs of flow runs with these names, in order of their start."""
    filters = FlowRunFilter.model_validate({"name": {"any_": list(flow_run_names)}})
    started = TaskRunFilter(start_time=TaskRunFilterStartTime(is_null_=False))
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=filters, task_run_filter=started, sort=TaskRunSort.END_TIME_DESC)
    return sorted((run for run in runs if run.start_time and run.end_time), key=lambda run: str(run.start_time))


def plot_tasks(runs: Sequence[TaskRun], title: str) -> Figure:
    """Plot when each task ran, one bar per task, from the first start on; grey for cached results."""
    figure, (axis,) = make_axes(1, 1, height=0.3 * len(runs) + 1.3, width=10)
    starts = [run.start_time.timestamp() if run.start_time else 0.0 for run in runs]
    ends = [run.end_time.timestamp() if run.end_time else 0.0 for run in runs]
    colours = [GREY if run.state_name == KEPT else RED for run in runs]
    first = min(starts)
    places = range(len(runs))
    axis.barh(
        places, [e - s for s, e in zip(starts, ends, strict=True)], left=[s - first for s in starts], color=colours
    )
    for place, start, end in zip(places, starts, ends, strict=True):
        axis.text(end - first, place, f" {end - start:.1f} s", va="center", fontsize=7)
    axis.set(yticks=places, xlabel="seconds since the first task started", title=title)
    axis.set_yticklabels([run.name for run in runs], fontsize=8)
    axis.margins(x=0.08)
    axis.invert_yaxis()
    return figure
