"""A real Dask cluster of three processes with limits to their memory: the same results as without, and none lost."""

import os
import signal
from asyncio import CancelledError
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

import mlflow
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from rich.console import Console
from sklearn.base import clone

from commands import BadInputError, NotThereError
from deployment.batch import chunks
from deployment.batch.file import map_chunks, score_file
from executors import LOCAL, make_map, open_cluster, open_executor
from experiment_tracking.partitioned.boosting import NAME, evaluate_partitions, fit_partitions
from experiment_tracking.search import tuning
from experiment_tracking.search.finalists import begin_fits, compare_finalists
from experiment_tracking.search.space import Plan
from experiment_tracking.search.trials import Trial
from experiment_tracking.search.tuning import run_trials, start_search
from orchestration.flows import compare_flow, prepare_flow
from tests.conftest import Store, isolated_environment
from tests.messages import find_lines, naming
from tests.processes import run_python
from tests.test_batch import read_files
from tests.test_batch_parts import write_twin
from wine_data.schema import TARGET, feature_frame
from wine_data.sources.load import WineData
from wine_data.sources.partitions import read_partitions
from wine_data.split import Split, fold_wines, hash_to_unit, is_holdout, split_wines
from wine_data.table.wines import read_wines
from wine_data.twin.sample import sample_twin
from wine_quality_training.evaluate import Fitting, measure_predictions, train_model
from wine_quality_training.models import make_model

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    limits = {"n_workers": 3, "threads_per_worker": 1, "memory_limit": "2GiB"}
    with LocalCluster(**limits, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


@pytest.mark.fast
def test_a_block_that_prefect_cancels_does_not_wait_for_a_task_that_hangs() -> None:
    over = Event()
    with pytest.raises(CancelledError), open_executor(1) as executor:
        hanging = executor.submit(over.wait, 60)
        raise CancelledError
    assert not hanging.done()
    over.set()


@pytest.fixture
def executor(cluster: LocalCluster) -> Iterator[Executor]:
    with open_executor(1, cluster.scheduler_address) as executor:
        yield executor


def run_plan(plan: Plan, store: Store, data: WineData, split: Split) -> list[tuple[object, ...]]:
    """Run a search; return what its trials came to."""
    search = start_search(store.experiment_id, data, {"dask": plan.dask})
    with open_executor(plan.workers, plan.dask) as executor:
        results = [trial.result for trial in run_trials(executor, plan, split, search, QUIET)]
    return [(result.outcome, result.loss, result.fold_losses, result.rounds) for result in results]


@pytest.mark.full
def test_a_search_on_the_cluster_finds_what_it_finds_here_though_a_worker_is_killed(
    cluster: LocalCluster, store: Store, twin: WineData, twin_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(task="regressor", trials=8, workers=2)
    here = run_plan(plan, store, twin, twin_split)
    killed: list[int] = []

    def kill_one(over: list[Trial]) -> str:
        """Kill a worker that runs a trial, when the first one is over."""
        if over and not killed:
            with Client(cluster) as client:
                busy = [address for address, tasks in client.processing().items() if tasks]
                pids = client.run(os.getpid, workers=busy[:1])
            killed.extend(pids.values())
            os.kill(killed[0], signal.SIGKILL)
        return ""

    monkeypatch.setattr(tuning, "_describe_best", kill_one)
    there = run_plan(replace(plan, dask=cluster.scheduler_address), store, twin, twin_split)
    assert len(killed) == 1
    assert there == here


@pytest.mark.full
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_scored_on_the_cluster_get_the_answers_that_they_get_here(
    suffix: str, executor: Executor, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1_000_000)
    monkeypatch.setattr(chunks, "READ_BYTES", 500_000)
    wines = write_twin(tmp_path / f"wines{suffix}", 60_000)
    here = score_file(wines, bundles, tmp_path / "here")
    there = score_file(wines, bundles, tmp_path / "there", map_chunks(executor))
    assert (there.manifest.scored, there.manifest.refused) == (60_000, 0)
    assert len(read_files(there.answers)) >= 3
    assert read_files(there.answers) == read_files(here.answers)
    assert pd.read_parquet(there.answers)["row"].is_monotonic_increasing


@pytest.mark.full
def test_folds_fitted_on_the_cluster_score_as_here(executor: Executor, twin: WineData, twin_split: Split) -> None:
    fit = partial(train_model, "ExtraTreesClassifier", twin, twin_split, 42)
    for ours, theirs in zip(fit(), fit(Fitting(map_fn=make_map(executor))), strict=True):
        assert [score.metrics for score in theirs.scores] == [score.metrics for score in ours.scores]
        assert theirs.predictions.keys() == ours.predictions.keys()
        for scored_on, table in ours.predictions.items():
            pd.testing.assert_frame_equal(theirs.predictions[scored_on], table)  # confidence up to rounding


@pytest.mark.full
def test_finalists_compared_on_the_cluster_come_out_as_here(executor: Executor, twin_split: Split) -> None:
    names = ("DecisionTreeClassifier", "ExtraTreesClassifier")
    models = {name: make_model(name, 42).named_steps["model"] for name in names}
    folds = fold_wines(twin_split.train, 3, 42)
    here, there = (
        compare_finalists(models, begin_fits(models, twin_split, folds, run), twin_split, folds)
        for run in (map, make_map(executor))
    )
    for ours, theirs in zip(here, there, strict=True):
        assert theirs.name == ours.name
        assert theirs.metrics == pytest.approx(ours.metrics)


@pytest.mark.full
@pytest.mark.usefixtures("prefect")
def test_a_flow_trains_its_models_on_the_cluster(
    cluster: LocalCluster, twin: WineData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ("DecisionTreeClassifier", "KNeighborsRegressor")
    for name, value in isolated_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WINE_DASK", cluster.scheduler_address)
    tracked = compare_flow(prepare_flow("twin"), 2, 42, models)
    split = split_wines(twin.train, twin.validation, folds=2, seed=42)
    for name, model in zip(models, tracked, strict=True):
        here = [score.name_metrics() for one in train_model(name, twin, split, 42) for score in one.scores]
        assert [score.name_metrics() for score in model.scores] == here
        assert mlflow.get_run(model.run_id).info.status == "FINISHED"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twin wines in four files of two kinds."""
    folder = tmp_path_factory.mktemp("harvests")
    wines = sample_twin(12_000, seed=5).drop(columns="red_wine")
    for number in range(4):
        part = wines.iloc[number * 3_000 : (number + 1) * 3_000]
        if number % 2:
            part.to_parquet(folder / f"{number}.parquet")
        else:
            part.to_csv(folder / f"{number}.csv", index=False)
    return folder


@pytest.mark.full
def test_xgboost_fits_partitions_repeatably_and_about_as_well_as_in_memory(cluster: LocalCluster, folder: Path) -> None:
    with open_cluster(cluster.scheduler_address) as client:
        partitions = read_partitions(folder, client.get_executor(pure=False).map)
        assert partitions.rows == {"rows": 12_000}
        pipeline, scored = fit_partitions(partitions, client, seed=42, rounds=100)
        again, _ = fit_partitions(partitions, client, seed=42, rounds=100)
    assert 2_000 < len(scored) < 2_800
    table = feature_frame(scored)
    np.testing.assert_allclose(again.predict_proba(table), pipeline.predict_proba(table), atol=1e-3)  # rounding
    wines = pd.concat([read_wines(file) for file in partitions.files])
    fitted_on = wines[~is_holdout(wines)]
    assert len(fitted_on) + len(scored) == len(wines)
    assert scored["lot"].isin(hash_to_unit(wines)).all()
    assert not scored["lot"].isin(hash_to_unit(fitted_on)).any()
    model = clone(pipeline["model"].regressor_).set_params(n_jobs=1)
    predictions = model.fit(feature_frame(fitted_on), fitted_on[TARGET]).predict(table)
    here = measure_predictions(scored[TARGET].to_numpy(), predictions)
    there = measure_predictions(scored[TARGET].to_numpy(), pipeline["model"].regressor_.predict(table))
    assert there["rmse"] == pytest.approx(here["rmse"], rel=0.03)
    assert there["kappa"] == pytest.approx(here["kappa"], abs=0.04)
    assert evaluate_partitions(pipeline, scored).score_on("holdout").metrics["accuracy"] > 0.45


@pytest.mark.full
def test_the_command_leaves_a_model_to_register(cluster: LocalCluster, folder: Path, tmp_path: Path) -> None:
    environment = isolated_environment(tmp_path) | {"WINE_DASK": cluster.scheduler_address}
    command = ["-m", "experiment_tracking.partitioned", str(folder), "--rounds", "20"]
    printed = run_python(*command, env=environment, check=True).stdout
    assert find_lines(printed, "4 files", "12,000")
    assert NAME in printed
    register = printed.splitlines()[-1].partition("python ")[2].split()
    assert "wine-quality version 1" in run_python(*register, env=environment, check=True).stdout


def test_a_broken_partition_is_refused_by_file_column_and_row(executor: Executor, folder: Path, tmp_path: Path) -> None:
    broken = pd.read_parquet(folder / "1.parquet")
    broken["pH"] = [*broken["pH"].head(7).astype(str), "sour", *broken["pH"].tail(-8).astype(str)]
    broken.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(BadInputError, match=naming("a.parquet", "pH", "row 9", "sour")):
        read_partitions(tmp_path, make_map(executor))
    with pytest.raises(NotThereError, match=naming("nowhere", ".csv", ".parquet")):
        read_partitions(tmp_path / "nowhere")


@pytest.mark.full
def test_a_cluster_on_this_machine_is_started_and_ended() -> None:
    with open_executor(1, LOCAL) as executor:
        pids = {executor.submit(os.getpid).result() for _ in range(8)}
    assert os.getpid() not in pids


def test_a_scheduler_that_is_not_there_is_named_with_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executors.CONNECT_SECONDS", 1)
    for address, error in (("tcp://127.0.0.1:1", NotThereError), ("a b", BadInputError)):
        with pytest.raises(error, match=naming("WINE_DASK", address)), open_executor(1, address):
            pass
