"""Timed trials of a search, tracked in a store of their own."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from experiment_tracking.runs.store import open_store
from experiment_tracking.search.space import Plan
from experiment_tracking.search.tuning import SearchRun, run_trials, start_search
from tests.benchmarks.results import time_work
from wine_data.sources.load import WineData
from wine_data.split import Split


@contextmanager
def open_search(data: WineData, plan: Plan) -> Iterator[SearchRun]:
    """A new search in a store that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as name:
        experiment_id = open_store(f"sqlite:///{name}/mlflow.db", Path(name) / "mlartifacts")
        yield start_search(experiment_id, data, {"trials": plan.trials})


def time_trials(executor: Executor, plan: Plan, data: WineData, split: Split) -> float:
    """The seconds that the trials of a plan take."""
    with open_search(data, plan) as search:
        return time_work(lambda: run_trials(executor, plan, split, search, Console(quiet=True)))
