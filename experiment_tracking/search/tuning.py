"""Hyperparameter search: hyperopt suggests a batch of trials, they run in parallel, and it gets their losses.

The seed alone decides the trials and the result. The number of workers does not change a batch, no trial depends on
another of its batch, and hyperopt gets the losses in the order of the trials. Trials run in threads, where XGBoost and
forests fit outside Python's lock (GIL) and the wines need not be sent anywhere, or on a cluster (WINE_DASK).

In MLflow a search is a parent run with a nested run for each trial: FINISHED with its result, FAILED with the
reason, or KILLED with the search. One tag holds the whole result, so --resume reads back exactly what TPE got. A tag of
the parent names the process that works on it, so that no other process takes over a running search.
"""

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed, wait
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
from hyperopt import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK, Domain, space_eval, tpe
from hyperopt.fmin import generate_trials_to_calculate
from mlflow.entities import Run
from rich.console import Console
from rich.progress import Progress

from commands import BadInputError
from executors import is_local
from experiment_tracking.runs.locks import hold_lock
from experiment_tracking.runs.tracking import KILLED, PROBLEM, end_run, log_values, nest_under, start_run
from experiment_tracking.search.space import Plan, Space, Values, list_spaces
from experiment_tracking.search.trials import (
    FAILED,
    SCORED,
    Trial,
    TrialResult,
    choose_best,
    prepare_folds,
    prepare_published,
    run_trial,
)
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.evaluate import AS_PUBLISHED

KIND, SEARCH, TRIAL = "search.kind", "search", "trial"
IDENTITY, NUMBER, VALUES, RESULT = "search.identity", "search.trial", "search.values", "search.result"
PROCESS = "search.process"
RANDOM_DRAWS = 4  # before TPE models the losses, for 12 of 16 trials; hyperopt's default of 20 suits longer searches

RunTrial = Callable[..., TrialResult]  # trials.run_trial without its folds


class TreeParzenOptimiser:
    """Hyperopt's tree of Parzen estimators (TPE): the same seed and losses give the same values.

    Trials without a loss yet count as bad, so that the trials of a batch differ.
    """

    def __init__(self, space: Space, seed: int, start: Mapping[str, float] = {}) -> None:
        """Set the space, the seed and, if given, the values of the first trial, with choices by index."""
        self._space, self._seed = space, seed
        self._domain = Domain(lambda values: None, space)
        self._trials = generate_trials_to_calculate([start] if start else [])
        self._trials.refresh()
        self._suggested = self._observed = 0

    def suggest(self) -> Values:
        """Suggest the values of the next trial."""
        if self._suggested == len(self._trials.trials):
            (trial_id,) = self._trials.new_trial_ids(1)
            seed = int(np.random.SeedSequence([self._seed, trial_id]).generate_state(1)[0])
            self._trials.insert_trial_docs(
                tpe.suggest([trial_id], self._domain, self._trials, seed, n_startup_jobs=RANDOM_DRAWS, verbose=False)
            )
            self._trials.refresh()
        drawn = self._trials.trials[self._suggested]["misc"]["vals"]
        self._suggested += 1
        return dict(space_eval(self._space, {name: values[0] for name, values in drawn.items() if values}))

    def observe(self, loss: float | None) -> None:
        """Set the loss of the oldest trial without one; lower is better, None for a failed trial."""
        document = self._trials.trials[self._observed]
        document["result"] = {"status": STATUS_FAIL} if loss is None else {"status": STATUS_OK, "loss": loss}
        document["state"] = JOB_STATE_DONE
        self._observed += 1


@dataclass(frozen=True)
class SearchRun:
    """The parent run of a search; `finished` has the finished trials of a resumed search, by number."""

    experiment_id: str
    run_id: str
    data: WineData
    finished: Mapping[int, Trial] = field(default_factory=dict)


def start_search(
    experiment_id: str, data: WineData, identity: Mapping[str, Any], others: Mapping[str, Any] = {}
) -> SearchRun:
    """Start the parent run of a new search; --resume finds it by `identity`; `others` are only logged."""
    tags = {KIND: SEARCH, IDENTITY: json.dumps(identity, sort_keys=True), PROCESS: _describe_process()}
    return SearchRun(experiment_id, start_run(experiment_id, "search", data, {**identity, **others}, tags), data)


