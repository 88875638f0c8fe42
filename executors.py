"""Executors for many tasks: threads of this process, or workers of a Dask cluster (WINE_DASK).

Both are a concurrent.futures.Executor. On a cluster, a task is a function of an importable module whose arguments can
be pickled.
"""

import logging
import os
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from commands import BadInputError, NotThereError

if TYPE_CHECKING:
    from distributed import Client

LOCAL = "local"
CONNECT_SECONDS = 20

MapFunction = Callable[..., Iterable[Any]]  # like map: a function and lists of its arguments; results in that order


@contextmanager
def open_executor(threads: int, dask: str = "") -> Iterator[Executor]:
    """Open an executor for the block: `threads` of this process, or the cluster of WINE_DASK.

    Tasks that have not started when the block ends are cancelled. The block waits for the others, unless it was
    cancelled, by a time-out of Prefect's: one of them may hang. Errors as in open_cluster.
    """
    if dask:
        with open_cluster(dask) as client:  # it retries a task whose worker dies, three times
            yield client.get_executor(pure=False)
        return
    executor, wait = ThreadPoolExecutor(threads), True
    try:
        yield executor
    except CancelledError:
        wait = False
        raise
    finally:
        executor.shutdown(wait, cancel_futures=True)


def is_local(executor: Executor) -> bool:
    """Whether the tasks share this process's memory."""
    return isinstance(executor, ThreadPoolExecutor)


def make_map(executor: Executor) -> MapFunction:
    """A map for tasks that each use every core: one after the other here, all at once on a cluster."""
    return map if is_local(executor) else executor.map


@contextmanager
def open_cluster(dask: str) -> "Iterator[Client]":
    """Connect to a Dask cluster: processes on this machine (local), or the scheduler at an address.

    Raises:
        BadInputError: the address is invalid.
        NotThereError: Dask is not installed, or no scheduler responds there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        problem = f"WINE_DASK={dask} needs Dask ({error})"
        raise NotThereError(f"{problem}: pip install dask distributed, or unset it") from error
    here = {"n_workers": os.cpu_count(), "threads_per_worker": 1, "host": "127.0.0.1"}
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.ERROR}
    try:
        client = Client(**here, **quiet) if dask == LOCAL else Client(dask, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise NotThereError(f"no Dask scheduler answers at {dask}: start one, or correct WINE_DASK") from error
    except ValueError as error:
        raise BadInputError(
            f"WINE_DASK is {dask!r}: it must be local, or an address such as tcp://host:8786"
        ) from error
    with client:
        yield client
