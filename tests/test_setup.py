"""The two commands of the README, as a stranger runs them: in a fresh copy, in a folder with a space."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import ROOT
from tests.fresh_copy import clone_project, stranger
from tests.messages import find_lines, list_missing
from tests.processes import run_program
from tests.test_schema import WINE
from tests.waiting import free_port, wait_for
from tests.web import WEB


def make(folder: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return run_program("make", *arguments, cwd=folder, env=stranger(**more), timeout=900)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh copy in which `make pipeline` was the first thing that anybody did."""
    folder = clone_project(tmp_path_factory.mktemp("a stranger's folder"))
    done = make(folder, "pipeline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert find_lines(done.stdout, "Serves", "wine-quality version 1")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.clone
def test_the_pipeline_installs_its_own_packages_and_nothing_twice(clone: Path) -> None:
    environment = clone / ".venv"
    files = [path for path in environment.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.lstat().st_size for path in files) < 1e9
    packages = {path.name.partition("-")[0] for path in environment.rglob("*.dist-info")}
    assert {"mlflow", "prefect"} <= packages
    assert not {"jupyterlab", "dask", "playwright", "locust", "mypy"} & packages
    done = make(clone, ".venv/pipeline")
    assert done.stdout.splitlines() == ["make: '.venv/pipeline' is up to date."]


LOAD_CHAMPION = """
from experiment_tracking.runs.store import open_store
from experiment_tracking.registry.versions import find_version, load_version
from settings import ROOT, load_settings

settings = load_settings()
open_store(settings.mlflow_uri, settings.mlflow_artifacts)
print(ROOT.name, load_version(find_version("champion")).pipeline.n_features_in_)
"""


@pytest.mark.clone
def test_a_moved_clone_still_loads_its_champion(clone: Path) -> None:
    new = clone.rename(clone.with_name("moved by its owner"))
    try:
        for folder in (new, clone):
            if not folder.exists():
                new.rename(clone)
            done = run_program(folder / ".venv/bin/python", "-c", LOAD_CHAMPION, cwd=folder, env=stranger())
            assert done.stdout == f"{folder.name} 12\n", done.stderr
    finally:
        if new.exists():
            new.rename(clone)


@pytest.mark.clone
def test_git_sees_nothing_of_what_it_makes(clone: Path) -> None:
    seen = run_program("git", "status", "--porcelain", cwd=clone)
    assert (seen.returncode, seen.stdout) == (0, "")


@pytest.mark.clone
def test_make_serve_answers_with_the_model_of_that_copy(clone: Path) -> None:
    port = free_port()
    server = subprocess.Popen(["make", "serve"], cwd=clone, env=stranger(WINE_PORT=str(port)), start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/", server)
        answer = WEB.post(f"http://127.0.0.1:{port}/predict", json=WINE).raise_for_status().json()
        assert 3 <= answer["prediction"] <= 9
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=20)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_reset_asks_first_and_then_forgets_and_asks_again_for_the_log(bare: Path) -> None:
    made = [bare / name for name in ("mlartifacts", "deployment/models", "mlflow.db")]
    log = bare / "deployment" / "predictions.db"
    for folder in (*made, bare / "wine_data"):
        folder.mkdir(parents=True)
    log.touch()
    for answers, kept in (("n\ny", [*made, log]), ("y\nn", [log]), ("y", [log]), ("y\ny", [])):
        subprocess.run(["make", "reset"], cwd=bare, input=f"{answers}\n", text=True, check=True)
        assert [path for path in (*made, log) if path.exists()] == kept
    assert (bare / "wine_data").exists()


@pytest.mark.parametrize(
    ("script", "facts"),
    [
        ("exit 1", ("3.11", "3.14", "PYTHON=")),
        ('case "$1" in -c) exit 0;; *) exit 1;; esac', ("apt-get install python3-venv",)),
    ],
    ids=["too old", "no venv"],
)
def test_setup_refuses_a_python_in_one_line(bare: Path, script: str, facts: tuple[str, ...]) -> None:
    python = bare / "python"  # in the place of one that this machine does not have
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    assert_one_line(make(bare, "setup", f"PYTHON={python}"), *facts)


@pytest.mark.full
def test_setup_without_a_network_says_so_in_one_line(bare: Path) -> None:
    indexes = dict.fromkeys(("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"), "http://127.0.0.1:1/simple")
    done = make(bare, "setup", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull, **indexes)
    assert_one_line(done, "distribution", "setup.log")


def assert_one_line(done: "subprocess.CompletedProcess[str]", *facts: str) -> None:
    """Assert that make failed, and that all it printed besides its own line is one line with these facts."""
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert list_missing(line, *facts) == []


def test_help_lists_every_target(bare: Path) -> None:
    shown = make(bare, "help").stdout
    lines = (bare / "Makefile").read_text().replace("\\\n", "").splitlines()
    phony = next(line for line in lines if line.startswith(".PHONY"))
    for target in phony.removeprefix(".PHONY:").split():
        assert f"  {target} " in shown, target
