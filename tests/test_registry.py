"""Versions, gate, promotion and rollback in a real store, by function and by command."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from commands import BadInputError, NotThereError, RefusedError
from experiment_tracking.registry.gate import judge_challenger
from experiment_tracking.registry.promotion import (
    list_champions,
    list_records,
    promote,
    roll_back,
    settle_moves,
)
from experiment_tracking.registry.versions import (
    CHALLENGER,
    CHAMPION,
    MODEL,
    Version,
    export_version,
    find_champion,
    find_version,
    judge_version,
    list_versions,
    load_version,
    register_model,
)
from experiment_tracking.runs.tracking import CARD, METADATA, track_model
from settings import ROOT
from tests.conftest import Store, isolated_environment, run_api, run_at_once, run_here
from tests.told import assert_told, assert_told_in_one_line, find_lines, list_untold, naming
from tests.waiting import free_port, wait_for
from wine_data.schema import FEATURES, feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle.files import load_current
from wine_quality_training.evaluate import AS_PUBLISHED, Evaluation, evaluate_leak_free
from wine_quality_training.models import impute_before, make_model

POOR, GOOD = "DecisionTreeClassifier", "ExtraTreesClassifier"


@pytest.fixture(scope="module")
def fitted(twin_split: Split) -> dict[str, Evaluation]:
    """A poor, a good and a hopeless classifier, and a regressor, all leak-free."""
    unfitted = {name: make_model(name, seed=42) for name in (POOR, GOOD, "KNeighborsRegressor")}
    unfitted[GOOD].set_params(model__n_estimators=20)  # a fifth, which is compiled in a fifth of the time
    unfitted["Dummy"] = impute_before(DummyClassifier(strategy="most_frequent"))
    return {name: evaluate_leak_free(name, pipeline, twin_split) for name, pipeline in unfitted.items()}


class Registry:
    """A store, and what tests do to it in a line each."""

    def __init__(self, store: Store, data: WineData, split: Split, fitted: dict[str, Evaluation]) -> None:
        self.store, self.data, self.split, self.fitted = store, data, split, fitted

    def register(self, name: str) -> Version:
        tracked = track_model(self.store.experiment_id, None, self.data, self.split, [self.fitted[name]])
        return register_model(tracked.run_id)

    def promote(self, version: Version, reason: str = "") -> Path:
        return promote(version, judge_version(version, self.split.holdout), self.store.models, reason)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = isolated_environment(self.store.folder) | {"WINE_DATA": "twin"}
        return run_here("experiment_tracking.registry", environment, *arguments)


@pytest.fixture
def registry(store: Store, twin: WineData, twin_split: Split, fitted: dict[str, Evaluation]) -> Registry:
    return Registry(store, twin, twin_split, fitted)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_version_is_registered_with_tags_card_and_alias(registry: Registry) -> None:
    version = registry.register(GOOD)
    assert (version.number, version.model, version.aliases) == ("1", GOOD, (CHALLENGER,))
    assert version.fingerprint == registry.data.fingerprint
    score = registry.fitted[GOOD].score_on("holdout")
    assert version.kappa_holdout == pytest.approx(score.metrics["kappa"], abs=5e-5)
    assert version.card.startswith(version.model + ": gives one wine")
    for part in ("**Data.**", "| leak-free | holdout |", "| grade 5 |", "## Limits", "**Leak.**"):
        assert part in version.card


def test_a_run_is_registered_once(registry: Registry) -> None:
    first = registry.register(POOR)
    assert register_model(first.run_id).number == "1"
    assert [version.number for version in list_versions()] == ["1"]


def test_a_run_without_a_leak_free_model_is_not_registered(registry: Registry) -> None:
    run = mlflow.MlflowClient().create_run(registry.store.experiment_id)
    with pytest.raises(BadInputError, match=naming(run.info.run_id, "facts.json")):
        register_model(run.info.run_id)
    with pytest.raises(NotThereError, match=naming("run 0123")):
        register_model("0123")


def test_a_model_without_a_signature_is_not_registered(registry: Registry) -> None:
    tracked = registry.register(GOOD)
    with mlflow.start_run(experiment_id=registry.store.experiment_id) as run:
        mlflow.sklearn.log_model(
            registry.fitted[POOR].pipeline, name="model", serialization_format="pickle", pip_requirements=["pandas"]
        )
        for name in (METADATA, CARD):
            mlflow.log_text(mlflow.artifacts.load_text(f"runs:/{tracked.run_id}/{name}"), name)
    with pytest.raises(BadInputError, match=naming(run.info.run_id, "signature")):
        register_model(run.info.run_id)


def test_a_version_that_is_not_there_is_told_with_those_that_are(registry: Registry) -> None:
    registry.register(POOR)
    with pytest.raises(NotThereError, match=naming("version 7", "1")):
        find_version("7")


def test_the_first_champion_must_beat_the_majority_class_baseline(registry: Registry) -> None:
    hopeless = registry.register("Dummy")
    with pytest.raises(RefusedError, match=naming("version 1", "holdout", "kappa")):
        registry.promote(hopeless)
    assert find_champion() is None
    registry.promote(registry.register(POOR))
    champion = find_champion()
    assert champion is not None
    assert champion.number == "2"
    assert [record.event for record in list_records()] == ["refusal", "promotion"]


def test_only_a_better_version_gets_in(registry: Registry) -> None:
    registry.promote(registry.register(POOR))
    registry.promote(registry.register(GOOD))
    assert find_version(CHAMPION).number == "2"
    same_again = registry.register(GOOD)
    with pytest.raises(RefusedError, match=naming("version 3", "version 2", "holdout", "+0.000")):
        registry.promote(same_again)
    worse = registry.register(POOR)
    verdict = judge_version(worse, registry.split.holdout)
    assert not verdict.admitted
    assert verdict.comparisons[0].difference < -0.03
    assert find_version(CHAMPION).number == "2"


@pytest.mark.full
def test_a_person_with_a_reason_overrules_the_gate(registry: Registry) -> None:
    registry.promote(registry.register(GOOD))
    registry.promote(registry.register(POOR), reason="the new one is easier to explain")
    assert find_version(CHAMPION).number == "2"
    record = list_records()[-1]
    assert (record.champion, record.version, record.reason) == ("1", "2", "the new one is easier to explain")
    assert list_untold(record.verdict, "version 2", "version 1", "holdout", "-0.") == []


@pytest.mark.full
def test_the_champion_is_not_promoted_again(registry: Registry) -> None:
    version = registry.register(GOOD)
    registry.promote(version)
    with pytest.raises(RefusedError, match=naming("version 1", "champion")):
        registry.promote(version, reason="again")


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
def test_after_drift_the_gate_lets_in_what_is_better_on_recent_wines_and_not_much_worse_on_old_ones(
    registry: Registry, drifted: pd.DataFrame
) -> None:
    registry.promote(registry.register(GOOD))
    champion = load_version(find_version(CHAMPION))
    half = drifted.iloc[::2]
    both = pd.concat([registry.split.train, half[~half.index.isin(registry.split.holdout.index)]])
    retrained = make_model(GOOD, seed=1).fit(feature_frame(both), both["quality"])
    challenger = replace(champion, pipeline=retrained, metadata=replace(champion.metadata, version="2"))
    verdict = judge_challenger(challenger, champion, registry.split.holdout, drifted, margin=0.9)
    recent, holdout = verdict.comparisons
    assert verdict.admitted
    assert recent.lower > 0
    assert recent.wines < len(drifted) / 3  # the holdout side only
    assert holdout.difference < 0
    assert not judge_challenger(challenger, champion, registry.split.holdout, drifted, margin=0.0).admitted
    assert not judge_challenger(challenger, champion, registry.split.holdout).admitted


def test_too_few_recent_wines_are_refused(registry: Registry, drifted: pd.DataFrame) -> None:
    bundle = load_version(registry.register(GOOD))
    with pytest.raises(BadInputError, match=naming("40", "50", "holdout")):
        judge_challenger(bundle, None, registry.split.holdout, drifted.head(40))


@pytest.mark.full
def test_promotion_exports_the_bundle_that_serves(registry: Registry) -> None:
    version = registry.register(GOOD)
    folder = registry.promote(version)
    bundle = load_current(registry.store.models)
    assert (folder.name, bundle.metadata.version, bundle.metadata.run_id) == ("1", "1", version.run_id)
    wines = feature_frame(registry.split.holdout)
    np.testing.assert_array_equal(
        bundle.pipeline.predict_proba(wines), registry.fitted[GOOD].pipeline.predict_proba(wines)
    )


@pytest.mark.full
def test_under_the_load_test_three_promotions_and_rollbacks_fail_no_request(registry: Registry) -> None:
    registry.promote(registry.register(POOR))
    better = registry.register(GOOD)
    models, environment = registry.store.models, isolated_environment(registry.store.folder) | {"WINE_DATA": "twin"}
    with run_api(environment, workers=2) as (address, _):
        knobs = {"WINE_PORT": address.rpartition(":")[2], "WINE_LOAD_P95": "5000", "WINE_LOAD_USERS": "10"}
        command = [sys.executable, "-m", "deployment.load", "--seconds", "20"]
        load = subprocess.Popen(command, cwd=ROOT, env=environment | knobs, stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            registry.promote(better)
            time.sleep(1.5)
            roll_back(models, "a test")
            time.sleep(1.5)
        told, _ = load.communicate(timeout=120)
    assert load.returncode == 0, told
    (report,) = (registry.store.folder / "load_reports").glob("*/load.json")
    lines = json.loads(report.read_text())
    assert sum(line["num_failures"] for line in lines) == 0
    assert sum(line["num_requests"] for line in lines) > 300
    assert [record.event for record in list_records()] == ["promotion", *["promotion", "rollback"] * 3]


def test_rollback_brings_back_the_former_champion_bit_for_bit(registry: Registry) -> None:
    first = registry.promote(registry.register(POOR))
    before = read_files(first)
    registry.promote(registry.register(GOOD))
    version, folder = roll_back(registry.store.models, "it was slower")
    assert (version.number, find_version(CHAMPION).number) == ("1", "1")
    assert read_files(folder) == before
    assert load_current(registry.store.models).metadata.version == "1"
    assert list_champions() == ["1"]
    with pytest.raises(RefusedError, match="champion"):
        roll_back(registry.store.models)


@pytest.mark.full
def test_rollback_writes_a_lost_or_damaged_bundle_again_bit_for_bit(registry: Registry) -> None:
    first = registry.promote(registry.register(POOR))
    before = read_files(first)
    registry.promote(registry.register(GOOD))
    (first / "model.pkl").write_bytes(b"damaged")
    _, folder = roll_back(registry.store.models)
    assert read_files(folder) == before
    assert load_current(registry.store.models).metadata.version == "1"


@pytest.mark.full
def test_history_tells_who_when_from_to_and_why(registry: Registry) -> None:
    registry.promote(registry.register(POOR))
    registry.promote(registry.register(GOOD))
    roll_back(registry.store.models, "a complaint")
    records = list_records()
    assert [(record.event, record.champion, record.version) for record in records] == [
        ("promotion", "", "1"), ("promotion", "1", "2"), ("rollback", "2", "1")
    ]  # fmt: skip
    assert records[-1].reason == "a complaint"
    assert records[0].when <= records[1].when <= records[2].when
    assert all("<" in record.who for record in records)


@pytest.mark.full
def test_a_changed_pickle_is_not_read(registry: Registry) -> None:
    version = registry.register(POOR)
    (path,) = (registry.store.folder / "mlartifacts").rglob("model.pkl")
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    for read in (load_version, lambda version: export_version(version, registry.store.models)):
        with pytest.raises(BadInputError, match=naming("version 1", "pickle")):
            read(version)


def test_a_version_of_another_schema_is_not_judged(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    version = registry.register(GOOD)
    monkeypatch.setattr("experiment_tracking.registry.versions.FEATURES", (*FEATURES, "glycerol"))
    with pytest.raises(BadInputError, match=naming("version 1", "glycerol", "docs/your_own.md")):
        judge_version(version, registry.split.holdout)


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
better = Comparison("holdout", 100, 0.5, 0.4, 0.1, 0.05, 0.0)
version = find_version(number)
print("ready", flush=True)
sys.stdin.readline()
run_command(lambda: promote(version, Verdict(number, "1", (better,)), settings.serving_models) and 0)
"""


