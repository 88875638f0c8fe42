"""What one run of the pipeline leaves behind: runs, champion, summary, and the same answers everywhere."""

import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from numpy.typing import ArrayLike
from prefect import flow
from rich.console import Console
from sklearn.pipeline import Pipeline

from commands import BadInputError
from deployment.batch.file import score_file
from experiment_tracking.registry.gate import Comparison, Verdict
from experiment_tracking.registry.versions import CHAMPION, MODEL, find_version, load_version
from experiment_tracking.runs.store import EXPERIMENT
from orchestration.flows import choose_plan, name_places, shorten_source
from orchestration.summary.result import PipelineResult, Release, show_result
from orchestration.tasks.steps import fetch_wines
from orchestration.tasks.wiring import wire
from settings import load_settings
from tests.conftest import SECRET, PipelineRun, full_size, isolated_environment, run_here
from tests.messages import assert_failed, find_lines
from tests.processes import start_python
from tests.web import WEB
from wine_data.audit.checks import audit_wines
from wine_data.schema import FEATURES, MEASUREMENTS, TARGET, WineQuality, feature_array, feature_frame
from wine_data.snapshots.snapshot import read_snapshot
from wine_data.sources.load import TRAIN_FILE, VALIDATION_FILE, WineData
from wine_data.split import Split, split_wines
from wine_data.table.wines import COLUMNS
from wine_data.twin.sample import sample_twin
from wine_quality_training.bundle.bundle import load_current
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import ALL_MODELS, make_model


@pytest.fixture
def runs(pipeline_run: PipelineRun) -> list[Run]:
    mlflow.set_tracking_uri(pipeline_run.mlflow_uri)
    return mlflow.search_runs(experiment_names=[EXPERIMENT], output_format="list")


