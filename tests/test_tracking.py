"""Runs in a real SQLite store: what one carries, what it costs, many at once, and after a move."""

import os
import subprocess
import timeit
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
import pytest
import xgboost as xgb

from commands import BadInputError
from experiment_tracking.runs import tracking
from experiment_tracking.runs.autolog import AUTOLOG, BY_HAND, compare_logging
from experiment_tracking.runs.store import open_store
from experiment_tracking.runs.tracking import TrackedModel, log_values, start_run, track_model
from settings import ROOT
from tests.conftest import Store, run_at_once
from wine_data.schema import FEATURES, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.evaluate import Evaluation, train_model
from wine_quality_training.report.figures import plot_confusion, plot_reliability

Track = Callable[[], TrackedModel]


@pytest.fixture(scope="module")
def evaluations(twin: WineData, twin_split: Split) -> list[Evaluation]:
    return train_model("DecisionTreeClassifier", twin, twin_split, seed=42)


@pytest.fixture
def track(store: Store, twin: WineData, twin_split: Split, evaluations: list[Evaluation]) -> Track:
    """Track the model in the test's own store."""
    return partial(track_model, store.experiment_id, None, twin, twin_split, evaluations)


@pytest.fixture
def fresh_code() -> Iterator[None]:
    """Describe the code anew in this test and in the next: that is done once a process."""
    tracking.describe_code.cache_clear()
    yield
    tracking.describe_code.cache_clear()


