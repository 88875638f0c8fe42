from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import xgboost as xgb

from experiment_tracking.runs.autolog import AUTOLOG, BY_HAND, compare_logging
from experiment_tracking.runs.store import open_store
from wine_data.sources.load import WineData
from wine_data.split import Split


@pytest.fixture
def experiment_id(tmp_path: Path) -> Iterator[str]:
    before = mlflow.get_tracking_uri()
    yield open_store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "mlartifacts")
    mlflow.set_tracking_uri(before)


@pytest.mark.full
def test_the_same_run_by_hand_and_by_autolog(experiment_id: str, twin: WineData, twin_split: Split) -> None:
    table = compare_logging(experiment_id, twin, twin_split, seed=42, rounds=12)
    assert table.columns.tolist() == [BY_HAND, AUTOLOG]
    assert table.index.tolist() == ["parameters", "metrics", "series points", "artifacts", "signature", "seconds"]
    counts = table.to_dict("index")
    assert counts["signature"] == {BY_HAND: True, AUTOLOG: True}
    assert counts["parameters"] == {BY_HAND: 7, AUTOLOG: 11}
    assert min(counts["series points"].values()) >= 24  # two series of twelve rounds
    assert counts["artifacts"][AUTOLOG] > counts["artifacts"][BY_HAND] > 3  # the model's files count
    runs = mlflow.MlflowClient().search_runs([experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert by_name[AUTOLOG].data.metrics["test-rmse"] == by_name[BY_HAND].data.metrics["test-rmse"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    parent = by_name["autolog against by hand"].info.run_id
    assert by_name[AUTOLOG].data.tags["mlflow.parentRunId"] == parent

    xgb.train({}, xgb.DMatrix([[0.0], [1.0]], label=[0, 1]), 1)  # autolog is off again
    assert mlflow.active_run() is None
    assert len(mlflow.MlflowClient().search_runs([experiment_id])) == len(runs)
