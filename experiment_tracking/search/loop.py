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
from experiment_tracking.search.space import Plan, Study, Values
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


@dataclass(frozen=True)
class TrialRunner:
    """How trials are run.

    Attributes:
        run_trial: what a trial is.
        ledger: where each is written down.
        executor: what runs them; on threads a trial learns when the search is stopped.
        on_trial: called for each trial that is over.
    """

    run_trial: RunTrial
    ledger: Ledger
    executor: Executor
    on_trial: Callable[[Trial], None] = lambda trial: None

    def run_batch(
        self, batch: Mapping[int, Study], values: Mapping[int, Values], done: Sequence[Trial]
    ) -> dict[int, TrialResult]:
        """Run the trials of a batch, but for those that the ledger has finished, and write each down when it is over.

        Args:
            batch: the study of each trial, by number.
            values: those of each trial.
            done: the trials of earlier batches.
        """
        results = {}
        for number, study in batch.items():
            record = self.ledger.finished.get(number)
            if record and record.result is not None:
                results[number] = record.result
                self.on_trial(Trial(number, study, values[number], record.result))
        stopped = threading.Event()
        is_stopped = stopped.is_set if is_local(self.executor) else never
        runs: dict[int, str] = {}  # by trial
        futures: dict[Future[TrialResult], int] = {}
        try:
            for number in [number for number in batch if number not in results]:
                runs[number] = start_trial(self.ledger, number, batch[number], values[number])
                earlier = [trial.result for trial in done if trial.study == batch[number]]
                future = self.executor.submit(self.run_trial, batch[number], values[number], earlier, is_stopped)
                futures[future] = number
            for future in as_completed(futures):
                number = futures[future]
                results[number] = _take_result(future)
                finish_trial(runs[number], results[number])
                self.on_trial(Trial(number, batch[number], values[number], results[number]))
        except BaseException:  # ctrl-c too: a run that is no longer worked on must not look as if it were
            stopped.set()
            wait([future for future in futures if not future.cancel()])
            kill_open_trials(self.ledger)
            raise
        return results


def run_search(optimisers: Mapping[Study, Optimiser], plan: Plan, runner: TrialRunner) -> list[Trial]:
    """Run the trials of a plan in batches, dealt out to the studies in turn, with an optimiser for each study.

    No batch is started after the minutes of the plan; a batch of another size finds other values.
    """
    deadline = time.monotonic() + 60 * plan.minutes if plan.minutes else None
    studies = list(optimisers)
    done: list[Trial] = []
    for first in range(0, plan.trials, plan.batch):
        if done and deadline is not None and time.monotonic() > deadline:
            break
        numbers = range(first, min(first + plan.batch, plan.trials))
        batch = {number: studies[number % len(studies)] for number in numbers}
        values = _suggest(optimisers, batch)
        _require_same_values(values, runner.ledger.finished)
        results = runner.run_batch(batch, values, done)
        for study, optimiser in optimisers.items():
            optimiser.tell([results[number].loss for number in batch if batch[number] == study])
        done += [Trial(number, batch[number], values[number], results[number]) for number in batch]
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
