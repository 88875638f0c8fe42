"""XGBoost on wines in many files: each worker of a cluster reads files, and all workers fit together.

XGBoost adds up the histograms of all partitions in every round. A fifth of the wines is the holdout. A sixth of the
rest decides the number of rounds.
"""

import dask.dataframe as dd
import numpy as np
import pandas as pd
from distributed import Client
from sklearn.pipeline import Pipeline
from xgboost import Booster, XGBRegressor
from xgboost import dask as xgboost_on_dask

from commands import BadInputError
from experiment_tracking.search.space import PATIENCE, RATE, ROUNDS, START, XGBOOST
from experiment_tracking.search.trials import STOPPING_PARTS
from wine_data.schema import FEATURES, RED, TARGET, TYPE, TYPES, feature_frame
from wine_data.sources.partitions import LOT, NUMBERS, Partitions, read_numbers
from wine_data.split import HOLDOUT_SHARE
from wine_quality_training.estimators import GradesFromNumbers
from wine_quality_training.evaluate import LEAK_FREE, Evaluation, evaluate_predictions, predict_wines

NAME = "PartitionedXGBClassifier"
SCORED = 20_000  # holdout rows that are scored; with more, the interval would hardly be narrower
STOPPING_SHARE = HOLDOUT_SHARE + (1 - HOLDOUT_SHARE) / STOPPING_PARTS
# The search's first values, but without subsampling: which wines it leaves out would depend on their worker.
VALUES = START[XGBOOST] | {"learning_rate": RATE, "subsample": 1.0}


def fit_partitions(
    partitions: Partitions, client: Client, seed: int, rounds: int = ROUNDS
) -> tuple[Pipeline, pd.DataFrame]:
    """Fit in train of all partitions, and return the model with the wines to score it on.

    The same partitions, seed and number of workers give the same model, except that three or more workers add sums in
    any order, so rounding may differ. Another number of workers puts columns of many values into other bins.
    """
    workers = sorted(client.scheduler_info()["workers"])
    read = [  # each file has a fixed worker, otherwise the same wines would get other bins the next time
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
    """Score a model on wines of the holdout."""
    wines = scored.reset_index(drop=True)
    table = predict_wines(pipeline, feature_frame(wines)).assign(
        **{
            TYPE: np.where(wines[RED].to_numpy() == 1, *TYPES),
            TARGET: wines[TARGET].to_numpy().astype("int64"),
            "wine": wines[LOT].to_numpy(),
        }
    )
    return evaluate_predictions(NAME, LEAK_FREE, pipeline, {"holdout": table})


def _boost(
    client: Client, to_fit: dd.DataFrame, to_stop: dd.DataFrame, seed: int, rounds: int
) -> tuple[Booster, float]:
    """The booster up to its best round, and its RMSE on the wines that decide when to stop."""
    features = list(FEATURES)
    fit_on = xgboost_on_dask.DaskQuantileDMatrix(client, to_fit[features], to_fit[TARGET])
    stop_by = xgboost_on_dask.DaskQuantileDMatrix(client, to_stop[features], to_stop[TARGET], ref=fit_on)
    done = xgboost_on_dask.train(
        client,
        VALUES | {"objective": "reg:squarederror", "tree_method": "hist", "seed": seed},
        fit_on,
        num_boost_round=rounds,
        evals=[(stop_by, "stop")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    booster = done["booster"]
    return booster[: booster.best_iteration + 1], float(booster.best_score)


def _between(table: dd.DataFrame, low: float, high: float) -> dd.DataFrame:
    part: dd.DataFrame = table[(table[LOT] >= low) & (table[LOT] < high)]
    return part
