"""The two commands of the README, as a stranger runs them: in a fresh copy, in a folder with a space."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from settings import ROOT
from tests.conftest import free_port, wait_for
from tests.test_schema import WINE

OURS = ("WINE_", "MLFLOW_", "PREFECT_", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
pytestmark = pytest.mark.clone


def stranger(**more: str) -> dict[str, str]:
    """The environment without anything of this project's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | more


def copy_project(folder: Path) -> Path:
    """Copy what git tracks, or would: the project as it stands, without what it has made."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the project cannot be told from what it made")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def make(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=folder, env=stranger(**more), capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh copy in which `make pipeline` was the first thing that anybody did."""
    folder = copy_project(tmp_path_factory.mktemp("a stranger's folder"))
    done = make(folder, "pipeline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Champion    wine-quality version 1" in done.stdout
    yield folder
    shutil.rmtree(folder)


def test_a_second_setup_installs_nothing_and_takes_under_two_seconds(clone: Path) -> None:
    start = time.monotonic()
    done = make(clone, "setup")
    assert time.monotonic() - start < 2
    assert done.stdout.splitlines() == ["The environment in .venv is ready. Next: make pipeline"]


LOAD_CHAMPION = """
from experiment_tracking.store import open_store
from experiment_tracking.versions import find_version, load_version
from settings import ROOT, load_settings

settings = load_settings()
open_store(settings.mlflow_uri, settings.mlflow_artifacts)
print(ROOT.name, load_version(find_version("champion")).pipeline.n_features_in_)
"""


def test_a_moved_clone_still_loads_its_champion(clone: Path) -> None:
    new = clone.rename(clone.with_name("moved by its owner"))
    try:
        for folder in (new, clone):
            if not folder.exists():
                new.rename(clone)
            done = subprocess.run(
                [folder / ".venv/bin/python", "-c", LOAD_CHAMPION],
                cwd=folder, env=stranger(), capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.stdout == f"{folder.name} 12\n", done.stderr
    finally:
        if new.exists():
            new.rename(clone)


def test_everything_it_makes_is_ignored_by_git(clone: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    untracked = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [name for name in untracked if not (ROOT / name).exists()] == []


def test_make_serve_answers_with_the_model_of_that_copy(clone: Path) -> None:
    port = free_port()
    server = subprocess.Popen(["make", "serve"], cwd=clone, env=stranger(WINE_PORT=str(port)), start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/", server)
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json=WINE).raise_for_status().json()
        assert 3 <= answer["prediction"] <= 9
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=20)


def test_reset_asks_first_and_then_forgets(clone: Path) -> None:
    refused = subprocess.run(["make", "reset"], cwd=clone, input="n\n", capture_output=True, text=True, check=True)
    assert "Nothing was removed." in refused.stdout
    assert (clone / "mlflow.db").exists()
    subprocess.run(["make", "reset"], cwd=clone, input="y\n", capture_output=True, text=True, check=True)
    assert not [name for name in ("mlflow.db", "mlartifacts", "deployment/models") if (clone / name).exists()]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def fake_python(folder: Path, script: str) -> str:
    """An executable that stands for a Python this machine does not have."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 1", "Python 3.11 to 3.14 is needed"),
        ('case "$1" in -c) exit 0;; *) exit 1;; esac', "apt-get install python3-venv"),
    ],
    ids=["too old", "no venv"],
)
def test_a_python_that_will_not_do_is_told_in_one_line(bare: Path, script: str, told: str) -> None:
    done = make(bare, "setup", f"PYTHON={fake_python(bare, script)}")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1
    assert told in lines[0]


def test_without_a_network_setup_says_so_in_one_line(bare: Path) -> None:
    nowhere = "http://127.0.0.1:1/simple"
    done = make(
        bare, "setup", PIP_INDEX_URL=nowhere, PIP_EXTRA_INDEX_URL=nowhere, PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1
    assert "Is the package index reachable?" in lines[0]


def test_help_lists_every_target(bare: Path) -> None:
    shown = make(bare, "help").stdout
    lines = (bare / "Makefile").read_text().replace("\\\n", "").splitlines()
    phony = next(line for line in lines if line.startswith(".PHONY"))
    for target in phony.removeprefix(".PHONY:").split():
        assert f"  {target} " in shown, target
