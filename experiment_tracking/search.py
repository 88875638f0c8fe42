"""Tune models on leak-free folds, with every trial in MLflow.

    python -m experiment_tracking.search [--trials N] [--minutes M] [--task regressor|classifier|both]
                                         [--protocol leak-free|as-published] [--workers N] [--resume]

Ends with the best of each family and their blend on repeated grouped cross-validation, and the winner's
run, for which the holdout is opened once. `--protocol as-published` runs the published search instead,
whose objective is the validation file, and shows what its winner is worth on wines it has not seen.
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import Progress

from commands import DONE, BadInputError, run_command
from executors import open_executor, spread_over
from experiment_tracking.optimiser import Optimiser, TreeParzenOptimiser
from experiment_tracking.search_end import finish_leak_free, finish_published, log_trials
from experiment_tracking.search_loop import BATCH, Trial, run_search
from experiment_tracking.search_runs import Ledger, Record, kill_run, open_ledger, reopen_ledger
from experiment_tracking.search_space import (
    FAMILIES,
    REGRESSOR,
    START,
    TASKS,
    XGBOOST,
    Study,
    describe_published_space,
    describe_space,
)
from experiment_tracking.store import open_store
from experiment_tracking.tracking import TrackedModel, end_run
from experiment_tracking.trial import SCORED, lay_folds, lay_published, run_trial
from settings import Settings, load_settings
from wine_data.sources import WineData, load_wines
from wine_data.split import Sides, split_wines
from wine_quality_training.evaluate import AS_PUBLISHED, LEAK_FREE, PROTOCOLS, Evaluation

TRIALS = 32  # eight a study
BOTH = "both"


@dataclass(frozen=True)
class Plan:
    """What a search is to do. All but `minutes`, `workers` and `dask` decide what it finds on given wines."""

    protocol: str = LEAK_FREE
    task: str = BOTH
    trials: int = TRIALS
    seed: int = 42
    minutes: float | None = None
    workers: int = 1
    dask: str = ""
    batch: int = BATCH

    def list_studies(self) -> list[Study]:
        """What is tuned; the trials are dealt out to these in turn."""
        if self.protocol == AS_PUBLISHED:
            return [Study(REGRESSOR, XGBOOST)]
        tasks = TASKS if self.task == BOTH else (self.task,)
        return [Study(task, family) for task in tasks for family in FAMILIES]

    def make_optimisers(self) -> dict[Study, Optimiser]:
        """An optimiser for each study, in the space of the protocol."""
        if self.protocol == AS_PUBLISHED:
            return {study: TreeParzenOptimiser(describe_published_space(), self.seed) for study in self.list_studies()}
        return {
            study: TreeParzenOptimiser(describe_space(study), self.seed, START[study.task, study.family])
            for study in self.list_studies()
        }


@dataclass(frozen=True)
class SearchResult:
    """What a search came to: its parent run, its trials, the models that were scored, and the runs to register."""

    run_id: str
    trials: list[Trial]
    evaluations: list[Evaluation]
    tracked: list[TrackedModel]


def search_models(
    plan: Plan, data: WineData, sides: Sides, experiment_id: str, console: Console, resume: bool = False
) -> SearchResult:
    """Run a search, or go on with the last unfinished one like it, and put all it comes to into MLflow.

    Raises:
        BadInputError: the plan makes no sense, there is nothing to resume, or every trial failed.
    """
    _require_sense(plan)
    ledger, records = _open(plan, data, sides, experiment_id, resume)
    with _ending(ledger), open_executor(plan.workers, plan.dask) as executor:
        trials = run_trials_on(executor, plan, sides, ledger, records, console)
        log_trials(trials, sides, plan.seed, ledger)
        finish = finish_published if plan.protocol == AS_PUBLISHED else finish_leak_free
        evaluations, tracked = finish(trials, sides, plan.seed, ledger, console, spread_over(executor))
    return SearchResult(ledger.parent_id, trials, evaluations, tracked)


def run_trials(
    plan: Plan, sides: Sides, ledger: Ledger, records: Mapping[int, Record], console: Console
) -> list[Trial]:
    """Run the trials of a plan where it says, under a progress bar that names the best so far."""
    with open_executor(plan.workers, plan.dask) as executor:
        return run_trials_on(executor, plan, sides, ledger, records, console)


def run_trials_on(
    executor: Executor, plan: Plan, sides: Sides, ledger: Ledger, records: Mapping[int, Record], console: Console
) -> list[Trial]:
    """Run the trials of a plan on an executor, under a progress bar that names the best so far."""
    grounds = lay_published(ledger.data) if plan.protocol == AS_PUBLISHED else lay_folds(sides, plan.seed)
    over: list[Trial] = []
    with Progress(console=console, disable=console.quiet) as progress:
        bar = progress.add_task("Searching", total=plan.trials)

        def show(trial: Trial) -> None:
            over.append(trial)
            progress.update(bar, advance=1, description=_describe_best(over))

        trials = run_search(
            plan.make_optimisers(),
            plan.trials,
            partial(run_trial, grounds, plan.seed),
            ledger,
            records,
            executor,
            plan.batch,
            plan.minutes and plan.minutes * 60,
            show,
        )
    if not any(trial.result.outcome == SCORED for trial in trials):
        raise BadInputError(f"every trial failed; the first with {trials[0].result.problem}")
    return trials


def _open(
    plan: Plan, data: WineData, sides: Sides, experiment_id: str, resume: bool
) -> tuple[Ledger, dict[int, Record]]:
    identity: dict[str, Any] = {
        "protocol": plan.protocol,
        "task": plan.task,
        "seed": plan.seed,
        "folds": len(sides.folds),
        "fingerprint": data.fingerprint,
        "batch": plan.batch,
    }
    if resume:
        return reopen_ledger(experiment_id, data, identity)
    knobs = {"trials": plan.trials, "minutes": plan.minutes, "workers": plan.workers}
    return open_ledger(experiment_id, data, identity, knobs), {}


def _require_sense(plan: Plan) -> None:
    if plan.trials < 1 or plan.workers < 1 or plan.batch < 1 or (plan.minutes is not None and plan.minutes <= 0):
        raise BadInputError("--trials, --workers, --batch and --minutes must be more than 0")
    if plan.protocol == AS_PUBLISHED and plan.task not in (BOTH, REGRESSOR):
        raise BadInputError("the published search is over a regressor: leave --task out, or say --task regressor")


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


def parse_plan(settings: Settings) -> tuple[Plan, bool]:
    """The command's arguments, and whether to resume."""
    parser = argparse.ArgumentParser(
        description="Tune models on leak-free folds, with every trial in MLflow.",
        epilog="The same seed finds the same models with any number of workers.",
    )
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"how many in all ({TRIALS})")
    parser.add_argument("--minutes", type=float, help="start no batch of trials after these")
    parser.add_argument("--task", choices=[*TASKS, BOTH], default=BOTH, help="what to tune (both)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default=LEAK_FREE, help="how trials are scored (leak-free)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trials at once (one a core)")
    parser.add_argument(
        "--batch", type=int, default=BATCH,
        help=f"trials that know nothing of each other ({BATCH}): no more run at once; another number finds others",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with the last search like this that was ended")
    arguments = parser.parse_args()
    plan = Plan(
        arguments.protocol, arguments.task, arguments.trials, settings.seed, arguments.minutes, arguments.workers,
        settings.dask, arguments.batch,
    )  # fmt: skip
    return plan, arguments.resume


def main() -> int:
    """Search, show progress, print the tables and what to do next."""
    settings, console = load_settings(), Console(highlight=False, soft_wrap=True)
    plan, resume = parse_plan(settings)
    _require_sense(plan)
    data = load_wines(settings.data, settings.seed, settings.downloads, settings.uci_url)
    sides = split_wines(data.train, data.validation, settings.folds, settings.seed)
    console.print(data.introduce())
    experiment_id = open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    search_models(plan, data, sides, experiment_id, console, resume)
    return DONE


if __name__ == "__main__":
    run_command(main)
