"""A search from its plan to the runs that it leaves: the trials, then what is made of the best of them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import Progress

from commands import BadInputError
from executors import make_map, open_executor
from experiment_tracking.runs.tracking import TrackedModel, end_run
from experiment_tracking.search.finalists import SearchEnd
from experiment_tracking.search.ledger import Ledger, kill_run, open_ledger, reopen_ledger
from experiment_tracking.search.loop import Trial, TrialRunner, run_search
from experiment_tracking.search.space import Plan
from experiment_tracking.search.trial import SCORED, prepare_folds, prepare_published, run_trial
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.evaluate import AS_PUBLISHED, Evaluation


@dataclass(frozen=True)
class SearchResult:
    """What a search came to: its parent run, its trials, the models that were scored, and the runs to register."""

    run_id: str
    trials: list[Trial]
    evaluations: list[Evaluation]
    tracked: list[TrackedModel]


def search_models(plan: Plan, data: WineData, split: Split, experiment_id: str, console: Console) -> SearchResult:
    """Run a search, or go on with the last unfinished one like it, and put all it comes to into MLflow.

    Raises:
        BadInputError: the plan makes no sense, there is nothing to resume, or every trial failed.
    """
    plan.require_sense()
    ledger = _open(plan, data, split, experiment_id)
    with _ending(ledger), open_executor(plan.workers, plan.dask) as executor:
        trials = run_trials_on(executor, plan, split, ledger, console)
        end = SearchEnd(split, plan.seed, ledger, console, make_map(executor))
        end.log_trials(trials)
        finish = end.finish_published if plan.protocol == AS_PUBLISHED else end.finish_leak_free
        evaluations, tracked = finish(trials)
    return SearchResult(ledger.parent_id, trials, evaluations, tracked)


def run_trials(plan: Plan, split: Split, ledger: Ledger, console: Console) -> list[Trial]:
    """Run the trials of a plan where it says, under a progress bar that names the best so far."""
    with open_executor(plan.workers, plan.dask) as executor:
        return run_trials_on(executor, plan, split, ledger, console)


def run_trials_on(executor: Executor, plan: Plan, split: Split, ledger: Ledger, console: Console) -> list[Trial]:
    """Run the trials of a plan on an executor, under a progress bar that names the best so far."""
    published = plan.protocol == AS_PUBLISHED
    folds = prepare_published(ledger.data, plan.seed) if published else prepare_folds(split, plan.seed)
    over: list[Trial] = []
    with Progress(console=console, disable=console.quiet) as progress:
        bar = progress.add_task("Searching", total=plan.trials)

        def show(trial: Trial) -> None:
            over.append(trial)
            progress.update(bar, advance=1, description=_describe_best(over))

        runner = TrialRunner(partial(run_trial, folds), ledger, executor, show)
        trials = run_search(plan.make_optimisers(), plan, runner)
    if not any(trial.result.outcome == SCORED for trial in trials):
        raise BadInputError(f"every trial failed; the first with {trials[0].result.problem}")
    return trials


def _open(plan: Plan, data: WineData, split: Split, experiment_id: str) -> Ledger:
    identity: dict[str, Any] = {
        "protocol": plan.protocol,
        "task": plan.task,
        "seed": plan.seed,
        "folds": len(split.folds),
        "fingerprint": data.fingerprint,
        "batch": plan.batch,
    }
    if plan.resume:
        return reopen_ledger(experiment_id, data, identity)
    budget = {"trials": plan.trials, "minutes": plan.minutes, "workers": plan.workers}
    return open_ledger(experiment_id, data, identity, budget)


@contextmanager
def _ending(ledger: Ledger) -> Iterator[None]:
    """End the parent run however the search ends."""
    try:
        yield
    except Exception as error:
        end_run(ledger.parent_id, f"{type(error).__name__}: {error}")
        raise
    except BaseException:
        kill_run(ledger.parent_id, "the search was stopped; --resume goes on with it")
        raise
    end_run(ledger.parent_id)


def _describe_best(trials: Sequence[Trial]) -> str:
    best: dict[str, float] = {}
    for trial in trials:
        if trial.result.outcome == SCORED and trial.result.loss is not None:
            best[trial.study.name] = min(trial.result.loss, best.get(trial.study.name, trial.result.loss))
    return "Best so far: " + (", ".join(f"{name} {loss:.4f}" for name, loss in sorted(best.items())) or "none")
