"""A team's servers, set up, backed up and restored by the commands of docs/team.md."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException

from commands import BadInputError, NotThereError
from deployment.prediction_log.log import PredictionLog, RepeatedFeedbackError
from deployment.prediction_log.reader import count_answers, read_answers
from experiment_tracking.registry.promotion import list_champions, promote, serve_champion
from experiment_tracking.registry.versions import (
    CHAMPION,
    find_version,
    judge_version,
    list_versions,
    load_version,
    register_model,
)
from experiment_tracking.runs.store import MONITORING, find_experiment, hold_between_machines, open_store
from experiment_tracking.runs.tracking import track_model
from settings import ROOT
from tests.conftest import isolated_environment, run_at_once, run_here
from tests.messages import assert_failed, find_lines, naming
from tests.postgres import Postgres, needs_postgres, run_postgres
from tests.processes import PATH_HERE, read_line, run_python, run_shell, serve, start_python
from tests.test_prediction_log import CHILD, EIGHT_LOG_200, LOG_ONE, make_answer, wait_for_rows
from tests.test_registry import PROMOTE
from tests.test_tracking import assert_eight_processes_log
from tests.waiting import free_port, wait_until
from wine_data.schema import feature_frame
from wine_data.sources.load import WineData
from wine_data.split import Split
from wine_quality_training.bundle.bundle import load_current
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import make_model

pytestmark = needs_postgres
COMMANDS = dict(re.findall(r"```sh\n# ([a-z ]+)\n(.*?)```", (ROOT / "docs" / "team.md").read_text(), re.DOTALL))
SERVICES = ("-m", "orchestration.services")
# Two machines: no file lock is common to both.
OWN_FOLDER = "import os, sys\nos.environ['WINE_SERVING_MODELS'] += sys.argv[1]\n"
COLLEAGUE = {"username": "anna", "password": "another-word-for-tests"}


class Team:
    """A team's folder, its PostgreSQL, and the environment of its administrator."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self.folder, self.postgres = folder, postgres
        self.environment = (
            isolated_environment(folder)
            | postgres.environment
            | {
                "PATH": PATH_HERE,
                "LOG_PASSWORD": "a-word-for-the-log",
                "ARTIFACTS": str(folder / "artifacts"),
                "MLFLOW_HOST": "127.0.0.1",
                "MLFLOW_PORT": str(free_port()),
                "MLFLOW_AUTH_ADMIN_PASSWORD": "a-longer-word-for-tests",
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "any-long-word",
                "WINE_PREFECT_PORT": str(free_port()),
                "PREFECT_API_AUTH_STRING": "wine:a-word-for-prefect",
            }
        )
        self.mlflow = f"http://127.0.0.1:{self.environment['MLFLOW_PORT']}"
        self.models = Path(self.environment["WINE_SERVING_MODELS"])
        self.log = f"postgresql+psycopg://wine_log:a-word-for-the-log@127.0.0.1:{postgres.port}/wine_log"

    def run(self, script: str, folder: Path | None = None) -> str:
        """Run commands of the page; return what they print."""
        return run_shell(script, folder or self.folder, self.environment)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A PostgreSQL server with the team's empty databases."""
    with run_postgres() as postgres:
        team = Team(tmp_path_factory.mktemp("team"), postgres)
        team.run(COMMANDS["databases"])
        yield team


@pytest.fixture(scope="module")
def member(team: Team) -> Iterator[dict[str, str]]:
    """The environment of somebody who exported what the page says; this process signs in to MLflow as they do."""
    printed = team.run('NAME=admin PASSWORD="$MLFLOW_AUTH_ADMIN_PASSWORD"\n' + COMMANDS["member"] + "env -0")
    environment = dict(line.split("=", 1) for line in printed.split("\0") if line)
    assert environment["WINE_LOG_URL"] == team.log
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            patch.setenv(name, environment[name])
        yield environment


