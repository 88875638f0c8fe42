"""The project with other features and other data: docs/your_own.md, followed in a copy, and what keeps it short."""

import ast
import json
import re
import sys
from pathlib import Path
from shlex import quote
from textwrap import dedent

import httpx
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes

from settings import ROOT
from tests.conftest import isolated_environment
from tests.folders import seed_store
from tests.fresh_copy import copy_project
from tests.messages import find_lines
from tests.processes import PATH_HERE, run_shell, serve
from tests.test_schema import WINE
from tests.waiting import free_port
from wine_data.schema import FEATURES
from wine_data.sources.load import TRAIN_FILE, VALIDATION_FILE

PAGE = (ROOT / "docs" / "your_own.md").read_text()
GLYCEROL, DIABETES = (dedent(code) for code in re.findall(r" *```python\n(.*?) *```", PAGE, re.DOTALL))
COMMANDS = {name: dedent(commands) for name, commands in re.findall(r"```sh\n *# ([a-z ]+)\n(.*?)```", PAGE, re.DOTALL)}
ROOMS = ("wine_data", "wine_quality_training", "experiment_tracking", "deployment", "monitoring", "orchestration")
EXCEPTIONS = {
    "wine_data/schema.py": "names the features",
    "wine_data/sources/pair.py": "which cells of the published files are blank: a fact about those files",
}
NAMES = re.compile(rf"\b({'|'.join(FEATURES)})\b")
COLOUR = FEATURES[-1]
SCHEMA = "wine_data/schema.py"
GONE = "citric_acid"  # the page's example


@pytest.mark.parametrize("file", [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))], ids=str)
def test_code_names_features_in_the_schema_alone(file: Path) -> None:
    name = str(file.relative_to(ROOT))
    found = find_names(ast.parse(file.read_text()))
    assert bool(found) == (name in EXCEPTIONS), f"{name} names {sorted(found)}: take them from wine_data/schema.py"


@pytest.mark.parametrize("file", sorted(ROOT.glob("*/*/page.html")), ids=str)
def test_pages_name_no_feature_and_count_none(file: Path) -> None:
    assert not re.search(rf"{NAMES.pattern}|eleven|twelve", file.read_text())


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ('table["density"]', {"density"}),
        ('f"{count} of pH"', {"pH"}),
        ("wines.assign(red_wine=1)", {"red_wine"}),
        ("wine.alcohol", {"alcohol"}),
        ('"""A docstring may say density."""', set()),
    ],
)
def test_a_name_is_found_in_whatever_way_code_writes_it(code: str, names: set[str]) -> None:
    assert find_names(ast.parse(code)) == names


def find_names(code: ast.AST) -> set[str]:
    """The features that code names in strings, attributes and keywords; not in docstrings and comments."""
    docstrings = {
        id(node.value) for node in ast.walk(code) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return {name for node in ast.walk(code) if id(node) not in docstrings for name in NAMES.findall(write(node))}


def write(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(text)) | ast.Attribute(attr=text) | ast.keyword(arg=str(text)):
            return text
    return ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the project, to be changed."""
    (tmp_path / "your own").mkdir()
    return copy_project(tmp_path / "your own")


def run(script: str, folder: Path) -> str:
    """Run commands of the page in a copy."""
    return run_shell(script, folder, isolated_environment(folder) | {"PATH": PATH_HERE})


def run_code(code: str, folder: Path) -> str:
    """Run Python in a copy; return what it prints, or how it fails."""
    return run(f"python -c {quote(code)} 2>&1 || true", folder)


TRAIN_AND_ASK = """
import json
from pathlib import Path
from starlette.testclient import TestClient
from deployment.serve import create_worker
from settings import ROOT, load_settings
from tests.conftest import load_as_default, make_bundle
from wine_data.schema import EXAMPLE, FEATURES
from wine_data.split import split_wines
from wine_quality_training.bundle.bundle import load_current, select_bundle
from wine_quality_training.evaluate import evaluate_leak_free
from wine_quality_training.models import make_model

data = load_as_default("twin")
split = split_wines(data.train, data.validation, folds=5, seed=42)
evaluation = evaluate_leak_free("DecisionTreeClassifier", make_model("DecisionTreeClassifier", 42), split)
models = load_settings().serving_models
select_bundle(make_bundle(models, evaluation, data, split.train))
with TestClient(create_worker()) as api:
    answer = api.post("/predict", json=EXAMPLE)
    refused = api.post("/predict", json=EXAMPLE | {"citric_acid": 0.36})
    page = api.get("/", headers={"Accept": "text/html"}).text
read = load_as_default("wines").train
print(json.dumps({
    "read": sorted(read.columns, key=[*FEATURES, "quality", "type"].index), "root": str(ROOT), "features": FEATURES,
    "fitted": evaluation.pipeline.n_features_in_, "compiled": load_current(models).compiled is not None,
    "status": answer.status_code, "grade": answer.json().get("prediction"), "page": page,
    "refused": [refused.status_code, [error["field"] for error in refused.json().get("errors", [])]],
}))
"""


@pytest.mark.clone
def test_a_feature_is_removed_as_the_page_says_and_the_rest_follows(folder: Path) -> None:
    run(COMMANDS["remove a feature"], folder)
    write_wines(folder / "wines", {})
    found = json.loads(run_code(TRAIN_AND_ASK, folder).splitlines()[-1])
    left = [name for name in FEATURES if name != GONE]
    assert (found["root"], found["features"], found["fitted"]) == (str(folder), left, len(left))
    assert (found["status"], found["refused"]) == (200, [422, [GONE]])
    assert found["grade"] in range(3, 10)
    assert found["compiled"]
    assert set(re.findall(r'data-feature (?:id="\w+" )?name="(\w+)"', found["page"])) == set(left)
    assert found["read"] == [*left, "quality", "type"]  # of a file that still has the column
    assert " passed" in run("python -m pytest -q tests/test_schema.py tests/test_reader.py", folder)


OPEN_LOG = """
from deployment.prediction_log.tables import make_engine, prepare_tables
from settings import load_settings
prepare_tables(make_engine(load_settings().log_url))
"""
SAMPLE_TWIN = "from wine_data.twin.sample import sample_twin; sample_twin(10, 0)"
READ = "from tests.conftest import load_as_default; print(load_as_default('wines').train['glycerol'].max())"


@pytest.mark.clone
def test_a_feature_is_added_as_the_page_says_and_what_is_older_says_what_to_do(folder: Path) -> None:
    assert "Error" not in run_code(OPEN_LOG, folder)
    change_schema(folder, f"    {COLOUR}: float", f"    {GLYCEROL}    {COLOUR}: float")
    write_wines(folder / "wines", {"glycerol": 7.5})
    assert run_code(READ, folder).splitlines()[-1] == "7.5"
    assert find_lines(run_code(SAMPLE_TWIN, folder), "glycerol", "python -m wine_data.twin.fit FOLDER")
    assert find_lines(run_code(OPEN_LOG, folder), "glycerol", "WINE_LOG_URL")


def write_wines(folder: Path, more: dict[str, float]) -> None:
    """Write a small train and validation file in the columns of the published ones, and more."""
    wine = {name: value for name, value in WINE.items() if name != COLOUR} | more
    table = pd.DataFrame([{"type": kind} | wine | {"quality": q} for kind in ("red", "white") for q in (5, 6, 7)])
    folder.mkdir()
    for name in (TRAIN_FILE, VALIDATION_FILE):
        table.to_csv(folder / name, index=False)


PATIENT = {"age": 59, "sex": 2, "bmi": 32.1, "bp": 101, "s5": 4.8598, "s6": 87}
WORDS_OF_WINE = re.compile(r'(?<![\w."-])(wines?|tasters?|colours?|red wine|white)(?![\w"-])', re.IGNORECASE)


@pytest.mark.full
def test_other_data_are_trained_on_served_and_monitored_with_no_change_but_to_the_schema(
    folder: Path, empty_stores: Path
) -> None:
    declaration = re.search("(?s)# Your own data.*?\n(.*)# What follows", (folder / SCHEMA).read_text())
    assert declaration
    change_schema(folder, declaration[1], DIABETES)
    file = write_diabetes(folder / "own")
    seed_store(folder, empty_stores)
    given = {"WINE_DATA": "own", "WINE_FOLDS": "2", "WINE_PORT": str(free_port()), "WINE_WINDOW_ROWS": "200"}
    environment = isolated_environment(folder) | given | {"PATH": PATH_HERE}

    printed = run_shell("python -m wine_data.twin.fit own; python -m wine_data.audit", folder, environment)
    printed += run_shell("python -m orchestration.flows --models RandomForestClassifier", folder, environment)
    assert find_lines(printed, "Serves", "diabetes version 1", "RandomForestClassifier")
    address = f"http://127.0.0.1:{given['WINE_PORT']}"
    with serve(f"{address}/ready", sys.executable, "-m", "deployment.serve", cwd=folder, env=environment):
        printed += check_api(address)
        printed += run_shell("python -m monitoring.simulate --wines 250 --labels 0.5", folder, environment)
    printed += run_shell(f"python -m deployment.batch {file.relative_to(folder)}", folder, environment)
    assert find_lines(printed, "82 patients scored by version 1")
    printed += run_shell("python -m orchestration.monitoring --no-retraining || test $? = 1", folder, environment)
    printed += Path(environment["WINE_MONITORING_REPORTS"], "index.html").read_text()
    assert find_lines(printed, "graded by physicians")
    assert not WORDS_OF_WINE.findall(re.sub(r"(?s)<(style|script)>.*?</\1>|make \w+.*", "", printed))


def check_api(address: str) -> str:
    """Ask for one patient and for a table of two, and send feedback; return the API's page and description."""
    answer = httpx.post(f"{address}/predict", params={"explain": True}, json=PATIENT).json()
    assert (answer["model"]["name"], list(answer["explanation"]["effects"])) == ("diabetes", list(PATIENT))
    assert answer["prediction"] in range(1, 6)
    feedback = {"request_id": answer["request_id"], "progression": 6}
    assert httpx.post(f"{address}/feedback", json=feedback).json()["errors"][0]["field"] == "progression"
    assert httpx.post(f"{address}/feedback", json=feedback | {"progression": 5}).json()["progression"] == 5
    table = pd.DataFrame([PATIENT, PATIENT]).to_csv(index=False)
    batch = httpx.post(f"{address}/predict/batch", content=table, headers={"Content-Type": "text/csv"}).json()
    assert [each["prediction"] for each in batch["answers"]] == 2 * [answer["prediction"]]
    assert httpx.post(f"{address}/predict", json=WINE).json()["title"] == "The body is not a patient"
    page = httpx.get(address, headers={"Accept": "text/html"}).text
    assert set(re.findall(r'data-feature (?:id="\w+" )?name="(\w+)"', page)) == set(PATIENT)
    return page + json.dumps(httpx.get(f"{address}/openapi.json").json()["info"])


def write_diabetes(folder: Path) -> Path:
    """Write scikit-learn's diabetes data as two files, the target cut into five grades; return the second."""
    table = load_diabetes(as_frame=True, scaled=False).frame
    table["progression"] = pd.qcut(table.pop("target"), 5, labels=False) + 1
    folder.mkdir()
    table[:360].to_csv(folder / TRAIN_FILE, index=False)
    table[360:].to_csv(folder / VALIDATION_FILE, index=False)
    return folder / VALIDATION_FILE


def change_schema(folder: Path, old: str, new: str) -> None:
    """Replace a part of the schema of a copy."""
    text = (folder / SCHEMA).read_text()
    assert text.count(old) == 1
    (folder / SCHEMA).write_text(text.replace(old, new))