def resume_search(experiment_id: str, data: WineData, identity: Mapping[str, Any]) -> SearchRun:
    """Find the last unfinished search with this identity, and its finished trials.

    A trial that was running when the search was killed is marked and runs again. Raises BadInputError if there is no
    such search, or another process works on it.
    """
    alike = _find_runs(experiment_id, {KIND: SEARCH, IDENTITY: json.dumps(identity, sort_keys=True)})
    unfinished = [run for run in alike if run.info.status != "FINISHED"]
    if not unfinished:
        known = ", ".join(f"{name} {value}" for name, value in identity.items())
        raise BadInputError(f"there is no unfinished search to resume ({known}). Start one without --resume")
    run_id = unfinished[0].info.run_id
    _take_over(run_id)
    finished = {}
    for run in _find_runs(experiment_id, {KIND: TRIAL, **nest_under(run_id)}):
        number, status = int(run.data.tags[NUMBER]), run.info.status
        if status == "RUNNING":
            end_run(run.info.run_id, f"the search was killed while trial {number} ran; it ran again", KILLED)
        elif status != KILLED and RESULT in run.data.tags:
            finished[number] = _read_trial(run)
    return SearchRun(experiment_id, run_id, data, finished)


def _take_over(run_id: str) -> None:
    """Take over a search; of several processes on this machine, only one succeeds. Raises as _refuse_alive does.

    Two machines may both take it at the same moment: MLflow cannot check and write a tag in one atomic step.
    """
    client = mlflow.MlflowClient()
    with hold_lock(Path(tempfile.gettempdir(), f"wine-search-{os.getuid()}-{run_id}.lock")):
        run = client.get_run(run_id)  # inside the lock, so with the tags of the process before
        _refuse_alive(run)
        client.update_run(run_id, status="RUNNING")
        client.set_tag(run_id, PROCESS, _describe_process())
        if PROBLEM in run.data.tags:
            client.delete_tag(run_id, PROBLEM)


def _describe_process() -> str:
    """Name this process in a tag; its start time distinguishes it from a later process with the same id."""
    since = round(psutil.Process().create_time())
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since})


