"""The search, on few wines and small budgets; nothing in it is replaced but the optimiser, where a test says so."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import mlflow
import numpy as np
import pytest
from hyperopt.pyll.stochastic import sample
from mlflow.entities import Run
from rich.console import Console

from commands import BadInputError
from executors import open_executor
from experiment_tracking.runs.store import EXPERIMENT, open_store
from experiment_tracking.search import space
from experiment_tracking.search.finalists import DEFAULTS
from experiment_tracking.search.ledger import NUMBER, Ledger, open_ledger, reopen_ledger
from experiment_tracking.search.loop import RunTrial, Trial, TrialRunner, run_search
from experiment_tracking.search.space import CLASSIFIER, FAMILIES, FOREST, REGRESSOR, Plan, Study, Values
from experiment_tracking.search.steps import SearchResult, run_trials, search_models
from experiment_tracking.search.trial import FAILED, TrialResult, prepare_folds, run_trial
from tests.conftest import Store, isolated_environment, make_store, run_here
from tests.processes import start_python
from tests.told import assert_told, find_lines, list_untold, naming
from tests.waiting import wait_until
from wine_data.sources.load import TRAIN_FILE, VALIDATION_FILE, WineData, load_wines
from wine_data.split import Split, split_wines

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(twin: WineData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with few wines, so that a search takes seconds."""
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
def ledger(store: Store, data: WineData) -> Ledger:
    return open_ledger(store.experiment_id, data, {"seed": 1}, {})


class RandomOptimiser:
    """The least that is an Optimiser."""

    def __init__(self, study: Study) -> None:
        self.study, self._random = study, np.random.default_rng(1)
        self.losses: list[float | None] = []

    def suggest(self, count: int) -> list[Values]:
        return [sample(space.describe_space(self.study), rng=self._random) for _ in range(count)]

    def tell(self, losses: Sequence[float | None]) -> None:
        self.losses += losses


def find_runs(experiment_id: str) -> list[Run]:
    return mlflow.search_runs([experiment_id], output_format="list")


def list_losses(trials: Sequence[Trial]) -> list[tuple[int, Values, float | None]]:
    return [(one.number, one.values, one.result.loss) for one in trials]


def search_here(optimiser: RandomOptimiser, run: RunTrial, ledger: Ledger) -> list[Trial]:
    """Run six trials of one study on one thread."""
    with open_executor(1) as executor:
        return run_search({optimiser.study: optimiser}, Plan(trials=6), TrialRunner(run, ledger, executor))


@pytest.mark.full
def test_the_seed_alone_decides_whatever_the_number_of_workers(split: Split, data: WineData, store: Store) -> None:
    found = []
    for workers in (1, 2):
        ledger = open_ledger(store.experiment_id, data, {"workers": workers}, {})
        found.append(list_losses(run_trials(Plan(trials=14, workers=workers), split, ledger, QUIET)))
    assert found[0] == found[1]
    ledger = open_ledger(store.experiment_id, data, {"seed": 7}, {})
    assert list_losses(run_trials(Plan(trials=8, seed=7), split, ledger, QUIET)) != found[0][:8]


@pytest.mark.parametrize("broken", [{1}, set(range(6))], ids=["one", "all"])
def test_a_search_goes_on_after_failed_trials(broken: set[int], ledger: Ledger, split: Split) -> None:
    study, folds, numbers = Study(REGRESSOR, FOREST), prepare_folds(split, seed=1), iter(range(6))
    optimiser = RandomOptimiser(study)

    def run(study: Study, values: Values, earlier: Sequence[TrialResult], _: object) -> TrialResult:
        wrong = {"max_features": -1.0} if next(numbers) in broken else {}
        return run_trial(folds, study, values | wrong, earlier)

    trials = search_here(optimiser, run, ledger)
    failed = [number in broken for number in range(6)]
    assert [one.result.outcome == FAILED for one in trials] == failed
    assert [loss is None for loss in optimiser.losses] == failed
    runs = {run.info.run_name: run for run in find_runs(ledger.experiment_id)}
    assert [runs[f"regressor forest {number}"].info.status == "FAILED" for number in range(6)] == failed
    assert "max_features" in runs["regressor forest 1"].data.tags["problem"]


