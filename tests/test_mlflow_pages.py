"""`make mlflow`: MLflow's pages on the store of the settings."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from experiment_tracking.pages import find_address
from settings import ROOT
from tests.conftest import Store, isolated_environment
from tests.told import assert_told, find_lines
from tests.waiting import free_port, wait_for
from tests.web import WEB

COMMAND = [sys.executable, "-m", "experiment_tracking.pages"]


@pytest.mark.full
def test_make_mlflow_serves_the_pages_that_it_names_until_ctrl_c(store: Store) -> None:
    port = free_port()
    environment = isolated_environment(store.folder) | {"WINE_MLFLOW_PORT": str(port)}
    server = subprocess.Popen(
        ["make", "--silent", "mlflow", f"VENV={sys.executable}", "--assume-old=.venv/installed"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, seconds=180)
        asked = WEB.get(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get", params={"experiment_id": store.experiment_id}
        )
        assert asked.json()["experiment"]["name"] == "wine-quality-experiment"
    finally:
        os.killpg(server.pid, signal.SIGINT)  # as ctrl-c in a terminal does
        server.wait(timeout=60)
    assert server.stdout is not None
    printed = server.stdout.read()
    assert f"http://127.0.0.1:{port}/#/experiments/{store.experiment_id}/runs" in printed
    assert f"http://127.0.0.1:{port}/#/models/wine-quality" in printed
    assert "ctrl-c" in printed


@pytest.mark.full
def test_where_a_server_keeps_the_runs_its_pages_are_named(store: Store) -> None:
    served = isolated_environment(store.folder) | {"WINE_MLFLOW_PORT": str(free_port())}
    with subprocess.Popen(COMMAND, cwd=ROOT, env=served, stdout=subprocess.DEVNULL) as server:
        address = f"http://127.0.0.1:{served['WINE_MLFLOW_PORT']}"
        wait_for(f"{address}/health", server, seconds=180)
        done = subprocess.run(
            COMMAND, cwd=ROOT, env=served | {"MLFLOW_TRACKING_URI": f"{address}/"},
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        server.send_signal(signal.SIGINT)
    assert find_lines(done.stdout, f"{address}/#/models/wine-quality")
    assert "ctrl-c" not in done.stdout


def test_a_taken_port_is_told(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            COMMAND, cwd=ROOT, env=isolated_environment(store.folder) | {"WINE_MLFLOW_PORT": str(port)},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert_told(done, 3, f"127.0.0.1:{port}", "WINE_MLFLOW_PORT")


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("sqlite:////somewhere/mlflow.db", "http://127.0.0.1:5001"),
        ("postgresql+psycopg://wine@db/mlflow", "http://127.0.0.1:5001"),
        ("https://mlflow.example/", "https://mlflow.example"),
    ],
)
def test_the_pages_are_the_servers_where_there_is_one(uri: str, address: str) -> None:
    assert find_address(uri, 5001) == address