def test_it_writes_no_secret_of_its_environment_into_a_store_a_file_or_its_output(pipeline_run: PipelineRun) -> None:
    files = [path for path in pipeline_run.folder.rglob("*") if path.is_file()]
    assert {"mlflow.db", "prefect.db", "model.pkl", "model_card.md"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in pipeline_run.output + pipeline_run.progress


@full_size
def test_as_published_models_remember_and_leak_free_they_do_not(pipeline_run: PipelineRun) -> None:
    for line in (
        r"^RandomForestClassifier\s+validation\s+0\.0[4567]",
        r"^RandomForestClassifier\s+holdout\s+0\.[78]",
        r"\bholdout\b.*\b1,0\d\d\b.*\bkappa 0\.[345]",
    ):
        assert re.search(line, pipeline_run.output, re.MULTILINE), line


def test_a_summary_of_three_lines_comes_before_the_table_and_all_fits_100_columns(pipeline_run: PipelineRun) -> None:
    serves, unseen, following, blank, title, *_ = lines = pipeline_run.output.splitlines()
    assert re.fullmatch(r"Serves      wine-quality version 1, \w+Classifier", serves)
    assert re.match(r"Unseen      right about \d+%, kappa 0\.\d{3} on wines kept out of training", unseen)
    assert following.startswith("Next        make serve starts the API")
    assert (blank, title.strip()) == ("", "as-published: the same wines in both files, so this is memory")
    assert max(map(len, lines)) <= 100


def test_it_prints_at_once_is_never_silent_for_long_and_keeps_prefects_lines_back(pipeline_run: PipelineRun) -> None:
    steps = [re.fullmatch(r" *(\d+) s  (.+)", line) for line in pipeline_run.progress.splitlines()]
    seconds, texts = zip(*((int(step[1]), step[2]) for step in steps if step), strict=True)
    assert len(seconds) == len(steps), pipeline_run.progress  # no line of Prefect's
    assert seconds[0] == 0
    assert max(np.diff(seconds)) <= 6  # five, and the seconds are rounded
    assert "starting Prefect" in texts
    assert any(text.startswith("Model 6 of 6 is done") for text in texts)


def test_it_ends_with_the_gate_a_prediction_and_what_to_try(pipeline_run: PipelineRun) -> None:
    for line in (
        r"^Gate        version 1 is better than the majority-class baseline",
        r"^Prediction  grade [3-9] through the API, for a holdout wine graded [3-9]",
        r"^leak-free, 95 % intervals",
        r"^  make mlflow ",
    ):
        assert re.search(line, pipeline_run.output, re.MULTILINE), line


def test_where_the_first_gate_refused_the_last_line_says_how_something_comes_to_serve() -> None:
    verdict = Verdict("1", "", (Comparison("holdout", 100, "kappa", 0.1, 0.0, -0.1, 0.0),))
    release = Release(verdict, None, 5, {"prediction": 5, "expected_quality": 5.0, "probabilities": {"5": 1.0}})
    console = Console(file=io.StringIO(), width=200)
    show_result(PipelineResult("folder", "0123", "", [], release), console)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().startswith("Serves      no model yet")
    assert "make serve" not in console.file.getvalue()
    assert "registry promote --reason" in console.file.getvalue().splitlines()[-1]


def test_a_parent_run_holds_a_run_a_model_and_each_names_its_data(runs: list[Run], pipeline_run: PipelineRun) -> None:
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert parent.info.run_name == "pipeline"
    assert sorted(child.info.run_name for child in children) == sorted(ALL_MODELS)
    assert {run.info.status for run in runs} == {"FINISHED"}
    data = pipeline_run.load_data()
    named = {(run.data.tags["data.fingerprint"], run.data.tags["data.source"]) for run in runs}
    assert named == {(data.fingerprint, data.source)}


def test_a_models_run_holds_parameters_and_the_metrics_of_both_protocols(runs: list[Run]) -> None:
    forest = next(run for run in runs if run.info.run_name == "RandomForestClassifier")
    assert forest.data.params["n_estimators"] == "100"
    measures = {"rmse", "mae", "r2", "accuracy", "within_one", "kappa"}
    sets = {"as-published.train", "as-published.validation", "leak-free.cv", "leak-free.holdout"}
    promises = {f"leak-free.holdout.{name}_{level}" for name in ("coverage", "set_size") for level in (80, 90)}
    assert set(forest.data.metrics) == {f"{wines}.{measure}" for wines in sets for measure in measures} | promises


def test_the_champion_is_registered_with_a_signature_and_serves(runs: list[Run], pipeline_run: PipelineRun) -> None:
    version = mlflow.MlflowClient().get_model_version_by_alias(MODEL, CHAMPION)
    assert version.run_id in {run.info.run_id for run in runs}
    signature = mlflow.models.get_model_info(f"models:/{MODEL}@{CHAMPION}").signature
    assert tuple(signature.inputs.input_names()) == FEATURES
    metadata = load_current(pipeline_run.serving_models).metadata
    assert (metadata.run_id, metadata.version) == (version.run_id, str(version.version)) == (version.run_id, "1")
    assert metadata.data_fingerprint == version.tags["data.fingerprint"]
    assert metadata.metrics["leak-free.holdout.accuracy"] < 0.65
    assert not [name for name in metadata.metrics if not name.startswith("leak-free.")]
    facts = json.loads((pipeline_run.serving_models / "1" / "facts.json").read_text())
    assert [tuple(answer["wine"]) for answer in facts["answers"]] == [FEATURES] * 8


@pytest.mark.alone
def test_ctrl_c_ends_it_within_seconds_and_leaves_no_run_open(tmp_path: Path) -> None:
    """The signal goes to every process of the command, as from a terminal."""
    environment = isolated_environment(tmp_path) | {"WINE_DATA": "twin"}
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
    pipeline = start_python("-m", "orchestration.flows", env=environment, **options)
    assert pipeline.stderr is not None
    next(line for line in pipeline.stderr if find_lines(line, "fold 2"))
    start = time.monotonic()
    os.killpg(pipeline.pid, signal.SIGINT)
    rest = pipeline.stderr.read()
    assert pipeline.wait(timeout=60) == 130
    assert time.monotonic() - start < 30
    assert "Traceback" not in rest
    mlflow.set_tracking_uri(environment["MLFLOW_TRACKING_URI"])
    runs = mlflow.search_runs(experiment_names=[EXPERIMENT], output_format="list")
    assert [run.info.status for run in runs] == ["FAILED"]


@pytest.mark.parametrize(
    ("source", "facts"),
    [("nonsense", ["WINE_DATA=nonsense", "auto", "uci", "kaggle", "twin"]), ("fifty wines", ["50", "200"])],
)
def test_wines_that_will_not_do_are_refused_before_anything_starts(
    source: str, facts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fifty wines").mkdir()
    for name in (TRAIN_FILE, VALIDATION_FILE):
        sample_twin(50, seed=1)[[*COLUMNS]].to_csv(tmp_path / "fifty wines" / name, index=False)
    monkeypatch.chdir(tmp_path)
    done = run_here("orchestration.flows", isolated_environment(tmp_path) | {"WINE_DATA": source})
    assert_failed(done, 2, *facts)
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("source", "short"), [("", "auto"), ("uci", "uci"), ("/home/anna/wines/", "wines"), ("s3://cellar/2026", "2026")]
)
def test_a_run_is_named_after_its_source(source: str, short: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINE_DATA", "auto")
    assert shorten_source(source) == short


def test_prefect_keeps_the_run_its_tasks_and_the_table(pipeline_run: PipelineRun) -> None:
    with closing(sqlite3.connect(pipeline_run.folder / ".prefect" / "prefect.db")) as store:
        flow_runs = dict(store.execute("SELECT name, state_type FROM flow_run"))
        task_runs = dict(store.execute("SELECT name, state_type FROM task_run"))
        artifacts = dict(store.execute("SELECT key, data FROM artifact WHERE key IS NOT NULL"))
    source = shorten_source(pipeline_run.environment["WINE_DATA"])
    assert list(flow_runs.values()) == ["COMPLETED"] * 5  # the pipeline and its four parts
    assert {f"wine quality from {source}", f"wines from {source}"} <= set(flow_runs)
    assert set(task_runs.values()) == {"COMPLETED"}
    tasks = {"audit wines", "train RandomForestClassifier", "judge version", "promote version", "ask the API"}
    assert tasks <= set(task_runs)
    assert set(artifacts) == {"audit", "fits", "mlflow-run", "protocols", "two-protocols"}
    assert "| RandomForestClassifier | leak-free | holdout |" in artifacts["two-protocols"]
    assert "data:image/png;base64," in artifacts["protocols"]
    assert float(artifacts["fits"]) == 100  # percent


@pytest.mark.usefixtures("prefect")
def test_a_mistake_inside_the_flow_is_not_tried_again() -> None:
    """A retry cannot help there: the experiment stays deleted until somebody restores it."""
    tries: list[Exception] = []

    def fail(problem: Exception) -> None:
        tries.append(problem)
        raise problem

    @flow
    def fail_thrice() -> None:
        for problem in (BadInputError("a mistake"), ValueError("a fit that fails"), OSError("a full disk")):
            with suppress(type(problem)):
                wire(fail, "fail", retries=1)(problem)

    fail_thrice()
    assert [type(problem) for problem in tries] == [BadInputError, ValueError, OSError, OSError]


def test_the_settings_give_the_colour_of_a_file_and_the_plan(
    tmp_path: Path, twin: WineData, monkeypatch: pytest.MonkeyPatch
) -> None:
    reds = twin.validation[twin.validation["red_wine"] == 1]
    reds[[*MEASUREMENTS, TARGET]].to_csv(tmp_path / "mine.csv", index=False)
    for name, value in {"TYPE": "red", "SNAPSHOTS": str(tmp_path), "FOLDS": "3", "SEED": "7"}.items():
        monkeypatch.setenv(f"WINE_{name}", value)
    settings = load_settings()
    fingerprint = fetch_wines(str(tmp_path / "mine.csv"), 42, **name_places(settings))
    assert set(read_snapshot(tmp_path, fingerprint).train["red_wine"]) == {1}
    assert (choose_plan(None, None), choose_plan(4, 0)) == ((3, 7), (4, 0))


@pytest.mark.usefixtures("prefect")
def test_a_task_that_took_all_its_time_is_not_tried_again() -> None:
    tries: list[float] = []

    def sleep() -> None:
        tries.append(time.monotonic())
        time.sleep(30)

    @flow
    def sleep_once() -> None:
        wire(sleep, "sleep", retries=1, timeout=0.2)()

    with pytest.raises(TimeoutError):
        sleep_once()
    assert len(tries) == 1


def test_a_summary_has_protocols_wines_gate_and_audit(pipeline_run: PipelineRun, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n")
    environment = pipeline_run.environment | {"GITHUB_STEP_SUMMARY": str(page)}
    done = run_here("orchestration.summary", environment, "--folder", str(tmp_path / "report"))
    assert done.returncode == 0, done.stderr
    summary = page.read_text()
    assert summary.startswith("before\n# Training")
    data = pipeline_run.load_data()
    protocols = ["| as-published | validation |", "| leak-free | cv |", "| leak-free | holdout |"]
    facts = [*protocols, data.fingerprint[:12], "Champion: wine-quality version 1", *audit_wines(data).sentences()]
    assert [fact for fact in facts if fact not in summary] == []
    assert ("synthetic" in summary) == (pipeline_run.environment["WINE_DATA"] == "twin")
    assert f"before\n{(tmp_path / 'report' / 'summary.md').read_text()}" == summary
    assert list((tmp_path / "report").glob("*/figures/*.png"))


def test_without_a_pipeline_there_is_nothing_to_summarise(tmp_path: Path) -> None:
    done = run_here("orchestration.summary", isolated_environment(tmp_path))
    assert_failed(done, 3, "make pipeline")


@pytest.fixture(scope="module")
def split(pipeline_run: PipelineRun) -> Split:
    data = pipeline_run.load_data()
    return split_wines(data.train, data.validation, folds=5, seed=42)


@pytest.fixture(scope="module")
def wines(split: Split) -> pd.DataFrame:
    """Complete wines, from both sides, some of them with tied votes."""
    both = pd.concat([split.train, split.holdout]).dropna()
    return feature_frame(both.sample(60, random_state=7))


@pytest.fixture(scope="module")
def by_function(pipeline_run: PipelineRun, split: Split) -> Pipeline:
    """The model as the plain function fits it, with no flow around it."""
    champion = load_current(pipeline_run.serving_models).metadata.model
    return evaluate_leak_free(champion, make_model(champion, seed=42), split).pipeline


@pytest.mark.parametrize("place", ["registry", "bundle"])
def test_a_stored_model_answers_as_the_function(
    place: str, pipeline_run: PipelineRun, by_function: Pipeline, wines: pd.DataFrame
) -> None:
    mlflow.set_tracking_uri(pipeline_run.mlflow_uri)
    registry = place == "registry"
    bundle = load_version(find_version(CHAMPION)) if registry else load_current(pipeline_run.serving_models)
    assert_same(bundle.pipeline.predict(wines), bundle.pipeline.predict_proba(wines), by_function, wines)


def test_api_answers_as_the_function(api: str, by_function: Pipeline, wines: pd.DataFrame) -> None:
    bodies = [WineQuality.model_validate(row) for row in wines.to_dict("records")]
    answers = [WEB.post(f"{api}/predict", json=body.model_dump()).raise_for_status().json() for body in bodies]
    table = pd.DataFrame(feature_array(bodies), columns=list(FEATURES))
    probabilities = np.array([list(answer["probabilities"].values()) for answer in answers])
    assert_same([answer["prediction"] for answer in answers], probabilities, by_function, table)
    grades = by_function.classes_.astype(float)
    np.testing.assert_allclose([answer["expected_quality"] for answer in answers], probabilities @ grades, atol=1e-9)


def test_batch_answers_as_the_function(
    pipeline_run: PipelineRun, by_function: Pipeline, wines: pd.DataFrame, tmp_path: Path
) -> None:
    wines.to_csv(tmp_path / "wines.csv", index=False)
    scored = score_file(tmp_path / "wines.csv", pipeline_run.serving_models, tmp_path)
    answers = pd.read_parquet(scored.answers)
    assert (scored.manifest.scored, scored.refused) == (len(wines), None)
    assert_same(answers["prediction"], answers.filter(like="probability_").to_numpy(), by_function, wines)


def assert_same(grades: ArrayLike, probabilities: np.ndarray, model: Pipeline, wines: pd.DataFrame) -> None:
    np.testing.assert_array_equal(grades, model.predict(wines))
    np.testing.assert_allclose(probabilities, model.predict_proba(wines), rtol=0, atol=1e-6)
