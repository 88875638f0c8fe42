"""Every command says how it is used, and before it loads what it will need."""

import errno
import json
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from commands import run_command
from images.pages import PICTURES
from settings import ROOT
from tests.folders import Store, isolated_environment
from tests.messages import assert_failed_in_one_line, list_missing
from tests.processes import run_program

FILES = [*ROOT.glob("*.py"), *ROOT.glob("[!.]*/**/*.py")]
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in FILES
    if path.read_text().endswith("\n    run_command(main)\n")
)
# What no command may import before it has read its arguments: each takes a tenth of a second, most take seconds.
HEAVY = (
    "boto3", "botocore", "dask", "distributed", "evidently", "fastapi", "hyperopt", "locust", "matplotlib", "mlflow",
    "onnxruntime", "pandas", "playwright", "pooch", "prefect", "prefect_aws", "pyarrow", "pytest", "requests", "scipy",
    "seaborn", "sklearn", "sqlalchemy", "uvicorn", "xgboost",
)  # fmt: skip
# What MLflow itself does not need to look into the registry.
NOT_FOR_LISTS = ("evidently", "matplotlib", "onnxruntime", "seaborn", "sklearn", "xgboost")
Answers = dict[str, dict[str, Any]]

# Asks every command for its help, one after the other in one interpreter. A heavy package is noted and refused, so that
# it is not there already for the command after, nor missed where somebody does without it.
ASK = """
import io, json, runpy, sys
from contextlib import redirect_stdout

class Refuse:
    asked = []

    def find_spec(self, name, path=None, target=None):
        if name in heavy:
            self.asked.append(name)
            raise ImportError(f"{name} is imported before the arguments are read")

commands, heavy = json.loads(sys.argv[1])
ours = {name.partition(".")[0] for name in commands} | {"commands", "executors"}
sys.meta_path.insert(0, refuse := Refuse())
found = {}
for command in commands:
    sys.argv[1:], refuse.asked, printed = ["--help"], [], io.StringIO()
    try:
        with redirect_stdout(printed):
            runpy.run_module(command, run_name="__main__", alter_sys=True)
        code = "it did not end"
    except SystemExit as end:
        code = end.code
    except Exception as error:
        code = f"{type(error).__name__}: {error}"
    found[command] = {"code": code, "printed": printed.getvalue(), "heavy": refuse.asked}
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]
print(json.dumps(found))
"""

LIST = """
import json, runpy, sys
for part in ("list", "history"):
    sys.argv[1:] = [part]
    try:
        runpy.run_module("experiment_tracking.registry", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert end.code == 0, end.code
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture(scope="module")
def helped() -> Answers:
    """What each command did when it was asked for its help: exit code, text, and heavy imports."""
    done = run_program(sys.executable, "-c", ASK, json.dumps([COMMANDS, HEAVY]))
    assert done.returncode == 0, done.stderr
    answers: Answers = json.loads(done.stdout)
    return answers


def test_there_are_commands_in_every_room() -> None:
    rooms = {command.partition(".")[0] for command in COMMANDS}
    assert rooms >= {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"settings"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_itself_before_it_loads_what_it_needs(helped: Answers, command: str) -> None:
    answer = helped[command]
    assert (answer["heavy"], answer["code"]) == ([], 0)
    assert answer["printed"].startswith("usage:")


def test_the_help_of_the_pictures_names_all_of_them(helped: Answers) -> None:
    printed = re.sub(r"\s+", " ", helped["images.capture"]["printed"])
    assert list_missing(printed, "WINE_DATA", *(picture.name for picture in PICTURES)) == []


def test_the_registry_is_listed_without_what_only_models_need(store: Store) -> None:
    done = run_program(sys.executable, "-c", LIST, env=isolated_environment(store.folder))
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout.splitlines()[-1])
    assert "mlflow" in imported
    assert [name for name in NOT_FOR_LISTS if name in imported] == []


def chain(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def end_with(error: Exception) -> int:
    """The exit code of a command that raises this."""

    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    return int(ended.value.code or 0)


LOCKED = OperationalError("SELECT 1", {}, sqlite3.OperationalError("database is locked"))
READ_ONLY = OperationalError("UPDATE", {}, sqlite3.OperationalError("attempt to write a readonly database"))


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/disk/page.html"), ("/disk/page.html", "free", "space")),
        (PermissionError(errno.EACCES, "Permission denied", "/ro/page.html"), ("/ro/page.html", "allow", "settings")),
        (FileNotFoundError(errno.ENOENT, "No such file", "/gone/model.pkl"), ("/gone/model.pkl", "put it back")),
        (LOCKED, ("error: database is locked", "try again")),
        (READ_ONLY, ("error: attempt to write a readonly database", "allow writing", "settings")),
        (MlflowException("the store is of another version\n\nof MLflow"), ("another version", "settings")),
        (chain(RuntimeError("it failed"), ConnectionRefusedError("refused by 127.0.0.1:9")), ("127.0.0.1:9",)),
        (ModuleNotFoundError("No module named 'MySQLdb'"), ("MySQLdb", "install")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_fails_outside_ends_a_command_with_3_and_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, facts: tuple[str, ...]
) -> None:
    assert end_with(error) == 3
    found = capsys.readouterr().err
    assert (found.count("\n"), list_missing(found, "error:", *facts)) == (1, [])


def test_of_a_database_error_inside_mlflows_the_drivers_words_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    full = OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
    full.add_detail("(raised as a result of Query-invoked autoflush)")
    assert end_with(chain(MlflowException(str(full)), full)) == 3
    assert capsys.readouterr().err.startswith("error: database or disk is full: free some space")


def test_a_mistake_of_the_project_ends_a_command_with_4_and_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_with(KeyError("density")) == 4
    assert list_missing(capsys.readouterr().err, "Traceback", "KeyError", "density") == []


def test_a_folder_that_cannot_be_written_is_no_finding(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    figure = {"WINE_DATA": "twin", "WINE_AUDIT_FIGURE": str(tmp_path / "file" / "audit.png")}
    done = run_program(sys.executable, "-m", "wine_data.audit", env=isolated_environment(store.folder) | figure)
    assert_failed_in_one_line(done, 3, str(tmp_path / "file"))


@pytest.mark.parametrize("command", ["wine_data.audit", "orchestration.flows"])
def test_a_command_starts_from_a_folder_that_has_settings_of_its_own(tmp_path: Path, command: str) -> None:
    (tmp_path / "settings.py").write_text("PORT = 8000\n")
    done = run_program(sys.executable, "-m", command, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_command_starts_by_its_file_beside_one_named_as_a_room(store: Store) -> None:
    environment = isolated_environment(store.folder)
    done = run_program(sys.executable, "orchestration/monitoring.py", env=environment)
    assert_failed_in_one_line(done, 3, "make pipeline")
