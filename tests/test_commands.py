"""Every command says how it is used, and before it loads what it will need."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from images.pages import PICTURES
from settings import ROOT
from tests.conftest import Store, isolated_environment

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
    "seaborn", "skl2onnx", "sklearn", "sqlalchemy", "uvicorn", "xgboost",
)  # fmt: skip
# What MLflow itself does not need to look into the registry.
NOT_FOR_LISTS = ("evidently", "matplotlib", "onnxruntime", "seaborn", "skl2onnx", "sklearn", "xgboost")

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
told = {}
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
    told[command] = {"code": code, "printed": printed.getvalue(), "heavy": refuse.asked}
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]
print(json.dumps(told))
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
def told() -> dict[str, dict[str, Any]]:
    """What each command said when it was asked for its help: exit code, text, and what it wanted to import."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps([COMMANDS, HEAVY])],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return answers


def test_there_are_commands_in_every_room() -> None:
    rooms = {command.partition(".")[0] for command in COMMANDS}
    assert rooms >= {
        "settings", "wine_data", "wine_quality_training", "experiment_tracking", "deployment", "monitoring",
        "orchestration", "images",
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_itself_before_it_loads_what_it_needs(told: dict[str, dict[str, Any]], command: str) -> None:
    answer = told[command]
    assert (answer["heavy"], answer["code"]) == ([], 0)
    assert answer["printed"].startswith("usage:")


def test_the_help_of_the_pictures_names_all_of_them(told: dict[str, dict[str, Any]]) -> None:
    printed = re.sub(r"\s+", " ", told["images.capture"]["printed"])
    assert "WINE_DATA" in printed
    assert [picture.name for picture in PICTURES if picture.name not in printed] == []


def test_the_registry_is_listed_without_what_only_models_need(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIST],
        cwd=ROOT, env=isolated_environment(store.folder), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout.splitlines()[-1])
    assert "mlflow" in imported
    assert [name for name in NOT_FOR_LISTS if name in imported] == []
