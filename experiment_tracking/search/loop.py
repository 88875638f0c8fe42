"""The loop of a search: ask for a batch, run it in parallel, wait for all of it, pass the losses to the optimisers.

A batch has as many trials whatever the number of workers, nothing in it depends on another trial of it,
and results are passed on in the order of the trials. So the seed alone decides what is tried and found.

Trials run in threads, where XGBoost and the forests fit outside Python's lock, a killed search leaves no
process behind and the wines need not be sent anywhere; or on a cluster, where there is one (WINE_DASK).
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed, wait
from dataclasses import dataclass

from commands import BadInputError
from executors import is_local
from experiment_tracking.search.ledger import Ledger, Record, finish_trial, kill_open_trials, start_trial
from experiment_tracking.search.optimiser import Optimiser
from experiment_tracking.search.space import BATCH, Study, Values
from experiment_tracking.search.trial import FAILED, SCORED, TrialResult

# (study, values, results of earlier batches, whether the search is stopped) -> result
RunTrial = Callable[[Study, Values, Sequence[TrialResult], Callable[[], bool]], TrialResult]


@dataclass(frozen=True)
class Trial:
    """A trial that is over."""

    number: int
    study: Study
    values: Values
    result: TrialResult


def run_search(
    optimisers: Mapping[Study, Optimiser],
    trials: int,
    run_trial: RunTrial,
    ledger: Ledger,
    records: Mapping[int, Record],
    executor: Executor,
    size: int = BATCH,
    seconds: float | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Run trials in batches, dealt out to the studies in turn.

    Args:
        optimisers: one for each study.
        trials: how many in all.
        run_trial: what a trial is.
        ledger: where each is written down.
        records: trials of the same search that are over already, by number; they are not run again.
        executor: what runs them; on threads a trial learns when the search is stopped.
        size: trials of a batch; another number finds other values.
        seconds: no batch is started after these.
        on_trial: called for each trial that is over.
    """
    deadline = time.monotonic() + seconds if seconds is not None else None
    studies = list(optimisers)
    done: list[Trial] = []
    for first in range(0, trials, size):
        if done and deadline is not None and time.monotonic() > deadline:
            break
        numbers = range(first, min(first + size, trials))
        batch = {number: studies[number % len(studies)] for number in numbers}
        drawn = _suggest(optimisers, batch)
        _require_same_values(drawn, records)
        results = {number: records[number].result for number in batch if number in records}
        waiting = {number: drawn[number] for number in batch if number not in results}
        ended = {number: result for number, result in results.items() if result is not None}
        for number, result in ended.items():
            on_trial(Trial(number, batch[number], drawn[number], result))
        ended |= _run_batch(batch, waiting, done, run_trial, ledger, executor, on_trial)
        for study, optimiser in optimisers.items():
            optimiser.tell([ended[number].loss for number in batch if batch[number] == study])
        done += [Trial(number, batch[number], drawn[number], ended[number]) for number in batch]
    return done


def choose_best(trials: Sequence[Trial], study: Study) -> Trial | None:
    """The trial of a study with the lowest loss over all folds; None where every one failed."""
    scored = [trial for trial in trials if trial.study == study and trial.result.outcome == SCORED]
    return min(scored, key=lambda trial: (trial.result.loss, trial.number), default=None)


def _suggest(optimisers: Mapping[Study, Optimiser], batch: Mapping[int, Study]) -> dict[int, Values]:
    drawn: dict[int, Values] = {}
    for study, optimiser in optimisers.items():
        numbers = [number for number in batch if batch[number] == study]
        drawn |= dict(zip(numbers, optimiser.suggest(len(numbers)), strict=True))
    return drawn


def _require_same_values(drawn: Mapping[int, Values], records: Mapping[int, Record]) -> None:
    for number, values in drawn.items():
        if number in records and records[number].values != values:
            raise BadInputError(
                f"trial {number} of the search to resume had other values than it would get now: the space, the "
                "optimiser or a library has changed since. Start a new search without --resume"
            )


def _run_batch(
    batch: Mapping[int, Study],
    waiting: Mapping[int, Values],
    done: Sequence[Trial],
    run_trial: RunTrial,
    ledger: Ledger,
    executor: Executor,
    on_trial: Callable[[Trial], None],
) -> dict[int, TrialResult]:
    """Run the trials of a batch that have no result yet, and write each down when it is over."""
    stopped = threading.Event()
    is_stopped = stopped.is_set if is_local(executor) else never
    results: dict[int, TrialResult] = {}
    runs: dict[int, str] = {}  # by trial
    futures: dict[Future[TrialResult], int] = {}
    try:
        for number, values in waiting.items():
            runs[number] = start_trial(ledger, number, batch[number], values)
            earlier = [trial.result for trial in done if trial.study == batch[number]]
            futures[executor.submit(run_trial, batch[number], values, earlier, is_stopped)] = number
        for future in as_completed(futures):
            number = futures[future]
            results[number] = _take_result(future)
            finish_trial(runs[number], results[number])
            on_trial(Trial(number, batch[number], waiting[number], results[number]))
    except BaseException:  # ctrl-c too: a run that nobody works on must not look as if somebody did
        stopped.set()
        wait([future for future in futures if not future.cancel()])
        kill_open_trials(ledger)
        raise
    return results


def never() -> bool:
    """The answer that a trial in another process gets when it asks whether the search is stopped."""
    return False


def _take_result(future: Future[TrialResult]) -> TrialResult:
    """What a trial came to; one that raised has failed, and the search goes on."""
    error = future.exception()
    if error is None:
        return future.result()
    if not isinstance(error, Exception):
        raise error
    return TrialResult(FAILED, problem=f"{type(error).__name__}: {error}")
