"""Trials and fits on a Dask cluster of this machine, beside the same without one: what the cluster costs."""

import math
import os
import tempfile
import time
from concurrent.futures import Executor
from pathlib import Path

import pandas as pd
from rich.console import Console
from sklearn.base import clone

from executors import LOCAL, open_cluster, open_executor
from experiment_tracking.partitioned.boosting import fit_partitions
from experiment_tracking.runs.store import open_store
from experiment_tracking.search.space import Plan
from experiment_tracking.search.tuning import run_trials, start_search
from wine_data.reader import read_wines
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData, fingerprint_wines
from wine_data.sources.partitions import read_partitions
from wine_data.split import Split, is_holdout, split_wines
from wine_data.twin.sample import sample_twin

SEED, TRIALS, FILES, BOOSTS = 42, 8, 8, 50
ROUNDS = 2  # each side in turn, and the better time counts: others use this machine too
CORES = os.cpu_count() or 1
MACHINES = (2, 8)


def make_wines(count: int) -> tuple[WineData, Split]:
    """Twin wines, and their sides."""
    wines = sample_twin(count, SEED)
    data = WineData(wines, wines.head(0), f"twin of {count:,}", fingerprint_wines(wines))
    return data, split_wines(data.train, data.validation, folds=5, seed=SEED)


def time_trials(executor: Executor, data: WineData, split: Split) -> float:
    """Seconds of eight trials, tracked in a store of their own."""
    with tempfile.TemporaryDirectory() as name:
        experiment_id = open_store(f"sqlite:///{name}/mlflow.db", Path(name) / "mlartifacts")
        plan = Plan(task="regressor", trials=TRIALS, seed=SEED, workers=CORES)
        search = start_search(experiment_id, data, {"trials": TRIALS})
        start = time.perf_counter()
        run_trials(executor, plan, split, search, Console(quiet=True))
        return time.perf_counter() - start


def warm_up(seconds: float) -> int:
    """What a worker does first: it imports what a trial needs, by importing this module."""
    time.sleep(seconds)
    return os.getpid()


def compare_search(wines: list[int]) -> list[dict[str, str]]:
    """A row for each number of wines."""
    rows = []
    for count in wines:
        data, split = make_wines(count)
        start = time.perf_counter()
        with open_executor(CORES, LOCAL) as cluster, open_executor(CORES) as threads:
            while len({future.result() for future in [cluster.submit(warm_up, 0.1) for _ in range(CORES)]}) < CORES:
                pass
            started = time.perf_counter() - start
            times = [[time_trials(executor, data, split) for executor in (cluster, threads)] for _ in range(ROUNDS)]
            there, here = (min(column) for column in zip(*times, strict=True))
        row = {
            "wines": f"{len(split.train) + len(split.holdout):,}",
            "a trial on threads": f"{here / TRIALS:.2f} s",
            "on the cluster": f"{there / TRIALS:.2f} s",
            "ratio": f"{there / here:.2f}",
            "start": f"{started:.1f} s",
        }
        for machines in MACHINES:
            saved = here / TRIALS - there / TRIALS / machines
            row[f"{machines} machines pay from"] = f"{math.ceil(started / saved)} trials" if saved > 0 else "never"
        rows.append(row)
    return rows


def write_files(folder: Path, count: int) -> None:
    """Twin wines in eight Parquet files."""
    for number in range(FILES):
        sample_twin(count // FILES, SEED + number).drop(columns="red_wine").to_parquet(folder / f"{number}.parquet")


def compare_partitions(rows: list[int]) -> list[dict[str, str]]:
    """A row for each number of rows."""
    table = []
    with open_cluster(LOCAL) as client:
        for count in rows:
            with tempfile.TemporaryDirectory() as name:
                write_files(Path(name), count)
                start = time.perf_counter()
                partitions = read_partitions(Path(name), client.get_executor(pure=False).map)
                pipeline, _ = fit_partitions(partitions, client, SEED, BOOSTS)
                there = time.perf_counter() - start
                start = time.perf_counter()
                wines = pd.concat([read_wines(file) for file in partitions.files])
                training = wines[~is_holdout(wines)]
                model = clone(pipeline["model"].regressor_).set_params(n_jobs=CORES)
                model.fit(feature_frame(training), training[TARGET])
                here = time.perf_counter() - start
            table.append(
                {
                    "rows": f"{count:,}", "in memory": f"{here:.1f} s",
                    "on the cluster": f"{there:.1f} s", "ratio": f"{there / here:.2f}",
                }
            )  # fmt: skip
    return table
