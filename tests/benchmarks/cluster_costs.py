"""Trials and fits on a Dask cluster of this machine, beside the same without one: what the cluster costs."""

import math
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from sklearn.base import clone

from executors import LOCAL, open_cluster, open_executor
from experiment_tracking.partitioned.boosting import fit_partitions
from experiment_tracking.search.space import Plan
from tests.benchmarks.trials import time_trials
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData, fingerprint_wines
from wine_data.sources.partitions import read_partitions
from wine_data.split import is_holdout, split_wines
from wine_data.table.wines import read_wines
from wine_data.twin.sample import sample_twin

SEED, TRIALS, FILES, BOOSTS = 42, 8, 8, 50
ROUNDS = 2  # each side in turn, and the better time counts: others use this machine too
CORES = os.cpu_count() or 1
MACHINES = (2, 8)


def warm_up(seconds: float) -> int:
    """What a worker does first: it imports what a trial needs, by importing this module."""
    time.sleep(seconds)
    return os.getpid()


def compare_search(counts: Sequence[int]) -> list[dict[str, str]]:
    """A row for each number of wines of the twin."""
    rows = []
    plan = Plan(trials=TRIALS, seed=SEED, workers=CORES)
    for count in counts:
        wines = sample_twin(count, SEED)
        data = WineData(wines, wines.head(0), f"twin of {count:,}", fingerprint_wines(wines))
        split = split_wines(data.train, data.validation, folds=5, seed=SEED)
        start = time.perf_counter()
        with open_executor(CORES, LOCAL) as cluster, open_executor(CORES) as threads:
            while len({future.result() for future in [cluster.submit(warm_up, 0.1) for _ in range(CORES)]}) < CORES:
                pass
            started = time.perf_counter() - start
            times = [[time_trials(side, plan, data, split) for side in (cluster, threads)] for _ in range(ROUNDS)]
        there, here = (min(column) / TRIALS for column in zip(*times, strict=True))
        row = {
            "wines": f"{len(split.train) + len(split.holdout):,}",
            "a trial on threads": f"{here:.2f} s",
            "on the cluster": f"{there:.2f} s",
            "ratio": f"{there / here:.2f}",
            "start": f"{started:.1f} s",
        }
        for machines in MACHINES:
            saved = here - there / machines
            row[f"{machines} machines pay from"] = f"{math.ceil(started / saved)} trials" if saved > 0 else "never"
        rows.append(row)
    return rows


def compare_partitions(counts: Sequence[int]) -> list[dict[str, str]]:
    """A row for each number of wines of the twin, in eight Parquet files."""
    rows = []
    with open_cluster(LOCAL) as client:
        for count in counts:
            with tempfile.TemporaryDirectory() as name:
                for number in range(FILES):
                    wines = sample_twin(count // FILES, SEED + number).drop(columns="red_wine")
                    wines.to_parquet(Path(name) / f"{number}.parquet")
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
            seconds = {"in memory": f"{here:.1f} s", "on the cluster": f"{there:.1f} s"}
            rows.append({"rows": f"{count:,}", **seconds, "ratio": f"{there / here:.2f}"})
    return rows