def test_no_batch_starts_after_the_minutes(split: Split, ledger: Ledger) -> None:
    trials = run_trials(Plan(task=REGRESSOR, trials=400, minutes=1e-6), split, ledger, QUIET)
    assert len(trials) == 4


@pytest.fixture(scope="module", params=[CLASSIFIER, pytest.param(REGRESSOR, marks=pytest.mark.full)])
def result(
    request: pytest.FixtureRequest,
    data: WineData,
    split: Split,
    empty_stores: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> SearchResult:
    plan = Plan(task=request.param, trials=8, workers=2)
    store = make_store(tmp_path_factory.mktemp("store"), empty_stores)
    return search_models(plan, data, split, store.experiment_id, QUIET)


def test_trials_and_winners_are_nested_in_one_parent(result: SearchResult) -> None:
    task = result.trials[0].study.task
    runs = find_runs(mlflow.get_run(result.run_id).info.experiment_id)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == result.run_id]
    assert len(runs) == len(children) + 1
    assert {run.info.run_name for run in list_trials(children)} == {
        f"{task} {FAMILIES[number % 2]} {number}" for number in range(8)
    }
    assert {model.run_id for model in result.tracked} <= {run.info.run_id for run in children}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_parent_holds_figures_best_values_and_rounds(result: SearchResult) -> None:
    task = result.trials[0].study.task
    client, parent = mlflow.MlflowClient(), mlflow.get_run(result.run_id)
    kinds = ("history", "parallel", "parameters", "importance")
    assert {Path(file.path).stem for file in client.list_artifacts(result.run_id, "figures")} == {
        f"{task}_{family}_{kind}" for family in FAMILIES for kind in kinds
    }
    assert 4 <= int(parent.data.params[f"best.{task}.xgboost.max_depth"]) <= 12
    rounds = client.get_metric_history(result.run_id, f"best.{task}.xgboost.final_fit.rmse")
    assert len(rounds) > 5
    assert rounds[-1].value < rounds[0].value
    assert f"repeated-cv.{DEFAULTS[task]}.rmse" in parent.data.metrics


def test_a_winner_is_a_model_with_a_signature_and_leak_free_scores(result: SearchResult) -> None:
    ((model, evaluation),) = zip(result.tracked, result.evaluations, strict=True)
    assert mlflow.models.get_model_info(model.model_uri).signature is not None
    kappa = mlflow.get_run(model.run_id).data.metrics["leak-free.holdout.kappa"]
    assert kappa == evaluation.score_on("holdout").metrics["kappa"]


def test_the_published_search_tunes_to_memory(split: Split, data: WineData, store: Store) -> None:
    plan = Plan("as-published", trials=2, workers=2)
    result = search_models(plan, data, split, store.experiment_id, QUIET)
    published, leak_free = result.evaluations
    assert result.trials[0].study == Study(REGRESSOR, space.XGBOOST)
    assert published.score_on("validation").metrics["rmse"] < leak_free.score_on("holdout").metrics["rmse"]


def wait_for_trials(store: Path, count: int) -> None:
    """Wait until so many trials of a running search are over; asks SQLite, because MLflow would make tables there."""

    def are_over() -> bool:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(store / "mlflow.db", timeout=10)) as database:
            (over,) = database.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()
            return bool(over >= count)
        return False

    wait_until(are_over, f"{count} finished trials", seconds=120)


def read_store(database: Path) -> list[Run]:
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    return mlflow.search_runs(experiment_names=[EXPERIMENT], output_format="list")


def list_trials(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.data.tags.get("search.kind") == "trial"]


def list_finished(runs: Sequence[Run]) -> dict[str, str]:
    """The names and results of the trials that were finished."""
    finished = [run for run in list_trials(runs) if run.info.status == "FINISHED"]
    return {run.info.run_name: run.data.tags["search.result"] for run in finished}


def assert_problems_name_their_trials(runs: Sequence[Run]) -> None:
    assert [run for run in runs if list_untold(run.data.tags["problem"], f"trial {run.data.tags[NUMBER]}")] == []


TRIALS = 28  # enough to be killed, or interrupted, in the middle of, on a slow machine too