@pytest.mark.full
def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(registry: Registry) -> None:
    for name in (POOR, GOOD, GOOD):
        registry.register(name)
    registry.promote(find_version("1"))
    done = dict(zip("23", run_at_once(PROMOTE, "23", isolated_environment(registry.store.folder)), strict=True))
    codes = {number: process.returncode for number, process in done.items()}
    assert sorted(codes.values()) == [0, 1], done
    (winner,) = [number for number, code in codes.items() if code == 0]
    (loser,) = [number for number, code in codes.items() if code == 1]
    assert find_version(CHAMPION).number == load_current(registry.store.models).metadata.version == winner
    assert_told(done[loser], 1, f"version {winner}", f"version {loser}", "version 1")
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
def test_a_promotion_that_was_killed_on_the_way_is_settled_by_the_next(
    registry: Registry, step: str, champion: str
) -> None:
    registry.promote(registry.register(POOR))
    registry.register(GOOD)
    script = PROMOTE.replace("run_command(lambda", STOP_AT.format(step=step) + "\nrun_command(lambda")
    process = subprocess.Popen(
        [sys.executable, "-c", script, "2"],
        cwd=ROOT, env=isolated_environment(registry.store.folder),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "stopped\n"]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert load_current(registry.store.models).metadata.version == "1"  # what serves is whole all the time
    settle_moves(registry.store.models)
    assert find_version(CHAMPION).number == load_current(registry.store.models).metadata.version == champion
    assert list_champions() == ["1", "2"][: int(champion)]


