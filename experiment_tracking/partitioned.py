"""Fit XGBoost on wines that lie in many files and need not fit into one machine's memory.

    python -m experiment_tracking.partitioned FOLDER

Each file of the folder is a partition (wine_data/partitions.py). The workers of a Dask cluster (WINE_DASK, or processes
of this machine) read one each and fit together: XGBoost adds up the histograms of all partitions in every round. A
fifth of the wines is never fitted on, and a sixth of the rest decides how many rounds there are.

Leaves a run with the model and its score on the holdout side, which python -m experiment_tracking.registry can make a
version.
"""

import argparse
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client
from rich.console import Console
from sklearn.pipeline import Pipeline
from xgboost import Booster, XGBRegressor
from xgboost import dask as xgboost_on_dask

from commands import DONE, BadInputError, run_command
from executors import LOCAL, open_cluster
from experiment_tracking.search_space import PATIENCE, REGRESSOR, ROUNDS, START, XGBOOST
from experiment_tracking.store import open_store
from experiment_tracking.tracking import track_model
from experiment_tracking.trial import STOPPING_PARTS
from settings import load_settings
from wine_data.partitions import LOT, NUMBERS, Partitions, look_at_partitions, read_numbers
from wine_data.schema import FEATURES, RED, TARGET, TYPE, TYPES, feature_frame
from wine_data.split import HOLDOUT_SHARE
from wine_quality_training.estimators import GradesFromNumbers
from wine_quality_training.evaluate import LEAK_FREE, Evaluation, evaluate_guesses
from wine_quality_training.report import list_scores, tabulate_scores

NAME = "PartitionedXGBClassifier"
SCORED = 20_000  # wines of the holdout side that are scored; a bootstrap of more takes gigabytes
STOPPING_SHARE = HOLDOUT_SHARE + (1 - HOLDOUT_SHARE) / STOPPING_PARTS
# Where the search starts. Which wines a round leaves out would depend on the worker they are on, so it takes all.
VALUES = START[REGRESSOR, XGBOOST] | {"subsample": 1.0}


def fit_partitions(
    partitions: Partitions, client: Client, seed: int, rounds: int = ROUNDS
) -> tuple[Pipeline, pd.DataFrame]:
    """Fit on the training side of all partitions, and return the model with the wines that it is to be scored on.

    The same partitions, seed and number of workers give the same model, but for the rounding of sums that three
    workers or more add up in any order. Another number of workers cuts columns of many values, such as the density,
    into slightly other bins.

    Raises:
        BadInputError: the partitions leave a side empty.
    """
    workers = sorted(client.scheduler_info()["workers"])
    read = [  # each file has its worker, or the same wines would be cut into other bins the next time
        client.submit(read_numbers, file, workers=workers[number % len(workers)], allow_other_workers=True, pure=False)
        for number, file in enumerate(partitions.files)
    ]
    table = dd.from_delayed(read, meta=pd.DataFrame(columns=list(NUMBERS)).astype(NUMBERS), verify_meta=False)
    to_fit, to_stop = table[table[LOT] >= STOPPING_SHARE], _between(table, HOLDOUT_SHARE, STOPPING_SHARE)
    to_score = _between(table, 0, min(HOLDOUT_SHARE, SCORED / partitions.count))
    scored, fitted, stopping = client.gather(client.compute([to_score, to_fit.shape[0], to_stop.shape[0]]))
    if not (len(scored) and fitted and stopping):
        raise BadInputError(f"{partitions.source}: too few wines to fit, to stop by and to score")
    booster, rmse = _boost(client, to_fit, to_stop, seed, rounds)
    regressor = XGBRegressor(**VALUES, n_estimators=booster.num_boosted_rounds(), random_state=seed)
    regressor.load_model(bytearray(booster.save_raw("ubj")))
    return Pipeline([("model", GradesFromNumbers.of_fitted(regressor, partitions.grades, rmse))]), scored


def evaluate_partitions(pipeline: Pipeline, scored: pd.DataFrame) -> Evaluation:
    """Score a model on wines of the holdout side."""
    table = pd.DataFrame(
        {
            TYPE: np.where(scored[RED].to_numpy() == 1, *TYPES),
            TARGET: scored[TARGET].to_numpy().astype("int64"),
            "guess": pipeline.predict(feature_frame(scored)),
        }
    )
    return evaluate_guesses(NAME, LEAK_FREE, pipeline, {"holdout": table})


def _boost(
    client: Client, to_fit: dd.DataFrame, to_stop: dd.DataFrame, seed: int, rounds: int
) -> tuple[Booster, float]:
    """The best rounds, and the RMSE that they have on the part that they are stopped by."""
    features = list(FEATURES)
    fit_on = xgboost_on_dask.DaskQuantileDMatrix(client, to_fit[features], to_fit[TARGET])
    stop_by = xgboost_on_dask.DaskQuantileDMatrix(client, to_stop[features], to_stop[TARGET], ref=fit_on)
    done = xgboost_on_dask.train(
        client, VALUES | {"objective": "reg:squarederror", "tree_method": "hist", "seed": seed}, fit_on,
        num_boost_round=rounds, evals=[(stop_by, "stop")], early_stopping_rounds=PATIENCE, verbose_eval=False,
    )  # fmt: skip
    booster = done["booster"]
    return booster[: booster.best_iteration + 1], float(booster.best_score)


def _between(table: dd.DataFrame, low: float, high: float) -> dd.DataFrame:
    part: dd.DataFrame = table[(table[LOT] >= low) & (table[LOT] < high)]
    return part


def main() -> int:
    """Look, fit, score, track, and say what to do next."""
    parser = argparse.ArgumentParser(description="Fit XGBoost on wines in many files, on a Dask cluster.")
    parser.add_argument("folder", type=Path, help="folder of CSV or Parquet files, each a partition")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"the most rounds of XGBoost ({ROUNDS})")
    arguments = parser.parse_args()
    settings, console = load_settings(), Console(highlight=False, soft_wrap=True)
    if arguments.rounds < 1:
        raise BadInputError("--rounds must be more than 0")
    with console.status("Starting") as status, open_cluster(settings.dask or LOCAL) as client:
        status.update(f"Reading the files of {arguments.folder}")
        partitions = look_at_partitions(arguments.folder, client.get_executor(pure=False).map)
        console.print(f"Wines from {partitions.source}, fingerprint {partitions.fingerprint[:12]}")
        status.update(f"Fitting on {len(client.scheduler_info()['workers'])} workers")
        pipeline, scored = fit_partitions(partitions, client, settings.seed, arguments.rounds)
    evaluation = evaluate_partitions(pipeline, scored)
    experiment_id = open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    tracked = track_model(experiment_id, None, partitions, partitions.sample, [evaluation])
    console.print(*tabulate_scores(list_scores([evaluation])), sep="\n")
    console.print(f"Next: python -m experiment_tracking.registry register {tracked.run_id}")
    return DONE


if __name__ == "__main__":
    run_command(main)