def start_search(folder: Path, store: Path, *more: str) -> "subprocess.Popen[str]":
    """Start the command on the wines of a folder, in a session of its own."""
    plan = ("--task", "regressor", "--trials", str(TRIALS), "--workers", "2")
    environment = isolated_environment(store) | {"WINE_DATA": str(folder), "WINE_FOLDS": "3"}
    command = ("-m", "experiment_tracking.search", *plan, *more)
    return start_python(*command, env=environment, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.full
def test_a_killed_search_is_resumed_to_what_an_uninterrupted_one_finds(
    folder: Path, tmp_path: Path, data: WineData, split: Split
) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    process = start_search(folder, killed)
    wait_for_trials(killed, 5)
    process.kill()
    process.communicate()
    before = read_store(killed / "mlflow.db")
    over = list_finished(before)
    assert 5 <= len(over) < TRIALS
    resumed = start_search(folder, killed, "--resume")
    output, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    after = read_store(killed / "mlflow.db")
    assert over.items() <= list_finished(after).items()
    assert len(list_finished(after)) == TRIALS
    rerun = [run for run in list_trials(after) if run.info.status == "KILLED"]
    assert len(rerun) == len(list_trials(before)) - len(over)
    assert_problems_name_their_trials(rerun)
    assert find_lines(output, "make mlflow", "BlendRegressor")  # which cannot be served, so it is not to be registered
    (winner,) = [run for run in after if "model" in run.data.tags]
    whole = open_store(f"sqlite:///{tmp_path / 'whole.db'}", tmp_path / "whole")
    result = search_models(Plan(task=REGRESSOR, trials=TRIALS), data, split, whole, QUIET)
    assert list_finished(after) == list_finished(find_runs(whole))
    # A forest adds its trees up in the order in which its threads end: the last bit differs from run to run.
    expected = mlflow.get_run(result.tracked[0].run_id).data.metrics
    assert winner.data.metrics == pytest.approx(expected, rel=1e-9)


@pytest.mark.full
def test_ctrl_c_leaves_no_run_open_and_can_be_resumed(folder: Path, tmp_path: Path, data: WineData) -> None:
    process = start_search(folder, tmp_path)
    wait_for_trials(tmp_path, 3)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    runs = read_store(tmp_path / "mlflow.db")
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    identity = {"protocol": "leak-free", "task": "regressor", "seed": 42, "folds": 3}
    identity |= {"fingerprint": data.fingerprint, "batch": space.BATCH}
    assert len(reopen_ledger(runs[0].info.experiment_id, data, identity).finished) >= 3


def test_a_search_that_is_stopped_while_it_starts_a_run_leaves_none_open(
    ledger: Ledger, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = iter(range(100))

    def interrupt_the_third(*_: object) -> None:
        if next(started) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("experiment_tracking.runs.tracking._log_dataset", interrupt_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_trials(Plan(task=REGRESSOR, trials=4), split, ledger, QUIET)
    trials = list_trials(find_runs(ledger.experiment_id))
    assert len(trials) == 3
    assert {run.info.status for run in trials} == {"KILLED"}
    assert_problems_name_their_trials(trials)


def test_to_resume_what_was_not_begun_is_refused(folder: Path, tmp_path: Path) -> None:
    environment = isolated_environment(tmp_path) | {"WINE_DATA": str(folder), "WINE_FOLDS": "3"}
    assert_told(run_here("experiment_tracking.search", environment, "--resume"), 2, "--resume")


@pytest.mark.parametrize(
    "plan", [Plan(trials=0), Plan(workers=0), Plan(minutes=0), Plan("as-published", task="classifier")]
)
def test_a_senseless_plan_starts_no_run(plan: Plan, split: Split, data: WineData, store: Store) -> None:
    with pytest.raises(BadInputError):
        search_models(plan, data, split, store.experiment_id, QUIET)
    assert find_runs(store.experiment_id) == []


def test_a_resumed_search_refuses_trials_of_another_space(split: Split, ledger: Ledger) -> None:
    run_trials(Plan(task=REGRESSOR, trials=4), split, ledger, QUIET)
    reopened = reopen_ledger(ledger.experiment_id, ledger.data, {"seed": 1})
    with pytest.raises(BadInputError, match=naming("trial 0", "--resume")):
        search_here(RandomOptimiser(Study(REGRESSOR, FOREST)), lambda *_: TrialResult(FAILED), reopened)
