"""Versions, gate, promotion and rollback in a real store, by function and by command."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from commands import BadInputError, NotThereError, RefusedError
from experiment_tracking.registry import versions
from experiment_tracking.registry.gate import Terms, judge_challenger
from experiment_tracking.registry.promotion import list_champions, list_records, promote, roll_back, settle_moves
from experiment_tracking.registry.versions import CHAMPION, Version, find_version, judge_version, load_version
from experiment_tracking.runs.tracking import CARD, METADATA, track_model
from tests.conftest import Store, isolated_environment, run_api, run_at_once, run_here
from tests.messages import assert_failed, assert_failed_in_one_line, find_lines, list_missing, naming
from tests.processes import PATH_HERE, read_line, run_python, serve, start_python
from tests.waiting import free_port
from tests.web import WEB
from wine_data.schema import FEATURES, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle.bundle import load_current
from wine_quality_training.evaluate import AS_PUBLISHED, Evaluation, evaluate_leak_free
from wine_quality_training.models import impute_before, make_model

POOR, GOOD = "DecisionTreeClassifier", "ExtraTreesClassifier"


@pytest.fixture(scope="module")
def fitted(twin_split: Split) -> dict[str, Evaluation]:
    """A poor, a good and a hopeless classifier, and a regressor, all leak-free."""
    unfitted = {name: make_model(name, seed=42) for name in (POOR, GOOD, "KNeighborsRegressor")}
    unfitted[POOR].set_params(model__max_depth=1)  # a full one is sure of every grade, and refused for it
    unfitted[GOOD].set_params(model__n_estimators=20)  # a fifth, which is compiled in a fifth of the time
    unfitted["Dummy"] = impute_before(DummyClassifier(strategy="most_frequent"))
    return {name: evaluate_leak_free(name, pipeline, twin_split) for name, pipeline in unfitted.items()}


class Registry:
    """A store, and what tests do to it, in a line each."""

    def __init__(self, store: Store, data: WineData, split: Split, fitted: dict[str, Evaluation]) -> None:
        self.store, self.data, self.split, self.fitted = store, data, split, fitted

    def register(self, name: str) -> Version:
        tracked = track_model(self.store.experiment_id, None, self.data, self.split, [self.fitted[name]])
        return versions.register_model(tracked.run_id)

    def promote(self, version: Version, reason: str = "") -> Path:
        return promote(version, judge_version(version, self.split.holdout), self.store.models, reason)

    def find_champion(self) -> str:
        """The version that is champion, which is also the one that serves."""
        champion = find_version(CHAMPION).number
        assert load_current(self.store.models).metadata.version == champion
        return champion

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = isolated_environment(self.store.folder) | {"WINE_DATA": "twin"}
        return run_here("experiment_tracking.registry", environment, *arguments)


@pytest.fixture
def registry(store: Store, twin: WineData, twin_split: Split, fitted: dict[str, Evaluation]) -> Registry:
    return Registry(store, twin, twin_split, fitted)


def test_a_run_is_registered_once_with_tags_card_and_alias(registry: Registry) -> None:
    version = registry.register(GOOD)
    assert (version.number, version.model, version.aliases) == ("1", GOOD, ("challenger",))
    assert version.fingerprint == registry.data.fingerprint
    assert version.kappa_holdout == pytest.approx(registry.fitted[GOOD].score_on("holdout").metrics["kappa"], abs=5e-5)
    for part in (GOOD, "**Data.**", "| leak-free | holdout |", "| grade 5 |", "## Limits", "**Leak.**"):
        assert part in version.card
    versions.register_model(version.run_id)
    assert [version.number for version in versions.list_versions()] == ["1"]


def test_a_run_without_a_leak_free_model_is_not_registered(registry: Registry) -> None:
    run = mlflow.MlflowClient().create_run(registry.store.experiment_id)
    with pytest.raises(BadInputError, match=naming(run.info.run_id, "facts.json")):
        versions.register_model(run.info.run_id)
    with pytest.raises(NotThereError, match=naming("run 0123")):
        versions.register_model("0123")


def test_a_model_without_a_signature_is_not_registered(registry: Registry) -> None:
    tracked = registry.register(GOOD)
    with mlflow.start_run(experiment_id=registry.store.experiment_id) as run:
        tree = registry.fitted[POOR].pipeline
        mlflow.sklearn.log_model(tree, name="model", serialization_format="pickle", pip_requirements=["pandas"])
        for name in (METADATA, CARD):
            mlflow.log_text(mlflow.artifacts.load_text(f"runs:/{tracked.run_id}/{name}"), name)
    with pytest.raises(BadInputError, match=naming(run.info.run_id, "signature")):
        versions.register_model(run.info.run_id)


def test_the_first_champion_must_beat_the_majority_class_baseline(registry: Registry) -> None:
    hopeless = registry.register("Dummy")
    with pytest.raises(RefusedError, match=naming("version 1", "holdout", "kappa")):
        registry.promote(hopeless)
    assert versions.find_champion() is None
    registry.promote(registry.register(POOR))
    assert registry.find_champion() == "2"
    assert [record.event for record in list_records()] == ["refusal", "promotion"]


def test_only_a_better_version_gets_in(registry: Registry) -> None:
    registry.promote(registry.register(POOR))
    champion = registry.register(GOOD)
    registry.promote(champion)
    same_again = registry.register(GOOD)
    with pytest.raises(RefusedError, match=naming("version 3", "version 2", "digest")):
        registry.promote(same_again)
    verdict = judge_version(registry.register(POOR), registry.split.holdout)
    assert not verdict.admitted
    assert verdict.comparisons[0].difference < -0.03
    with pytest.raises(RefusedError, match=naming("version 2", "champion")):
        registry.promote(champion, reason="again")
    assert registry.find_champion() == "2"


@pytest.mark.full
def test_a_person_with_a_reason_overrules_the_gate(registry: Registry) -> None:
    registry.promote(registry.register(GOOD))
    registry.promote(registry.register(POOR), reason="easier to explain")
    assert registry.find_champion() == "2"
    record = list_records()[-1]
    assert (record.version, record.reason) == ("2", "easier to explain")
    assert list_missing(record.verdict, "version 2", "version 1", "holdout", "-0.") == []


def test_the_gate_refuses_a_regressor_and_a_model_that_saw_the_holdout(registry: Registry) -> None:
    regressor = registry.register("KNeighborsRegressor")
    with pytest.raises(BadInputError, match=naming("version 1", "regressor")):
        judge_version(regressor, registry.split.holdout)
    bundle = load_version(registry.register(GOOD))
    published = replace(bundle, metadata=replace(bundle.metadata, protocol=AS_PUBLISHED))
    with pytest.raises(BadInputError, match=naming(AS_PUBLISHED, "holdout")):
        judge_challenger(published, None, registry.split.holdout)


@pytest.fixture(scope="module")
def drifted(twin_split: Split) -> pd.DataFrame:
    """Wines after a change of taste: those rich in alcohol are graded two lower."""
    wines = pd.concat([twin_split.train, twin_split.holdout], ignore_index=True)
    return wines.assign(quality=wines["quality"] - 2 * (wines["alcohol"] > wines["alcohol"].median()))


@pytest.mark.full
def test_after_drift_a_gain_on_recent_wines_makes_up_for_a_loss(registry: Registry, drifted: pd.DataFrame) -> None:
    registry.promote(registry.register(GOOD))
    champion = load_version(find_version(CHAMPION))
    half = drifted.iloc[::2]
    both = pd.concat([registry.split.train, half[~half.index.isin(registry.split.holdout.index)]])
    retrained = make_model(GOOD, seed=1).fit(feature_frame(both), both["quality"])
    challenger = replace(champion, pipeline=retrained, metadata=replace(champion.metadata, version="2"))
    verdict = judge_challenger(challenger, champion, registry.split.holdout, drifted, Terms(margin=0.9))
    recent, *_, holdout = verdict.comparisons
    assert verdict.admitted
    assert recent.bound > 0
    assert recent.wines < len(drifted) / 3  # the holdout side only
    assert holdout.difference < 0
    assert not judge_challenger(challenger, champion, registry.split.holdout, drifted, Terms(margin=0.0)).admitted
    assert not judge_challenger(challenger, champion, registry.split.holdout).admitted


def test_too_few_recent_wines_are_refused(registry: Registry, drifted: pd.DataFrame) -> None:
    bundle = load_version(registry.register(GOOD))
    with pytest.raises(BadInputError, match=naming("40", "50", "holdout")):
        judge_challenger(bundle, None, registry.split.holdout, drifted.head(40))


@pytest.mark.full
def test_under_the_load_test_three_promotions_and_rollbacks_fail_no_request(registry: Registry) -> None:
    registry.promote(registry.register(POOR))
    better = registry.register(GOOD)
    environment = isolated_environment(registry.store.folder) | {"WINE_DATA": "twin"}
    with run_api(environment, workers=2) as (address, _):
        knobs = {"WINE_PORT": address.rpartition(":")[2], "WINE_LOAD_P95": "5000", "WINE_LOAD_USERS": "10"}
        load = start_python("-m", "deployment.load", "--seconds", "20", env=environment | knobs)
        for _ in range(3):
            registry.promote(better)
            time.sleep(1.5)
            roll_back(registry.store.models, "a test")
            time.sleep(1.5)
        found, _ = load.communicate(timeout=120)
    assert load.returncode == 0, found
    (report,) = (registry.store.folder / "load_reports").glob("*/load.json")
    lines = json.loads(report.read_text())
    assert sum(line["num_failures"] for line in lines) == 0
    assert sum(line["num_requests"] for line in lines) > 300
    assert [record.event for record in list_records()] == ["promotion", *["promotion", "rollback"] * 3]


@pytest.mark.parametrize("bundle", ["whole", pytest.param("damaged", marks=pytest.mark.full)])
def test_rollback_brings_back_the_former_champion_bit_for_bit(registry: Registry, bundle: str) -> None:
    first = registry.promote(registry.register(POOR))
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    registry.promote(registry.register(GOOD))
    if bundle == "damaged":
        (first / "model.pkl").write_bytes(b"damaged")
    version, folder = roll_back(registry.store.models, "it was slower")
    assert version.number == registry.find_champion() == "1"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert list_champions() == ["1"]
    with pytest.raises(RefusedError, match="champion"):
        roll_back(registry.store.models)
    moves = [("promotion", "", "1"), ("promotion", "1", "2"), ("rollback", "2", "1")]
    records = list_records()
    assert [(record.event, record.champion, record.version) for record in records] == moves
    assert records[-1].reason == "it was slower"
    assert sorted(record.when for record in records) == [record.when for record in records]
    assert all("<" in record.who for record in records)


@pytest.mark.full
def test_a_changed_pickle_is_not_read(registry: Registry) -> None:
    version = registry.register(POOR)
    (path,) = (registry.store.folder / "mlartifacts").rglob("model.pkl")
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    for read in (load_version, lambda version: versions.export_version(version, registry.store.models)):
        with pytest.raises(BadInputError, match=naming("version 1", "pickle")):
            read(version)


def test_a_version_of_another_schema_or_library_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    version = registry.register(GOOD)
    monkeypatch.setattr("experiment_tracking.registry.versions.FEATURES", (*FEATURES, "glycerol"))
    with pytest.raises(BadInputError, match=naming("version 1", "glycerol", "docs/your_own.md")):
        judge_version(version, registry.split.holdout)
    monkeypatch.undo()
    monkeypatch.setattr("wine_quality_training.bundle.bundle._find_version", lambda library: "0.1")
    with pytest.raises(BadInputError, match=naming("version 1", "python", "0.1")):
        versions.export_version(version, registry.store.models)


PROMOTE = """
import sys
from pathlib import Path
from commands import run_command
from experiment_tracking.registry.gate import Comparison, Verdict
from experiment_tracking.registry.promotion import promote
from experiment_tracking.runs.store import open_store
from experiment_tracking.registry.versions import find_version
from settings import load_settings

