"""A flow's tasks on a Dask cluster. Imported only where WINE_DASK names one.

The workers need what the tasks use: this project's environment, the tracking store, the Prefect server, and the folder
of snapshots, all by the addresses and paths of the machine that runs the flow.
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
    """Sets the tracking store on every worker, one that takes a dead one's place too."""

    name = "tracking store"

    def __init__(self, uri: str) -> None:
        """Take the store's address."""
        self.uri = uri

    def setup(self, worker: Worker) -> None:  # noqa: ARG002
        """Called by the worker once."""
        mlflow.set_tracking_uri(self.uri)


@contextmanager
def open_task_runner(dask: str) -> Iterator[DaskTaskRunner]:
    """What runs tasks on the cluster that WINE_DASK names. Raises as executors.open_executor does."""
    with open_cluster(dask) as client, get_client(sync_client=True) as prefect:
        client.register_plugin(TrackingPlugin(mlflow.get_tracking_uri()))
        # Where Prefect's server is a temporary one, a worker would start another of its own.
        with (
            temporary_settings({PREFECT_API_URL: str(prefect.api_url)}),
            DaskTaskRunner(address=client.scheduler_info()["address"]) as runner,
        ):
            yield runner


def log_step(step: str) -> None:
    """Log a fit that is done, in the task that did it."""
    get_run_logger().info(step)