def test_the_command_registers_promotes_refuses_rolls_back_and_tells(registry: Registry) -> None:
    run_id = track_model(
        registry.store.experiment_id, None, registry.data, registry.split, [registry.fitted[POOR]]
    ).run_id  # fmt: skip
    registered = registry.run("register", run_id)
    assert registered.returncode == 0, registered.stderr
    assert "is wine-quality version 1, the challenger" in registered.stdout
    promoted = registry.run("promote")
    assert promoted.returncode == 0, promoted.stderr
    assert "version 1 is the champion, and a running API takes it over: " in promoted.stdout
    again = registry.run("promote", "1", "--reason", "once more")
    assert_told_in_one_line(again, 1, "version 1", "champion")
    registry.promote(registry.register(GOOD))
    listed = registry.run("list").stdout
    kappa = {name: f"{round(registry.fitted[name].score_on('cv').metrics['kappa'], 4):.3f}" for name in (POOR, GOOD)}
    assert [line.split()[:-2] for line in listed.splitlines() if "Classifier" in line] == [
        ["2", GOOD, "challenger", kappa[GOOD]],
        ["1", POOR, kappa[POOR]],
    ]
    assert (
        "version 1 (DecisionTreeClassifier) is the champion again"
        in registry.run("rollback", "--reason", "a test").stdout
    )
    refused = registry.run("promote", "2", "--margin", "0.1", "--recent", str(registry.store.folder / "none.csv"))
    assert refused.returncode == 2
    shown = registry.run("show", "1")
    assert find_lines(shown.stdout, "version 1", "champion")
    assert find_lines(shown.stdout, registry.data.fingerprint)
    history = registry.run("history").stdout
    for words in (
        "promotion  version none -> 1",
        "promotion  version 1 -> 2",
        "rollback  version 2 -> 1",
        "reason: a test",
    ):
        assert words in history
    assert_told_in_one_line(registry.run("show", "9"), 3, "wine-quality", "version 9", "2", "1")


