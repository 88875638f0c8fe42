"""The search, on few wines and small budgets; nothing in it is replaced but the optimiser, where a test says so."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import mlflow
import numpy as np
import pytest
from hyperopt.pyll.stochastic import sample
from mlflow.entities import Run
from rich.console import Console

from commands import BadInputError
from executors import open_executor
from experiment_tracking.runs.store import EXPERIMENT, open_store
from experiment_tracking.search.finalists import DEFAULT, TUNED_FOREST, TUNED_XGB
from experiment_tracking.search.selection import SearchResult, search_models
from experiment_tracking.search.space import (
    BATCH,
    BOTH,
    CLASSIFIER,
    FAMILIES,
    FOREST,
    REGRESSOR,
    TASKS,
    XGBOOST,
    Plan,
    Values,
    describe_space,
)
from experiment_tracking.search.trials import FAILED, Trial, TrialResult, prepare_folds, run_trial
from experiment_tracking.search.tuning import (
    NUMBER,
    RunTrial,
    SearchRun,
    TreeParzenOptimiser,
    TrialRunner,
    resume_search,
    run_batches,
    run_trials,
    start_search,
)
from settings import ROOT
from tests.conftest import Store, isolated_environment, make_store, run_here
from tests.messages import assert_failed, find_lines, list_missing, naming
from tests.waiting import wait_until
from wine_data.schema import feature_frame
from wine_data.sources.load import TRAIN_FILE, VALIDATION_FILE, WineData, load_wines
from wine_data.split import Split, split_wines

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(twin: WineData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few wines")
    twin.train.head(900).drop(columns="red_wine").to_csv(folder / TRAIN_FILE, index=False)
    twin.validation.head(300).drop(columns="red_wine").to_csv(folder / VALIDATION_FILE, index=False)
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> WineData:
    return load_wines(str(folder), 42, folder, "")


@pytest.fixture(scope="module")
def split(data: WineData) -> Split:
    return split_wines(data.train, data.validation, folds=3, seed=42)


@pytest.fixture
def search(store: Store, data: WineData) -> SearchRun:
    return start_search(store.experiment_id, data, {"seed": 1})


class RandomOptimiser(TreeParzenOptimiser):
    """Draws forests at random, and keeps the losses."""

    def __init__(self) -> None:
        super().__init__(describe_space(FOREST), seed=1)
        self._random = np.random.default_rng(1)
        self.losses: list[float | None] = []

    def suggest(self) -> Values:
        return dict(sample(self._space, rng=self._random))

    def observe(self, loss: float | None) -> None:
        self.losses.append(loss)


def find_runs(experiment_id: str) -> list[Run]:
    return list(mlflow.MlflowClient().search_runs([experiment_id], max_results=1000))


def list_losses(trials: Sequence[Trial]) -> list[tuple[int, Values, float | None]]:
    return [(trial.number, trial.values, trial.result.loss) for trial in trials]


def search_at_random(optimiser: RandomOptimiser, trials: int, run: RunTrial, search: SearchRun) -> list[Trial]:
    """Run a search of the forest on one thread."""
    with open_executor(1) as executor:
        runner = TrialRunner(run, search, executor)
        return run_batches({FOREST: optimiser}, Plan(trials=trials), runner)


def run_plan(plan: Plan, split: Split, search: SearchRun) -> list[Trial]:
    with open_executor(plan.workers) as executor:
        return run_trials(executor, plan, split, search, QUIET)


@pytest.mark.full
def test_the_seed_alone_decides_whatever_the_number_of_workers(split: Split, data: WineData, store: Store) -> None:
    found = []
    for workers in (1, 2):
        search = start_search(store.experiment_id, data, {"workers": workers})
        found.append(list_losses(run_plan(Plan(trials=14, workers=workers), split, search)))
    assert found[0] == found[1]
    search = start_search(store.experiment_id, data, {"seed": 7})
    assert list_losses(run_plan(Plan(trials=8, seed=7), split, search)) != found[0][:8]


def test_a_failed_trial_is_a_failed_run_with_its_reason_and_the_search_goes_on(search: SearchRun, split: Split) -> None:
    folds = prepare_folds(split, seed=1)
    optimiser, numbers = RandomOptimiser(), iter(range(100))

    def fail_once(family: str, values: Values, earlier: Sequence[TrialResult], _: object) -> TrialResult:
        broken = values | {"max_features": -1.0} if next(numbers) == 1 else values
        return run_trial(folds, family, broken, earlier)

    trials = search_at_random(optimiser, 6, fail_once, search)
    assert [trial.result.outcome == FAILED for trial in trials] == [False, True, False, False, False, False]
    assert optimiser.losses[1] is None
    assert all(loss is not None for loss in optimiser.losses[2:])
    runs = {run.info.run_name: run for run in find_runs(search.experiment_id)}
    failed = runs["forest 1"]
    assert failed.info.status == "FAILED"
    assert "max_features" in failed.data.tags["problem"]
    assert runs["forest 2"].info.status == "FINISHED"


def test_a_search_goes_on_when_every_trial_fails(search: SearchRun) -> None:
    def fail(*_: object) -> TrialResult:
        raise ValueError("a reason")

    trials = search_at_random(RandomOptimiser(), 6, fail, search)
    assert [trial.result.problem for trial in trials] == ["ValueError: a reason"] * 6


def test_no_batch_starts_after_the_minutes(split: Split, search: SearchRun) -> None:
    trials = run_plan(Plan(trials=400, minutes=1e-6), split, search)
    assert len(trials) == 4


@pytest.fixture(scope="module", params=[BOTH, *(pytest.param(task, marks=pytest.mark.full) for task in TASKS)])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def result(
    task: str, split: Split, data: WineData, empty_stores: Path, tmp_path_factory: pytest.TempPathFactory
) -> SearchResult:
    store = make_store(tmp_path_factory.mktemp("store"), empty_stores)
    return search_models(Plan(task=task, trials=8, workers=2), data, split, store.experiment_id, QUIET)


def test_trials_and_winners_are_nested_in_one_parent(result: SearchResult) -> None:
    client = mlflow.MlflowClient()
    parent = client.get_run(result.run_id)
    runs = find_runs(parent.info.experiment_id)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == result.run_id]
    assert len(runs) == len(children) + 1
    names = sorted(run.info.run_name for run in children if run.data.tags.get("search.kind") == "trial")
    assert names == sorted(f"{FAMILIES[number % 2]} {number}" for number in range(8))
    assert {model.run_id for model in result.tracked} <= {run.info.run_id for run in children}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_parent_holds_figures_best_values_and_the_finalists_measures(result: SearchResult) -> None:
    client = mlflow.MlflowClient()
    figures = {Path(file.path).stem for file in client.list_artifacts(result.run_id, "figures")}
    assert figures == set(FAMILIES)
    parent = client.get_run(result.run_id)
    assert 4 <= int(parent.data.params["best.xgboost.max_depth"]) <= 12
    assert {f"finalists-cv.{name}.rps" for name in (DEFAULT, TUNED_FOREST, TUNED_XGB)} <= set(parent.data.metrics)


def test_a_winner_is_tracked_as_what_was_asked_for(task: str, result: SearchResult, split: Split) -> None:
    tasks = TASKS if task == BOTH else (task,)
    assert [model.name.endswith(each.capitalize()) for model, each in zip(result.tracked, tasks, strict=True)]
    assert [model.classifies for model in result.tracked] == [each == CLASSIFIER for each in tasks]
    for model, evaluation in zip(result.tracked, result.evaluations, strict=True):
        assert mlflow.models.get_model_info(model.model_uri).signature is not None
        logged = mlflow.MlflowClient().get_run(model.run_id).data.metrics
        assert logged["leak-free.holdout.kappa"] == evaluation.score_on("holdout").metrics["kappa"]
    if task == BOTH:  # fitted once
        regressor, classifier = (evaluation.pipeline for evaluation in result.evaluations)
        expected = classifier.predict_proba(feature_frame(split.holdout)) @ classifier.classes_
        np.testing.assert_allclose(regressor.predict(feature_frame(split.holdout)), expected, rtol=1e-12)
        np.testing.assert_allclose(result.evaluations[0].predictions["holdout"]["prediction"], expected, rtol=1e-12)


def test_the_published_search_tunes_to_memory(split: Split, data: WineData, store: Store) -> None:
    plan = Plan("as-published", trials=2, workers=2)
    result = search_models(plan, data, split, store.experiment_id, QUIET)
    published, leak_free = result.evaluations
    assert result.trials[0].family == XGBOOST
    assert published.score_on("validation").metrics["rmse"] < leak_free.score_on("holdout").metrics["rmse"]


def run_command_line(folder: Path, store: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiment_tracking.search", *arguments]
    environment = isolated_environment(store) | {"WINE_DATA": str(folder), "WINE_FOLDS": "3"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE, text=True, process_group=0)


def wait_for_trials(store: Path, count: int) -> None:
    """Wait until so many trials of a running search are over; asks SQLite, because MLflow would make tables there."""

    def are_over() -> bool:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(store / "mlflow.db", timeout=10)) as database:
            (over,) = database.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()
            return bool(over >= count)
        return False

    wait_until(are_over, f"{count} finished trials", seconds=120)


def list_tracked_trials(store: Path) -> list[Run]:
    return [run for run in read_store(store) if run.data.tags.get("search.kind") == "trial"]


def find_winners(store: Path) -> list[Run]:
    return [run for run in read_store(store) if "model" in run.data.tags]


def read_store(store: Path) -> list[Run]:
    mlflow.set_tracking_uri(f"sqlite:///{store / 'mlflow.db' if store.is_dir() else store}")
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return find_runs(experiment.experiment_id)


def read_results(runs: Sequence[Run]) -> dict[str, str]:
    return {run.info.run_name: run.data.tags["search.result"] for run in runs if run.info.status == "FINISHED"}


TRIALS = 28  # enough to be killed, or interrupted, in the middle of, on a slow machine too
COMMAND = ("--task", "regressor", "--trials", str(TRIALS), "--workers", "2")


@pytest.mark.full
def test_a_killed_search_is_resumed_to_what_an_uninterrupted_one_finds(
    folder: Path, tmp_path: Path, data: WineData, split: Split
) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    process = run_command_line(folder, killed, *COMMAND)
    wait_for_trials(killed, 5)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = list_tracked_trials(killed)
    over = {run.info.run_id for run in before if run.info.status == "FINISHED"}
    assert 5 <= len(over) < TRIALS
    resumed = run_command_line(folder, killed, *COMMAND, "--resume")
    output, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    after = list_tracked_trials(killed)
    assert over <= {run.info.run_id for run in after if run.info.status == "FINISHED"}
    assert len([run for run in after if run.info.status == "FINISHED"]) == TRIALS
    rerun = [run for run in after if run.info.status == "KILLED"]
    assert len(rerun) == len(before) - len(over)
    assert [run for run in rerun if list_missing(run.data.tags["problem"], f"trial {run.data.tags[NUMBER]}")] == []
    assert find_lines(output, "make mlflow", "--task classifier")  # a regressor cannot be served
    (winner,) = find_winners(killed)
    whole = open_store(f"sqlite:///{tmp_path / 'whole.db'}", tmp_path / "whole")
    result = search_models(Plan(task=REGRESSOR, trials=TRIALS), data, split, whole, QUIET)
    assert read_results(after) == read_results(list_tracked_trials(tmp_path / "whole.db"))
    # A forest adds its trees up in the order in which its threads end: the last bit differs from run to run.
    expected = mlflow.MlflowClient().get_run(result.tracked[0].run_id).data.metrics
    assert winner.data.metrics == pytest.approx(expected, rel=1e-9)


@pytest.mark.full
def test_ctrl_c_leaves_no_run_open_and_can_be_resumed(folder: Path, tmp_path: Path) -> None:
    process = run_command_line(folder, tmp_path, *COMMAND)
    wait_for_trials(tmp_path, 3)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    assert {run.info.status for run in find_runs(experiment.experiment_id)} <= {"FINISHED", "KILLED"}
    data = load_wines(str(folder), 42, folder, "")
    identity = {"protocol": "leak-free", "seed": 42, "folds": 3}
    identity |= {"fingerprint": data.fingerprint, "batch": BATCH}
    assert len(resume_search(experiment.experiment_id, data, identity).finished) >= 3


def test_a_search_that_is_stopped_while_it_starts_a_run_leaves_none_open(
    search: SearchRun, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = iter(range(100))

    def interrupt_the_third(*_: object) -> None:
        if next(started) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("experiment_tracking.runs.tracking._log_dataset", interrupt_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_plan(Plan(trials=4), split, search)
    trials = [run for run in find_runs(search.experiment_id) if run.info.run_id != search.run_id]
    assert len(trials) == 3
    assert {run.info.status for run in trials} == {"KILLED"}
    assert [run for run in trials if list_missing(run.data.tags["problem"], f"trial {run.data.tags[NUMBER]}")] == []


def test_bad_input_is_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    environment = isolated_environment(tmp_path) | {"WINE_DATA": str(folder), "WINE_FOLDS": "3"}
    assert_failed(run_here("experiment_tracking.search", environment, "--resume"), 2, "--resume")


@pytest.mark.parametrize(
    "wrong",
    [{"trials": 0}, {"workers": 0}, {"minutes": 0}, {"protocol": "as-published", "task": "classifier"}],
)
def test_a_plan_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        Plan(**wrong)


def test_a_resumed_search_refuses_trials_of_another_space(split: Split, search: SearchRun) -> None:
    run_plan(Plan(trials=4), split, search)
    resumed = resume_search(search.experiment_id, search.data, {"seed": 1})
    with pytest.raises(BadInputError, match=naming("trial 0", "--resume")):
        search_at_random(RandomOptimiser(), 4, lambda *_: TrialResult(FAILED), resumed)
