"""Timed trials of a search, tracked in a store of their own."""

import tempfile
import time
from concurrent.futures import Executor
from pathlib import Path

from rich.console import Console

from experiment_tracking.runs.store import open_store
from experiment_tracking.search.space import Plan
from experiment_tracking.search.trials import Trial
from experiment_tracking.search.tuning import run_trials, start_search
from wine_data.sources.load import WineData
from wine_data.split import Split


def time_trials(executor: Executor, plan: Plan, data: WineData, split: Split) -> tuple[list[Trial], float]:
    """Run the trials of a plan; returns them and the seconds that they took."""
    with tempfile.TemporaryDirectory() as name:
        experiment_id = open_store(f"sqlite:///{name}/mlflow.db", Path(name) / "mlartifacts")
        search = start_search(experiment_id, data, {"trials": plan.trials})
        start = time.perf_counter()
        trials = run_trials(executor, plan, split, search, Console(quiet=True))
        return trials, time.perf_counter() - start