@pytest.mark.full
def test_mlflows_own_commands_understand_the_champion(registry: Registry, tmp_path: Path) -> None:
    registry.promote(registry.register(POOR))
    wines = feature_frame(registry.split.holdout).dropna().head(5)
    (tmp_path / "wines.json").write_text(json.dumps({"dataframe_split": wines.to_dict("split")}))
    environment = isolated_environment(registry.store.folder)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # MLflow calls uvicorn
    model = ["--model-uri", f"models:/{MODEL}@{CHAMPION}", "--env-manager", "local"]
    expected = registry.fitted[POOR].pipeline.predict(wines).tolist()
    subprocess.run(
        [sys.executable, "-m", "mlflow", "models", "predict", *model,
         "--input-path", str(tmp_path / "wines.json"), "--output-path", str(tmp_path / "answers.json")],
        cwd=tmp_path, env=environment, check=True, timeout=240, capture_output=True,
    )  # fmt: skip
    assert json.loads((tmp_path / "answers.json").read_text())["predictions"] == expected
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", *model, "--host", "127.0.0.1", "--port", str(port)],
        cwd=tmp_path, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, seconds=240)
        sent = subprocess.run(
            ["curl", "-s", f"http://127.0.0.1:{port}/invocations", "-H", "Content-Type: application/json",
             "-d", f"@{tmp_path / 'wines.json'}"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert json.loads(sent.stdout)["predictions"] == expected
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=30)
    assert tuple(wines.columns) == FEATURES