@pytest.fixture(scope="module")
def served_mlflow(team: Team) -> Iterator[str]:
    """The address of MLflow's server, started as the page says."""
    command = ("bash", "-euc", COMMANDS["mlflow"])
    with (team.folder / "mlflow.log").open("ab") as log:
        options: dict[str, Any] = {"cwd": team.folder, "env": team.environment, "stdout": log, "stderr": log}
        with serve(f"{team.mlflow}/health", *command, **options):
            yield team.mlflow


@pytest.fixture
def log(team: Team) -> Iterator[PredictionLog]:
    log = PredictionLog(team.log, days=90, rows=10_000)
    log.open()
    yield log
    log.close()


@pytest.mark.full
@pytest.mark.usefixtures("served_mlflow")
def test_mlflow_asks_for_a_password_and_the_command_says_so(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    with pytest.raises(BadInputError, match=naming("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")):
        open_store(team.mlflow, "unused")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "postgresql+psycopg://wine:secret@127.0.0.1:1/mlflow"])
def test_a_store_that_does_not_answer_is_named_without_its_password(address: str) -> None:
    with pytest.raises(NotThereError, match=naming("127.0.0.1:1", "MLFLOW_TRACKING_URI")) as found:
        open_store(address, "unused")
    assert "secret" not in str(found.value)


@pytest.mark.full
@pytest.mark.parametrize("through", ["its server", "its database"])
def test_eight_processes_log_at_once_and_lose_nothing(
    through: str, team: Team, served_mlflow: str, member: dict[str, str], tmp_path: Path
) -> None:
    uri = served_mlflow if through == "its server" else team.postgres.make_database("fresh")
    assert_eight_processes_log(uri, tmp_path, member, runs=5)


@pytest.fixture(scope="module")
def versions(served_mlflow: str, member: dict[str, str], twin: WineData, twin_split: Split) -> list[str]:
    """Three versions that the administrator registered; the first is champion."""
    experiment_id = open_store(served_mlflow, "unused")
    for name in ("DecisionTreeClassifier", "ExtraTreesClassifier", "ExtraTreesClassifier"):
        evaluation = evaluate_leak_free(name, make_model(name, seed=42), twin_split)
        register_model(track_model(experiment_id, None, twin, twin_split, [evaluation]).run_id)
    first = find_version("1")
    verdict = judge_version(first, twin_split.holdout)
    promote(first, verdict, Path(member["WINE_SERVING_MODELS"]), "a test")
    administrator = (member["MLFLOW_TRACKING_USERNAME"], member["MLFLOW_TRACKING_PASSWORD"])
    users = f"{served_mlflow}/api/2.0/mlflow/users/create"
    requests.post(users, json=COLLEAGUE, timeout=30, auth=administrator).raise_for_status()
    return [version.number for version in list_versions()]


@pytest.mark.full
def test_one_of_two_promotions_at_once_from_two_folders_of_models_wins(
    team: Team, versions: list[str], member: dict[str, str]
) -> None:
    assert versions == ["3", "2", "1"]
    colleague = {f"MLFLOW_TRACKING_{name.upper()}": value for name, value in COLLEAGUE.items()}
    done = dict(zip("23", run_at_once(OWN_FOLDER + PROMOTE, "23", member | colleague), strict=True))
    assert sorted(process.returncode for process in done.values()) == [0, 1], done
    winner = min(done, key=lambda number: done[number].returncode)
    served = load_current(Path(f"{team.models}{winner}"))
    assert find_version(CHAMPION).number == served.metadata.version == winner
    assert list_champions() == ["1", winner]
    serve_champion(team.models)  # a third machine, which has the first champion until now
    assert load_current(team.models).metadata.version == winner


