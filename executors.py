"""Where many pieces of work run: on threads of this process, or on the workers of a Dask cluster.

WINE_DASK says which. The pieces are handed to either as to any concurrent.futures.Executor, so few need to know.
A piece that is to run on a cluster is a function of an importable module, with arguments that can be pickled.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from commands import BadInputError, NotThereError

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local"
CONNECT_SECONDS = 20

MapFunction = Callable[
    ..., Iterable[Any]
]  # a function, and its arguments as lists -> the results in that order: map is one


@contextmanager
def open_executor(threads: int, dask: str = "") -> Iterator[Executor]:
    """An executor for as long as the block lasts; what has not begun at its end is not begun.

    Args:
        threads: pieces that run at once, where there is no cluster.
        dask: WINE_DASK. Empty: threads; local: a cluster of processes on this machine; else a scheduler's address.

    Raises:
        BadInputError: it is no address.
        NotThereError: Dask is not installed, or no scheduler answers there.
    """
    if not dask:
        executor = ThreadPoolExecutor(threads)
        try:
            yield executor
        finally:
            executor.shutdown(cancel_futures=True)
        return
    with open_cluster(dask) as client:
        # A worker that dies is not the piece's fault until it has happened three times, as Dask's own default has it.
        yield client.get_executor(pure=False)


def is_local(executor: Executor) -> bool:
    """Whether the pieces see this process's memory."""
    return isinstance(executor, ThreadPoolExecutor)


def make_map(executor: Executor) -> MapFunction:
    """How to run pieces that use every core by themselves: one after the other here, all at once on a cluster."""
    return map if is_local(executor) else executor.map


@contextmanager
def open_cluster(dask: str) -> "Iterator[Client]":
    """A client of the cluster that WINE_DASK names. Raises as open_executor does."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise NotThereError(
            f"WINE_DASK={dask} needs Dask ({error}): pip install dask distributed, or unset it"
        ) from error
    if dask == LOCAL:
        cluster = LocalCluster(
            n_workers=os.cpu_count(),
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
        )
        with cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(dask, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise NotThereError(f"no Dask scheduler answers at {dask}: start one, or correct WINE_DASK") from error
    except ValueError as error:
        raise BadInputError(f"WINE_DASK is {dask!r}: it must be local, or an address as tcp://host:8786") from error
    with client:
        yield client
