"""Compare what a run contains when the same XGBoost fit is logged by hand and by MLflow's autolog."""

import time
from importlib.metadata import version
from typing import Any

import mlflow
import pandas as pd
import xgboost as xgb
from mlflow.models import infer_signature

from experiment_tracking.runs.tracking import LIBRARIES, end_run, log_values, nest_under, start_run
from experiment_tracking.search.space import PATIENCE, ROUNDS
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split

BY_HAND, AUTOLOG = "by hand", "autolog"
SETTINGS = {"max_depth": 8, "learning_rate": 0.05, "subsample": 0.7, "colsample_bytree": 0.5}


def compare_logging(experiment_id: str, data: WineData, split: Split, seed: int, rounds: int = ROUNDS) -> pd.DataFrame:
    """Train twice in two nested runs and count what each contains: one column per way of logging.

    Parameters, metrics and artifacts are counted by name, series by point.
    """
    parent_id = start_run(experiment_id, "autolog against by hand", data)
    counts = {}
    for name, train in ((BY_HAND, _train_by_hand), (AUTOLOG, _train_with_autolog)):
        run_id = start_run(experiment_id, name, data, tags=nest_under(parent_id))
        start = time.perf_counter()
        train(run_id, split, seed, rounds)
        end_run(run_id)
        counts[name] = _count(run_id) | {"seconds": round(time.perf_counter() - start, 2)}
    end_run(parent_id)
    return pd.DataFrame(counts).astype(object)


def _train_by_hand(run_id: str, split: Split, seed: int, rounds: int) -> None:
    booster, history = _train(split, seed, rounds)
    log_values(
        run_id,
        SETTINGS | {"seed": seed, "rounds": rounds, "early_stopping_rounds": PATIENCE},
        {"best_score": float(booster.best_score), "best_iteration": float(booster.best_iteration)},
        {f"{wines}-rmse": values["rmse"] for wines, values in history.items()},
    )
    wines = feature_frame(split.train).head(5)
    with mlflow.start_run(run_id=run_id):  # otherwise MLflow would put the model under experiment 0
        mlflow.xgboost.log_model(
            booster,
            name="model",
            signature=infer_signature(wines, booster.predict(xgb.DMatrix(wines))),
            input_example=wines,
            pip_requirements=[f"{library}=={version(library)}" for library in LIBRARIES],
        )


def _train_with_autolog(run_id: str, split: Split, seed: int, rounds: int) -> None:
    """Enable autolog before the DMatrix is made, because it takes the signature from the DMatrix's table."""
    mlflow.xgboost.autolog(log_input_examples=True, silent=True)
    try:
        with mlflow.start_run(run_id=run_id):
            _train(split, seed, rounds)
    finally:
        mlflow.xgboost.autolog(disable=True, silent=True)


def _train(split: Split, seed: int, rounds: int) -> tuple[xgb.Booster, dict[str, dict[str, list[float]]]]:
    X, y = feature_frame(split.train), split.train[TARGET]
    train, test = (xgb.DMatrix(X.iloc[part], label=y.iloc[part]) for part in split.folds[0])
    history: dict[str, dict[str, list[float]]] = {}
    booster = xgb.train(
        SETTINGS | {"seed": seed, "nthread": 1},
        train,
        rounds,
        evals=[(train, "train"), (test, "test")],
        early_stopping_rounds=PATIENCE,
        evals_result=history,
        verbose_eval=False,
    )
    return booster, history


def _count(run_id: str) -> dict[str, Any]:
    client = mlflow.MlflowClient()
    run = client.get_run(run_id)
    series = [client.get_metric_history(run_id, name) for name in run.data.metrics]
    model = mlflow.models.get_model_info(f"runs:/{run_id}/model")
    return {
        "parameters": len(run.data.params),
        "metrics": len(run.data.metrics),
        "series points": sum(len(points) for points in series if len(points) > 1),
        "artifacts": _count_files(run_id, "") + _count_files(run_id, "model"),
        "signature": model.signature is not None,
    }


def _count_files(run_id: str, folder: str) -> int:
    found = mlflow.MlflowClient().list_artifacts(run_id, folder or None)
    return sum(_count_files(run_id, item.path) if item.is_dir else 1 for item in found)