@pytest.mark.full
def test_old_runs_go_where_the_server_keeps_its_artifacts_and_versions_stay(
    team: Team, served_mlflow: str, versions: list[str], member: dict[str, str], twin: WineData, twin_split: Split
) -> None:
    experiment_id = open_store(served_mlflow, "unused")
    evaluation = evaluate_leak_free("DecisionTreeClassifier", make_model("DecisionTreeClassifier", seed=42), twin_split)
    old = track_model(experiment_id, None, twin, twin_split, [evaluation]).run_id
    files = Path(team.environment["ARTIFACTS"]) / experiment_id / old
    assert any(files.rglob("*"))
    with team.postgres.connect("mlflow") as store:
        age = 100 * 86_400_000
        store.execute("UPDATE runs SET start_time = start_time - %s, end_time = end_time - %s", (age, age))
    elsewhere = team.run(COMMANDS["tidy"].replace('"$ARTIFACTS"', "/nowhere"), ROOT)
    assert find_lines(elsewhere, "Left alone", "WINE_MLFLOW_ARTIFACTS", "--artifacts-destination")
    client, monitored = mlflow.MlflowClient(), find_experiment(MONITORING).experiment_id
    looks = [client.create_run(monitored).info.run_id for _ in range(2)]
    for look in looks:
        client.log_text(look, "a report", "reports/inputs.html")
        client.set_terminated(look)
    through_server = run_here("experiment_tracking.tidy", member | {"WINE_KEEP_REPORTS": "1"})
    assert sorted(len(client.list_artifacts(look, "reports")) for look in looks) == [0, 1]
    assert find_lines(through_server.stdout, "Left alone", "MLflow server", "MLFLOW_TRACKING_URI")
    assert any(files.rglob("*"))
    team.run(COMMANDS["tidy"], ROOT)
    assert not files.exists()
    empty = {"MLFLOW_TRACKING_URI": team.postgres.make_database("untouched")}
    assert_failed(run_here("experiment_tracking.tidy", team.environment | empty), 3, "untouched", "make pipeline")
    mlflow.set_tracking_uri(served_mlflow)
    with pytest.raises(MlflowException, match=old):
        mlflow.get_run(old)
    for number in versions:
        load_version(find_version(number))


