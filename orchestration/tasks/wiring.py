"""Turn plain functions into Prefect tasks, and start the server that a command's flow needs."""

import hashlib
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

from mlflow.exceptions import MlflowException
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.task_engine import TaskRunTimeoutError
from prefect.tasks import exponential_backoff
from sqlalchemy.exc import SQLAlchemyError

from commands import NotThereError
from orchestration.tasks.steps import fingerprint_code, identify_store

P = ParamSpec("P")
T = TypeVar("T")
FROM_OUTSIDE = (OSError, NotThereError, MlflowException, SQLAlchemyError)  # of a disk, a store or a server: temporary


def may_pass(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failure may be temporary: external ones may, errors in wines, settings or code are not.

    A task that reached its timeout is not retried: it would need the same time again.
    """
    result = state.result(raise_on_failure=False)
    return isinstance(result, FROM_OUTSIDE) and not isinstance(result, TaskRunTimeoutError)


def key_by_content(names: Sequence[str]) -> Callable[[TaskRunContext, dict[str, Any]], str]:
    """Make a function for a task's cache key, from the named parameters, the code that affects it, and the store."""

    def make_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
        parts = [context.task.name, fingerprint_code(), identify_store(), *(str(parameters[name]) for name in names)]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()

    return make_key


def wire(  # noqa: PLR0913 (as Prefect's own task)
    function: Callable[P, T],
    name: str,
    run_name: str | None = None,
    retries: int = 3,
    timeout: float | None = 300,
    cached_by: Sequence[str] = (),
) -> Task[P, T]:
    """Make a task from a function, with a timeout in seconds (None: no limit); a timeout is not retried.

    Failures that may be temporary are retried after about 2, 4 and 8 s. With `cached_by`, names of parameters, the
    result is cached and reused until one of them, the code or the store changes.
    """
    cache: dict[str, Any] = {"cache_policy": NO_CACHE}
    if cached_by:
        cache = {"cache_key_fn": key_by_content(cached_by), "persist_result": True}
    make_task = task(  # without tags: for each, Prefect asks its server for a slot, and fails the task if it is away
        name=name,
        task_run_name=run_name or name,
        timeout_seconds=timeout,
        retries=retries,
        retry_delay_seconds=exponential_backoff(2),
        retry_jitter_factor=0.5,
        retry_condition_fn=may_pass,
        **cache,
    )
    return make_task(function)


def use_kept(kept: T, is_there: Callable[[T], bool], again: Task[P, T], *args: P.args, **parameters: P.kwargs) -> T:
    """Return a cached task's result; if the object it names was removed since, run the task again."""
    return kept if is_there(kept) else again.with_options(refresh_cache=True)(*args, **parameters)


@contextmanager
def prefect_server() -> Iterator[None]:
    """Start Prefect's temporary server, if no other is set, and shield it from Ctrl-C.

    A terminal sends Ctrl-C to every process of a command. The server would end at once, and the flow would try for
    minutes to report its end to it. A signal blocked here stays blocked in the child process.

    Raises:
        NotThereError: the temporary server does not start, or that of PREFECT_API_URL does not respond.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with ExitStack() as stack:
            try:
                client = stack.enter_context(get_client(sync_client=True))
            except RuntimeError as error:
                raise NotThereError(f"{error} PREFECT_HOME must be a folder that can be written") from error
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            if client.api_healthcheck():
                problem = f"no Prefect server answers at {client.api_url}"
                raise NotThereError(f"{problem}: start it, or unset PREFECT_API_URL for a temporary one")
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