settings, number = load_settings(), sys.argv[1]
open_store(settings.mlflow_uri, settings.mlflow_artifacts)
better = Comparison("holdout", 100, "kappa", 0.5, 0.4, 0.05, 0.0)
version = find_version(number)
print("ready", flush=True)
sys.stdin.readline()
run_command(lambda: promote(version, Verdict(number, "1", (better,)), settings.serving_models) and 0)
"""


@pytest.mark.full
def test_of_two_promotions_at_once_one_wins_and_the_other_is_refused(registry: Registry) -> None:
    for name in (POOR, GOOD, GOOD):
        registry.register(name)
    registry.promote(find_version("1"))
    done = dict(zip("23", run_at_once(PROMOTE, "23", isolated_environment(registry.store.folder)), strict=True))
    assert sorted(process.returncode for process in done.values()) == [0, 1], done
    winner, loser = sorted(done, key=lambda number: done[number].returncode)
    assert registry.find_champion() == winner
    assert_failed(done[loser], 1, f"version {winner}", f"version {loser}", "version 1")
    assert list_champions() == ["1", winner]


# Stops itself at one step of a promotion, so that the test can kill it there.
STOP_AT = """
import os, signal
from experiment_tracking.registry import promotion

def stop(*arguments):
    print("stopped", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

setattr(promotion, {step!r}, stop)
"""


@pytest.mark.full
@pytest.mark.parametrize(("step", "champion"), [("set_alias", "1"), ("select_bundle", "2")])
def test_the_next_move_settles_a_killed_promotion(registry: Registry, step: str, champion: str) -> None:
    registry.promote(registry.register(POOR))
    registry.register(GOOD)
    script = PROMOTE.replace("run_command(lambda", STOP_AT.format(step=step) + "\nrun_command(lambda")
    environment = isolated_environment(registry.store.folder)
    process = start_python("-c", script, "2", env=environment, stdin=subprocess.DEVNULL)
    assert [read_line(process) for _ in range(2)] == ["ready", "stopped"]
    process.kill()
    process.wait()
    assert load_current(registry.store.models).metadata.version == "1"  # what serves is whole all the time
    settle_moves(registry.store.models)
    assert registry.find_champion() == champion
    assert list_champions() == ["1", "2"][: int(champion)]


def test_the_command_registers_promotes_refuses_rolls_back_and_lists(registry: Registry) -> None:
    tracked = track_model(registry.store.experiment_id, None, registry.data, registry.split, [registry.fitted[POOR]])
    registered = registry.run("register", tracked.run_id)
    assert find_lines(registered.stdout, "version 1", "challenger"), registered.stderr
    promoted = registry.run("promote")
    assert find_lines(promoted.stdout, "version 1", "champion"), promoted.stderr
    assert_failed_in_one_line(registry.run("promote", "1", "--reason", "once more"), 1, "version 1", "champion")
    registry.promote(registry.register(GOOD))
    listed = registry.run("list").stdout
    kappa = {name: f"{round(registry.fitted[name].score_on('cv').metrics['kappa'], 4):.3f}" for name in (POOR, GOOD)}
    assert [line.split()[:-2] for line in listed.splitlines() if "Classifier" in line] == [
        ["2", GOOD, "challenger", kappa[GOOD]],
        ["1", POOR, kappa[POOR]],
    ]
    assert find_lines(registry.run("rollback", "--reason", "a test").stdout, "version 1", POOR, "champion")
    refused = registry.run("promote", "2", "--margin", "0.1", "--recent", str(registry.store.folder / "none.csv"))
    assert refused.returncode == 3
    shown = registry.run("show", "1").stdout
    assert find_lines(shown, "version 1", "champion")
    assert find_lines(shown, registry.data.fingerprint)
    history = registry.run("history").stdout
    for facts in (("promotion", "none -> 1"), ("promotion", "1 -> 2"), ("rollback", "2 -> 1"), ("a test",)):
        assert find_lines(history, *facts)
    assert_failed_in_one_line(registry.run("show", "9"), 3, "wine-quality", "version 9", "2", "1")


@pytest.mark.full
def test_mlflows_own_commands_understand_the_champion(registry: Registry, tmp_path: Path) -> None:
    registry.promote(registry.register(POOR))
    wines = feature_frame(registry.split.holdout).dropna().head(5)
    (tmp_path / "wines.json").write_text(json.dumps({"dataframe_split": wines.to_dict("split")}))
    environment = isolated_environment(registry.store.folder) | {"PATH": PATH_HERE}  # MLflow calls uvicorn
    model = ["--model-uri", f"models:/{versions.MODEL}@{CHAMPION}", "--env-manager", "local"]
    expected = registry.fitted[POOR].pipeline.predict(wines).tolist()
    files = [f"--input-path={tmp_path / 'wines.json'}", f"--output-path={tmp_path / 'answers.json'}"]
    run_python("-m", "mlflow", "models", "predict", *model, *files, cwd=tmp_path, env=environment, check=True)
    assert json.loads((tmp_path / "answers.json").read_text())["predictions"] == expected
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", *model, "--port", str(port)]
    with serve(f"{address}/ping", *command, cwd=tmp_path, env=environment):
        body = json.loads((tmp_path / "wines.json").read_text())
        answer = WEB.post(f"{address}/invocations", json=body, timeout=60).raise_for_status().json()
    assert answer["predictions"] == expected
