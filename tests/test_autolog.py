"""A run of XGBoost logged by hand, and by MLflow's autolog."""

import mlflow
import pytest
import xgboost as xgb

from experiment_tracking.runs.autolog import AUTOLOG, BY_HAND, compare_logging
from tests.conftest import Store
from wine_data.sources.load import WineData
from wine_data.split import Split


@pytest.mark.full
def test_the_same_run_by_hand_and_by_autolog(store: Store, twin: WineData, twin_split: Split) -> None:
    table = compare_logging(store.experiment_id, twin, twin_split, seed=42, rounds=12)
    assert table.columns.tolist() == [BY_HAND, AUTOLOG]
    assert {"metrics", "seconds"} <= set(table.index)
    counts = table.to_dict("index")
    assert counts["signature"] == {BY_HAND: True, AUTOLOG: True}
    assert counts["parameters"] == {BY_HAND: 7, AUTOLOG: 11}
    assert min(counts["series points"].values()) >= 24  # two series of twelve rounds
    assert counts["artifacts"][AUTOLOG] > counts["artifacts"][BY_HAND] > 3  # the model's files count
    runs = mlflow.search_runs([store.experiment_id], output_format="list")
    by_name = {run.info.run_name: run for run in runs}
    assert by_name[AUTOLOG].data.metrics["test-rmse"] == by_name[BY_HAND].data.metrics["test-rmse"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    parent = by_name["autolog against by hand"].info.run_id
    assert by_name[AUTOLOG].data.tags["mlflow.parentRunId"] == parent

    xgb.train({}, xgb.DMatrix([[0.0], [1.0]], label=[0, 1]), 1)  # autolog is off again
    assert mlflow.active_run() is None
    assert len(mlflow.search_runs([store.experiment_id], output_format="list")) == len(runs)
