"""Run a flow's tasks on a Dask cluster; imported only if WINE_DASK names one.

The workers need this project's environment, the tracking store, the Prefect server and the folder of snapshots, at the
same addresses and paths as on the machine that runs the flow.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from distributed import Worker, WorkerPlugin
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_dask.task_runners import DaskTaskRunner

from executors import open_cluster


class TrackingPlugin(WorkerPlugin):
    """Sets the tracking store on every worker, including replacements of dead workers."""

    name = "tracking store"

    def __init__(self, uri: str) -> None:
        """Take the store's address."""
        self.uri = uri

    def setup(self, worker: Worker) -> None:  # noqa: ARG002
        """Set the store; each worker calls this once."""
        mlflow.set_tracking_uri(self.uri)


@contextmanager
def open_task_runner(dask: str) -> Iterator[DaskTaskRunner]:
    """Open a task runner on the cluster of WINE_DASK; errors as in executors.open_executor."""
    with open_cluster(dask) as client, get_client(sync_client=True) as prefect:
        client.register_plugin(TrackingPlugin(mlflow.get_tracking_uri()))
        # If Prefect's server is temporary, a worker would start another one.
        with (
            temporary_settings({PREFECT_API_URL: str(prefect.api_url)}),
            DaskTaskRunner(address=client.scheduler_info()["address"]) as runner,
        ):
            yield runner


def log_step(step: str) -> None:
    """Log a finished fit, in the task that ran it."""
    get_run_logger().info(step)