@pytest.mark.full
@pytest.mark.parametrize("through", ["the store", "the log"])
def test_a_move_waits_for_that_of_another_machine(
    through: str, team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = team.postgres.make_database(f"moves_{through[4:]}")
    monkeypatch.setenv("WINE_LOG_URL", address if through == "the log" else f"sqlite:///{tmp_path / 'log.db'}")
    mlflow.set_tracking_uri(address if through == "the store" else "http://127.0.0.1:1")
    done: list[str] = []

    def move() -> None:
        with hold_between_machines():
            done.append("the other")

    other = Thread(target=move)
    with hold_between_machines():
        other.start()
        other.join(1)
        done.append("this")
    other.join(30)
    assert done == ["this", "the other"]
    monkeypatch.setenv("WINE_LOG_URL", unreachable := "postgresql+psycopg://wine:secret@127.0.0.1:1/log")
    mlflow.set_tracking_uri(unreachable)
    with pytest.raises(NotThereError, match="WINE_LOG_URL") as refused, hold_between_machines():
        pass
    assert "secret" not in str(refused.value)


@pytest.mark.full
def test_eight_processes_open_a_new_log_at_once_and_every_answer_is_there(team: Team) -> None:
    url = team.postgres.make_database("new_log")
    done = run_python("-c", CHILD + EIGHT_LOG_200, url)
    assert (done.returncode, done.stderr) == (0, "")
    answers = read_answers(url)["request_id"]
    assert (len(answers), answers.str.split().str[0].nunique()) == (1_600, 8)


def test_feedback_finds_an_answer_that_another_machine_gave_and_is_taken_once(team: Team, log: PredictionLog) -> None:
    other = start_python("-c", CHILD + LOG_ONE, team.log, stdin=subprocess.PIPE)
    assert read_line(other) == "logged"
    asyncio.run(log.add_feedback("theirs", 7))
    with pytest.raises(RepeatedFeedbackError):
        asyncio.run(log.add_feedback("theirs", 6))
    other.communicate("\n", timeout=30)
    assert read_answers(team.log).set_index("request_id").loc["theirs", "quality"] == 7


def test_a_log_waits_for_a_database_that_restarts_and_loses_nothing(
    team: Team, log: PredictionLog, capfd: pytest.CaptureFixture[str]
) -> None:
    log.add_answer(make_answer("before"))
    wait_for_rows(log, 1)
    with team.postgres.stopped():
        for number in range(500):
            log.add_answer(make_answer(f"meanwhile {number}"))
        wait_until(lambda: "prediction log" in capfd.readouterr().err, "a word of the restart")
    wait_for_rows(log, 501, seconds=60)
    assert log.counts.lost == 0
    assert read_answers(team.log)["request_id"].str.startswith("meanwhile").sum() == 500


PREPARE = """
import sys
from orchestration.flows import prepare_flow
print("ready", flush=True)
sys.stdin.readline()
print(prepare_flow("twin"))
"""


@pytest.mark.full
def test_prefect_runs_flows_of_three_processes_at_once_behind_its_password(team: Team, twin: WineData) -> None:
    api = f"http://127.0.0.1:{team.environment['WINE_PREFECT_PORT']}/api"
    environment = team.environment | {"PREFECT_API_URL": api}
    runs = f"{api}/flow_runs/filter"
    try:
        assert "make deploy" in team.run(COMMANDS["prefect"], ROOT)
        assert requests.post(runs, json={}, timeout=30).status_code == 401
        nobody = {name: value for name, value in environment.items() if name != "PREFECT_API_AUTH_STRING"}
        assert_failed(run_python(*SERVICES, "deploy", env=nobody), 2, "PREFECT_API_AUTH_STRING")
        run_python(*SERVICES, "deploy", env=environment, check=True)
        done = run_at_once(PREPARE, "123", environment)
        assert [process.stdout for process in done] == [f"{twin.fingerprint}\n"] * 3, done
        ended = requests.post(runs, json={}, auth=("wine", "a-word-for-prefect"), timeout=30).json()
        states = [run["state_type"] for run in ended if run["state_type"] != "SCHEDULED"]  # those are the deployments'
        assert states == ["COMPLETED"] * 3
    finally:
        run_python(*SERVICES, "stop", env=environment)
    with team.postgres.connect("prefect") as connection:
        assert connection.execute("SELECT count(*) FROM deployment").fetchone() == (4,)


@pytest.mark.full
def test_all_that_is_lost_comes_back_from_a_backup_the_same_champion_too(
    team: Team, served_mlflow: str, versions: list[str], member: dict[str, str], log: PredictionLog, twin_split: Split
) -> None:
    assert versions
    log.add_answer(make_answer("kept"))
    wait_until(lambda: log.counts.waiting == 0 and count_answers(team.log) > 0, "the answer in the log")
    before, answers, champions = load_current(team.models), read_answers(team.log), list_champions()
    team.run(COMMANDS["backup"])
    log.close()
    for database in ("mlflow", "mlflow_auth", "prefect", "wine_log"):
        team.postgres.run(f"DROP DATABASE {database} WITH (FORCE)")  # under the servers' feet
    team.postgres.run("DROP ROLE wine_log")
    shutil.rmtree(team.environment["ARTIFACTS"])
    shutil.rmtree(team.models)
    with pytest.raises(NotThereError):
        read_answers(team.log)
    team.run(COMMANDS["databases"] + COMMANDS["restore"])
    signing_in = "".join(f"export {name}='{member[name]}'\n" for name in member if name.startswith("MLFLOW_TRACKING"))
    exported = team.run(signing_in + COMMANDS["serve again"])
    assert find_lines(exported, "champion", f"version {champions[-1]}", str(team.models))
    after = load_current(team.models)
    wines = feature_frame(twin_split.holdout)
    assert after.metadata == before.metadata
    assert (after.pipeline.predict_proba(wines) == before.pipeline.predict_proba(wines)).all()
    assert list_champions() == champions
    assert read_answers(team.log).equals(answers)
    log.open()
    assert mlflow.get_experiment_by_name("wine-quality-experiment") is not None, served_mlflow
