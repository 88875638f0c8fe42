"""Every command says how it is used, and before it loads what it will need."""

import json
import re
import sys
from typing import Any

import pytest

from images.pages import PICTURES
from settings import ROOT
from tests.folders import Store, isolated_environment
from tests.running import run_process
from tests.told import list_untold

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
def helped() -> Answers:
    """What each command did when it was asked for its help: exit code, text, and heavy imports."""
    done = run_process(sys.executable, "-c", ASK, json.dumps([COMMANDS, HEAVY]))
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
    assert list_untold(printed, "WINE_DATA", *(picture.name for picture in PICTURES)) == []


def test_the_registry_is_listed_without_what_only_models_need(store: Store) -> None:
    done = run_process(sys.executable, "-c", LIST, env=isolated_environment(store.folder))
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout.splitlines()[-1])
    assert "mlflow" in imported
    assert [name for name in NOT_FOR_LISTS if name in imported] == []
