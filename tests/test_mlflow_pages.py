"""`make mlflow`: MLflow's pages on the store of the settings."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from experiment_tracking.pages import find_address, serve_pages
from tests.conftest import Store, isolated_environment
from tests.messages import assert_failed
from tests.processes import run_python, serve
from tests.waiting import free_port
from tests.web import WEB

COMMAND = ("-m", "experiment_tracking.pages")


@pytest.mark.full
def test_make_mlflow_serves_the_pages_that_it_names_until_ctrl_c(store: Store) -> None:
    address = f"http://127.0.0.1:{(port := free_port())}"
    environment = isolated_environment(store.folder) | {"WINE_MLFLOW_PORT": str(port)}
    make = ("make", "--silent", "mlflow", f"VENV={sys.executable}", "--assume-old=.venv/pipeline")
    with serve(f"{address}/health", *make, ending=signal.SIGINT, env=environment, stdout=subprocess.PIPE) as server:
        experiment = {"experiment_id": store.experiment_id}
        asked = WEB.get(f"{address}/api/2.0/mlflow/experiments/get", params=experiment)
        assert asked.json()["experiment"]["name"] == "wine-quality-experiment"
        done = run_python(*COMMAND, env=environment | {"MLFLOW_TRACKING_URI": f"{address}/"}, check=True)
    printed = server.stdout.read()
    assert f"{address}/#/experiments/{store.experiment_id}/runs" in printed
    assert "ctrl-c" in printed
    for named in (printed, done.stdout):  # by the command that serves them, and by one that finds a server
        assert f"{address}/#/models/wine-quality" in named
    assert "ctrl-c" not in done.stdout


def test_a_taken_port_is_named_with_its_setting(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_python(*COMMAND, env=isolated_environment(store.folder) | {"WINE_MLFLOW_PORT": str(port)})
    assert_failed(done, 3, f"127.0.0.1:{port}", "WINE_MLFLOW_PORT")


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("sqlite:////somewhere/mlflow.db", "http://127.0.0.1:5001"),
        ("postgresql+psycopg://wine@db/mlflow", "http://127.0.0.1:5001"),
        ("https://mlflow.example/", "https://mlflow.example"),
        ("https://wine:a-password@mlflow.example/", "https://mlflow.example"),
    ],
)
def test_the_pages_are_the_servers_where_there_is_one(uri: str, address: str) -> None:
    assert find_address(uri, 5001) == address


def test_the_server_gets_its_store_without_a_password_on_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr("os.execv", lambda program, command: started.extend(command))
    monkeypatch.setattr("os.chdir", lambda folder: None)
    for name in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "")
    serve_pages("postgresql+psycopg://wine:a-password@db/mlflow", 5001)
    assert "server" in started
    assert "a-password" not in " ".join(started)
    assert os.environ["MLFLOW_BACKEND_STORE_URI"].endswith("a-password@db/mlflow")


@pytest.mark.parametrize(
    "place", ["http://wine:a-password@127.0.0.1:9", "postgresql+psycopg://wine:a-p@ss/w@127.0.0.1:9/x"]
)
def test_a_store_that_does_not_answer_is_named_without_its_password(store: Store, place: str) -> None:
    done = run_python(
        "-m",
        "experiment_tracking.registry",
        "list",
        env=isolated_environment(store.folder) | {"MLFLOW_TRACKING_URI": place},
    )
    assert_failed(done, 3, "wine:***@127.0.0.1:9", "MLFLOW_TRACKING_URI")
    assert "a-p" not in done.stdout + done.stderr
