"""Where many pieces of work run: on threads of this process, or on the workers of a Dask cluster, as WINE_DASK says.

Both are a concurrent.futures.Executor. On a cluster, a piece is a function of an importable module, with arguments that
can be pickled.
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

MapFunction = Callable[..., Iterable[Any]]  # as map: a function and lists of its arguments to results in that order


@contextmanager
def open_executor(threads: int, dask: str = "") -> Iterator[Executor]:
    """An executor for as long as the block lasts: `threads` of this process, or the cluster of WINE_DASK.

    What has not begun at the block's end is not begun. Raises as open_cluster does.
    """
    if dask:
        with open_cluster(dask) as client:  # which runs a piece again where its worker dies, three times
            yield client.get_executor(pure=False)
        return
    executor = ThreadPoolExecutor(threads)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def is_local(executor: Executor) -> bool:
    """Whether the pieces see this process's memory."""
    return isinstance(executor, ThreadPoolExecutor)


def make_map(executor: Executor) -> MapFunction:
    """How to run pieces that use every core by themselves: one after the other here, all at once on a cluster."""
    return map if is_local(executor) else executor.map


@contextmanager
def open_cluster(dask: str) -> "Iterator[Client]":
    """A client of a cluster: of processes on this machine (local), or of the scheduler at an address.

    Raises:
        BadInputError: it is no address.
        NotThereError: Dask is not installed, or no scheduler answers there.
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