def test_a_models_run_traces_its_numbers(
    track: Track, store: Store, twin: WineData, evaluations: list[Evaluation]
) -> None:
    tracked = track()
    run = mlflow.get_run(tracked.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["criterion"] == "gini"
    assert run.data.metrics["leak-free.holdout.kappa"] == evaluations[1].score_on("holdout").metrics["kappa"]
    assert run.data.metrics["as-published.validation.r2"] == evaluations[0].score_on("validation").metrics["r2"]
    assert 0.8 < run.data.metrics["leak-free.holdout.coverage_90"] <= 1
    assert run.inputs is not None
    (wines,) = run.inputs.dataset_inputs
    assert twin.fingerprint in wines.dataset.source
    assert twin.source in wines.dataset.source
    assert len(run.data.tags["model.sha256"]) == 64
    for folder, names in (
        ("", {"facts.json", "model_card.md", "figures"}),
        ("figures", {"figures/confusion.png", "figures/reliability.png"}),
    ):
        assert {file.path for file in mlflow.MlflowClient().list_artifacts(tracked.run_id, folder)} == names
    info = mlflow.models.get_model_info(tracked.model_uri)
    assert tuple(info.signature.inputs.input_names()) == FEATURES
    assert info.saved_input_example_info is not None
    assert info.artifact_path.startswith(f"file://{quote(str(store.folder / 'mlartifacts'))}/")


@pytest.mark.usefixtures("fresh_code")
def test_a_run_names_the_code_the_developer_and_the_libraries_of_the_lock(store: Store, twin: WineData) -> None:
    tags = mlflow.get_run(start_run(store.experiment_id, "run", twin)).data.tags
    lock = (ROOT / "requirements.txt").read_text()
    for library in tracking.LIBRARIES:
        assert f"\n{library}=={tags[f'library.{library}']} " in lock
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert tags["git.clean"] in {"true", "false"}
    assert "@" in tags["developer"] or "unknown" in tags["developer"]


@pytest.mark.usefixtures("fresh_code")
def test_outside_git_the_code_is_unknown(store: Store, twin: WineData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "nowhere")
    tags = mlflow.get_run(start_run(store.experiment_id, "run", twin)).data.tags
    assert (tags["mlflow.source.git.commit"], tags["git.clean"]) == ("unknown", "unknown")


def test_a_series_keeps_a_value_a_round(store: Store, twin: WineData) -> None:
    run_id = start_run(store.experiment_id, "rounds", twin)
    log_values(run_id, series={"validation.rmse": [0.9, 0.8, 0.75]})
    history = mlflow.MlflowClient().get_metric_history(run_id, "validation.rmse")
    assert [(point.step, point.value) for point in history] == [(0, 0.9), (1, 0.8), (2, 0.75)]


def test_a_run_is_not_finished_before_all_of_it_is_written(track: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, log_values = [], tracking.log_values

    def log(run_id: str, *values: Any, **more: Any) -> None:
        seen.append(mlflow.get_run(run_id).info.status)
        log_values(run_id, *values, **more)

    monkeypatch.setattr(tracking, "log_values", log)
    assert mlflow.get_run(track().run_id).info.status == "FINISHED"
    assert set(seen) == {"RUNNING"}
    assert mlflow.active_run() is None


def test_a_model_that_cannot_be_written_leaves_a_failed_run_with_the_reason(track: Track, store: Store) -> None:
    (store.folder / "mlartifacts").rmdir()
    (store.folder / "mlartifacts").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="mlartifacts"):
        track()
    (run,) = mlflow.search_runs([store.experiment_id], output_format="list")
    assert run.info.status == "FAILED"
    assert "mlartifacts" in run.data.tags["problem"]


def time_fastest(action: Callable[[], object]) -> float:
    return min(timeit.repeat(action, number=1, repeat=5))


@pytest.mark.alone
def test_logging_a_run_costs_little_beside_drawing_and_writing_the_model(
    track: Track, store: Store, twin_split: Split, evaluations: list[Evaluation], tmp_path: Path
) -> None:
    leak_free = evaluations[-1]
    wines = feature_frame(twin_split.train).head(5)

    def plot_and_write() -> None:
        plot_confusion(leak_free).savefig(tmp_path / "confusion.png")
        plot_reliability(leak_free).savefig(tmp_path / "reliability.png")
        with mlflow.start_run(experiment_id=store.experiment_id):
            signature = mlflow.models.infer_signature(wines, leak_free.pipeline.predict(wines))
            options = {"serialization_format": "pickle", "pip_requirements": ["scikit-learn"], "input_example": wines}
            mlflow.sklearn.log_model(leak_free.pipeline, name="model", signature=signature, **options)

    total = time_fastest(track)
    assert total - time_fastest(plot_and_write) < 0.3


LOG_RUNS = """
import os
import sys
from functools import partial
from pathlib import Path
from experiment_tracking.runs.autolog import AUTOLOG, BY_HAND, compare_logging
from experiment_tracking.runs.store import open_store
from experiment_tracking.runs.tracking import end_run, log_values, start_run
from wine_data.sources.load import load_wines

folder = Path(os.environ["STORE"])
data = load_wines("twin", 42, folder, "http://127.0.0.1:1/")
print("ready", flush=True)
sys.stdin.readline()
experiment_id = open_store(os.environ["STORE_URI"], folder / "mlartifacts")
for number in range(int(os.environ["RUNS"])):
    run_id = start_run(experiment_id, f"{sys.argv[1]}.{number}", data, {"number": number})
    log_values(run_id, metrics={"rmse": 0.7, "kappa": 0.5}, series={"rounds": [0.9, 0.8]})
    end_run(run_id)
"""


def assert_eight_processes_log(uri: str, folder: Path, environment: Mapping[str, str], runs: int) -> None:
    """Log so many runs from each of eight processes at once, and find each of them whole."""
    more = {"STORE": str(folder), "STORE_URI": uri, "RUNS": str(runs)}
    done = run_at_once(LOG_RUNS, "01234567", {**environment, **more})
    assert [process.returncode for process in done] == [0] * 8, done
    assert "Error" not in "".join(process.stderr for process in done)
    found = mlflow.search_runs([open_store(uri, folder / "mlartifacts")], output_format="list")
    logged = [run for run in found if "number" in run.data.params]  # other tests may log to the same server
    assert {run.info.status for run in logged} == {"FINISHED"}
    assert {run.data.metrics["kappa"] for run in logged} == {0.5}
    assert {run.info.run_name for run in logged} == {f"{one}.{number}" for one in range(8) for number in range(runs)}
    assert len(logged) == 8 * runs


@pytest.mark.full
def test_eight_processes_log_to_a_fresh_store_at_once_and_lose_nothing(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert_eight_processes_log(uri, tmp_path, os.environ, runs=25)


def test_a_store_that_was_moved_with_its_artifacts_finds_them(
    track: Track, store: Store, twin_split: Split, evaluations: list[Evaluation], tmp_path: Path
) -> None:
    tracked = track()
    new = tmp_path / "new place, with 100 % odd name"
    new.mkdir()
    for name in ("mlflow.db", "mlartifacts"):
        (store.folder / name).rename(new / name)
    open_store(f"sqlite:///{new / 'mlflow.db'}", new / "mlartifacts")
    loaded = mlflow.sklearn.load_model(tracked.model_uri)
    wines = feature_frame(twin_split.holdout)
    assert (loaded.predict(wines) == evaluations[1].pipeline.predict(wines)).all()
    track()
    assert not (store.folder / "mlartifacts").exists()


def test_a_database_that_lies_elsewhere_keeps_its_artifacts_where_they_are(store: Store, tmp_path: Path) -> None:
    (tmp_path / "another project" / "mlartifacts").mkdir(parents=True)
    open_store(f"sqlite:///{store.folder / 'mlflow.db'}", tmp_path / "another project" / "mlartifacts")
    location = mlflow.get_experiment(store.experiment_id).artifact_location
    assert location.endswith(f"{store.folder.name}/mlartifacts")


def test_another_folder_for_artifacts_leaves_those_of_earlier_runs_where_they_are(track: Track, store: Store) -> None:
    uri, folders = f"sqlite:///{store.folder / 'mlflow.db'}", [store.folder / "mlartifacts", store.folder / "other"]
    folders[1].mkdir()
    tracked = []
    for folder in (*reversed(folders), folders[1]):
        tracked.append(track())
        open_store(uri, folder)
    for model in tracked:
        mlflow.sklearn.load_model(model.model_uri)
        assert mlflow.artifacts.load_text(f"runs:/{model.run_id}/model_card.md")


def test_a_deleted_experiment_is_named_with_the_command_that_brings_it_back(store: Store) -> None:
    mlflow.delete_experiment(store.experiment_id)
    with pytest.raises(BadInputError, match=f"mlflow experiments restore --experiment-id {store.experiment_id}"):
        open_store(f"sqlite:///{store.folder / 'mlflow.db'}", store.folder / "mlartifacts")


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
