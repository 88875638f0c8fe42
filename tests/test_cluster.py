"""A real Dask cluster of three processes with limits to their memory: the same results as without, and none lost."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client, LocalCluster
from rich.console import Console

from commands import BadInputError, NotThereError
from deployment import batch_parts
from deployment.batch import score_file
from executors import LOCAL, open_executor
from experiment_tracking import search
from experiment_tracking.search import Plan, run_trials
from experiment_tracking.search_loop import Trial
from experiment_tracking.search_runs import open_ledger
from tests.conftest import Store
from tests.test_batch import read_files
from tests.test_batch_parts import write_twin
from wine_data.sources import WineData
from wine_data.split import Sides

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=3, threads_per_worker=1, memory_limit="2GiB", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def run_plan(plan: Plan, store: Store, data: WineData, sides: Sides) -> list[Trial]:
    ledger = open_ledger(store.experiment_id, data, {"dask": plan.dask}, {})
    return run_trials(plan, sides, ledger, {}, QUIET)


def list_results(trials: list[Trial]) -> list[tuple[str, float | None, tuple[float, ...], tuple[int, ...]]]:
    results = [trial.result for trial in trials]
    return [(result.outcome, result.loss, result.fold_losses, result.rounds) for result in results]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(task="regressor", trials=8, workers=2)


def test_a_search_on_the_cluster_finds_what_it_finds_here_though_a_worker_is_killed(
    cluster: LocalCluster, plan: Plan, store: Store, twin: WineData, twin_sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = run_plan(plan, store, twin, twin_sides)
    killed: list[int] = []

    def kill_one(over: list[Trial]) -> str:
        """Called for every trial that is over: the first time, a worker that runs another one is killed."""
        if over and not killed:
            with Client(cluster) as client:
                busy = [address for address, tasks in client.processing().items() if tasks]
                pids = client.run(os.getpid, workers=busy[:1])
            killed.extend(pids.values())
            os.kill(killed[0], signal.SIGKILL)
        return ""

    monkeypatch.setattr(search, "_describe_best", kill_one)
    there = run_plan(replace(plan, dask=cluster.scheduler_address), store, twin, twin_sides)
    assert len(killed) == 1
    assert list_results(there) == list_results(here)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_scored_on_the_cluster_get_the_answers_that_they_get_here(
    cluster: LocalCluster, bundles: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_parts, "PART_BYTES", 1_000_000)
    monkeypatch.setattr(batch_parts, "READ_BYTES", 500_000)
    wines = write_twin(tmp_path / f"wines{suffix}", 60_000)
    here = score_file(wines, bundles, tmp_path / "here")
    with open_executor(1, cluster.scheduler_address) as executor:
        there = score_file(wines, bundles, tmp_path / "there", executor)
    assert (there.scored, there.refusals) == (60_000, 0)
    assert len(read_files(there.answers)) >= 3
    assert read_files(there.answers) == read_files(here.answers)
    assert pd.read_parquet(there.answers)["row"].is_monotonic_increasing


def test_a_cluster_on_this_machine_is_started_and_ended() -> None:
    with open_executor(1, LOCAL) as executor:
        pids = {executor.submit(os.getpid).result() for _ in range(8)}
    assert os.getpid() not in pids


def test_a_scheduler_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executors.CONNECT_SECONDS", 1)
    with (
        pytest.raises(NotThereError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        open_executor(1, "tcp://127.0.0.1:1"),
    ):
        pass
    with pytest.raises(BadInputError, match="wants local, or an address as tcp://host:8786"), open_executor(1, "a b"):
        pass