def _refuse_alive(run: Run) -> None:
    """Raise BadInputError if another process works on a search, or may do so on another machine."""
    if run.info.status != "RUNNING" or PROCESS not in run.data.tags:
        return
    process = json.loads(run.data.tags[PROCESS])
    pid, host = process["pid"], process["host"]
    if host == socket.gethostname():
        try:
            since = round(psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return
        if pid == os.getpid() or abs(since - process["since"]) > 1:
            return
    raise BadInputError(
        f"the search {run.info.run_id} cannot be resumed while process {pid} on {host} works on it: wait, or end "
        f"that process. If it is gone, and {host} is another machine, delete the run's tag {PROCESS} in MLflow first"
    )


def start_trial(search: SearchRun, number: int, family: str, values: Values) -> str:
    """Start the nested run of a trial and return its id."""
    tags = {KIND: TRIAL, NUMBER: str(number), VALUES: json.dumps(values, sort_keys=True), **nest_under(search.run_id)}
    parameters = {"family": family, **values}
    return start_run(search.experiment_id, f"{family} {number}", search.data, parameters, tags)


def finish_trial(run_id: str, result: TrialResult) -> None:
    """Log the result of a trial and end its run, as FAILED if the trial failed."""
    metrics = {} if result.loss is None else {"loss": result.loss}
    metrics |= {f"trial.{measure}": value for measure, value in result.metrics.items()}
    series = {"fold_loss": result.fold_losses, "rounds": result.rounds}
    tags = {"search.outcome": result.outcome, RESULT: json.dumps(asdict(result))}
    log_values(run_id, metrics=metrics, series=series, tags=tags)
    end_run(run_id, result.problem)


def kill_open_trials(search: SearchRun) -> None:
    """End all open trials in the store: a search that is stopped while it starts a run does not know its id yet."""
    for run in _find_runs(search.experiment_id, {KIND: TRIAL, **nest_under(search.run_id)}):
        if run.info.status == "RUNNING":
            end_run(run.info.run_id, f"the search was stopped while trial {run.data.tags[NUMBER]} ran", KILLED)


@dataclass(frozen=True)
class TrialRunner:
    """Runs and logs trials; `on_trial` is called after each."""

    run_trial: RunTrial
    search: SearchRun
    executor: Executor
    on_trial: Callable[[Trial], None] = lambda trial: None

    def run_batch(self, batch: Mapping[int, tuple[str, Values]], earlier: Sequence[Trial]) -> list[Trial]:
        """Run a batch, given by trial number, except the trials that a resumed search has finished."""
        over = {number: trial for number, trial in self.search.finished.items() if number in batch}
        for number, trial in sorted(over.items()):
            if (trial.family, trial.values) != batch[number]:
                raise BadInputError(
                    f"trial {number} of the search to resume had other values than it would have now: the space, the "
                    "optimiser or a library has changed since. Start a new search without --resume"
                )
            self.on_trial(trial)
        stopped = threading.Event()
        is_stopped = [stopped.is_set] if is_local(self.executor) else []  # another process cannot read the event
        runs: dict[int, str] = {}  # run id by trial number
        futures: dict[Future[TrialResult], int] = {}
        try:
            for number, (family, values) in batch.items():
                if number not in over:
                    runs[number] = start_trial(self.search, number, family, values)
                    results = [trial.result for trial in earlier if trial.family == family]
                    futures[self.executor.submit(self.run_trial, family, values, results, *is_stopped)] = number
            for future in as_completed(futures):
                number = futures[future]
                over[number] = Trial(number, *batch[number], _take_result(future))
                finish_trial(runs[number], over[number].result)
                self.on_trial(over[number])
        except BaseException:  # also on ctrl-c: a run that no process works on must not stay open
            stopped.set()
            wait([future for future in futures if not future.cancel()])
            kill_open_trials(self.search)
            raise
        return [over[number] for number in batch]


def run_trials(executor: Executor, plan: Plan, split: Split, search: SearchRun, console: Console) -> list[Trial]:
    """Run the trials of a plan, with a progress bar that shows the best so far."""
    published = plan.protocol == AS_PUBLISHED
    folds = prepare_published(search.data, plan.seed) if published else prepare_folds(split, plan.seed)
    over: list[Trial] = []
    with Progress(console=console, disable=console.quiet) as progress:
        bar = progress.add_task("Searching", total=plan.trials)

        def show(trial: Trial) -> None:
            over.append(trial)
            progress.update(bar, advance=1, description=_describe_best(over))

        runner = TrialRunner(partial(run_trial, folds), search, executor, show)
        spaces = list_spaces(plan)
        optimisers = {name: TreeParzenOptimiser(space, plan.seed, start) for name, (space, start) in spaces.items()}
        trials = run_batches(optimisers, plan, runner)
    if not any(trial.result.outcome == SCORED for trial in trials):
        raise BadInputError(f"every trial failed; the first with {trials[0].result.problem}")
    return trials


def run_batches(optimisers: Mapping[str, TreeParzenOptimiser], plan: Plan, runner: TrialRunner) -> list[Trial]:
    """Run trials in batches, alternating the families; no batch starts after the plan's minutes."""
    deadline = time.monotonic() + 60 * plan.minutes if plan.minutes else np.inf
    families = list(optimisers)
    over: list[Trial] = []
    for first in range(0, plan.trials, plan.batch):
        if over and time.monotonic() > deadline:
            break
        batch = {}
        for number in range(first, min(first + plan.batch, plan.trials)):
            family = families[number % len(families)]
            batch[number] = family, optimisers[family].suggest()
        trials = runner.run_batch(batch, over)
        for trial in trials:
            optimisers[trial.family].observe(trial.result.loss)
        over += trials
    return over


def _take_result(future: Future[TrialResult]) -> TrialResult:
    """The result of a trial; a trial that raised an Exception has failed, and the search continues."""
    error = future.exception()
    if error is None:
        return future.result()
    if not isinstance(error, Exception):
        raise error
    return TrialResult(FAILED, problem=f"{type(error).__name__}: {error}")


def _describe_best(trials: Sequence[Trial]) -> str:
    best = [choose_best(trials, family) for family in {trial.family: None for trial in trials}]
    losses = sorted(f"{trial.family} {trial.result.loss:.4f}" for trial in best if trial)
    return "Best so far: " + (", ".join(losses) or "none")


def _find_runs(experiment_id: str, tags: Mapping[str, str]) -> list[Run]:
    """The runs with these tags, the latest first."""
    condition = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    return mlflow.search_runs([experiment_id], condition, output_format="list")


def _read_trial(run: Run) -> Trial:
    tags, parameters = run.data.tags, run.data.params
    fields = json.loads(tags[RESULT])
    result = TrialResult(**fields | {name: tuple(fields[name]) for name in ("fold_losses", "rounds")})
    return Trial(int(tags[NUMBER]), parameters["family"], json.loads(tags[VALUES]), result)
