"""The project as a stranger has it: a fresh copy, and an environment without anything of ours."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from settings import ROOT
from tests.processes import run_program

OURS = ("WINE_", "MLFLOW_", "PREFECT_", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
NOBODY = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")


def stranger(**more: str) -> dict[str, str]:
    """The environment without anything of this project's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | more


def copy_project(folder: Path) -> Path:
    """Copy what git tracks, or would: the project as it stands, without what it has made."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the project cannot be known from what it made")
    listed = run_program("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def clone_project(folder: Path) -> Path:
    """Make a clone that holds the project as it stands, committed, and nothing that it has made."""
    copy_project(folder)
    for command in (["init", "--quiet"], ["add", "--all"], [*NOBODY, "commit", "--quiet", "--message", "as it stands"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder
