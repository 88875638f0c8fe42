"""The notebooks as committed, and run in stage order from an empty project."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from commands import NotThereError
from settings import ROOT
from tests.conftest import isolated_environment, run_api, seed_store, write_few_wines
from tests.processes import run_program
from tests.run_notebooks import STAGES, run_notebook
from tests.web import WEB

NOTEBOOKS = [Path(name) for name in STAGES]
A_PATH_OF_SOMEBODY = re.compile(r"(/home/|/root/|/Users/|/tmp/|/work/|site-packages)")
SMALL = {  # by notebook: values for its cell of parameters that a test has time for
    "wine_data": "",
    "wine_training": """NAMES = ["RandomForestRegressor", "DecisionTreeClassifier", "RandomForestClassifier"]
SHUFFLES, POINTS = 1, 5""",
    "wine_tracking": 'RIVALS, TRIALS, PUBLISHED_TRIALS, ROUNDS = ["DecisionTreeClassifier"], 2, 1, 5',
    "wine_model_registry": "",
    "wine_orchestration": 'LATE, MODELS = 1, ("DecisionTreeClassifier",)',
    "wine_deployment": 'NEXT = "DecisionTreeClassifier"\nLOAD_SECONDS, LOAD_USERS = 1, 2',
    "wine_monitoring": """WINDOW, LABELS = 200, 1.0
WINDOWS = {"normal": 2, "mistake": 2, "hot year": 3, "after": 2}""",
}
SHOWN_EVERYWHERE = {"text/plain", "text/html", "text/markdown", "image/png"}  # GitHub shows no widgets and no scripts


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_a_notebook_is_committed_as_run_from_top_to_bottom(path: Path) -> None:
    notebook = nbformat.read(ROOT / path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert {kind for output in outputs for kind in output.get("data", {})} <= SHOWN_EVERYWHERE
    shown = [output.get("text", "") for output in outputs]
    shown += [text for output in outputs for kind, text in output.get("data", {}).items() if kind != "image/png"]
    assert not A_PATH_OF_SOMEBODY.search("".join(shown))
    assert "\x1b[" not in "".join(shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_a_notebook_is_small_and_only_its_examples_define_anything(path: Path) -> None:
    notebook = nbformat.read(ROOT / path, as_version=4)
    assert (ROOT / path).stat().st_size < 1_000_000
    tagged = [set(cell.metadata.get("tags", [])) for cell in notebook.cells]
    assert sum("parameters" in tags for tags in tagged) == 1
    assert any("example" in tags for tags in tagged)
    code = [(cell.source, "example" in tags) for cell, tags in zip(notebook.cells, tagged, strict=True)]
    own = "\n".join(source for source, example in code if not example)
    assert not re.search(r"^\s*(async )?(def|class) ", own, re.MULTILINE)
    assert not re.search(r"\.__\w+__", own)


@pytest.mark.parametrize("number", range(len(NOTEBOOKS)))
def test_a_notebook_has_its_number_links_both_ways_exercises_and_says_what_it_leaves(number: int) -> None:
    path = NOTEBOOKS[number]
    cells = nbformat.read(ROOT / path, as_version=4).cells
    first = cells[0].source
    assert first.startswith(f"# {number} of 6: ")
    assert "This needs" in first or "needs nothing" in first
    for place in {max(number - 1, 0), min(number + 1, 6)} - {number}:
        assert f"{NOTEBOOKS[place].name})" in first
    assert 2 <= cells[-1].source.count("<details><summary>Answer</summary>") <= 3
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert code[-1].source.splitlines()[-1].startswith('print("Left:') or 'print(f"Left:' in code[-1].source
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
@pytest.mark.full
def test_a_notebook_without_the_one_before_says_so_in_one_sentence(number: int, tmp_path: Path) -> None:
    environment = isolated_environment(tmp_path) | {"WINE_DATA": str(write_few_wines(tmp_path / "wines"))}
    with pytest.raises(CellExecutionError) as caught:
        run_notebook(ROOT / NOTEBOOKS[number], environment=environment)
    assert caught.value.ename == NotThereError.__name__
    assert caught.value.traceback.rstrip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in caught.value.traceback
    assert "make pipeline" in caught.value.evalue or "notebook 1" in caught.value.evalue


@pytest.mark.full
def test_the_notebooks_in_order_leave_what_serve_mlflow_prefect_and_monitor_show(
    empty_stores: Path, tmp_path: Path
) -> None:
    seed_store(tmp_path, empty_stores)
    environment = isolated_environment(tmp_path)
    environment |= {"WINE_DATA": str(write_few_wines(tmp_path / "wines")), "WINE_FOLDS": "2"}
    said = []
    for path in NOTEBOOKS:
        notebook = run_notebook(ROOT / path, SMALL[path.stem], environment)
        said.append([output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output])
    assert all("Left: " in texts[-1] for texts in said)
    left = re.search(r"champion: version (\d+)", said[-1][-1])
    assert left
    with run_api(environment) as (address, _):
        assert WEB.get(f"{address}/model").json()["version"] == left[1]
    show = [sys.executable, "-c", SHOW]
    done = run_program(*show, env=environment)
    assert done.returncode == 0, done.stderr
    runs, flow_runs, answers, windows = map(int, done.stdout.split())
    assert runs >= 3
    assert flow_runs >= 5
    assert answers >= 1_400
    assert windows


SHOW = """
from mlflow import MlflowClient
from prefect.client.orchestration import get_client

from deployment.prediction_log.reader import count_answers
from experiment_tracking.runs.store import open_store
from monitoring.watch import watch_log
from orchestration.tasks.wiring import prefect_server
from settings import load_settings

settings = load_settings()
runs = MlflowClient().search_runs([open_store(settings.mlflow_uri, settings.mlflow_artifacts)])
with prefect_server(), get_client(sync_client=True) as client:
    flow_runs = client.read_flow_runs()
print(len(runs), len(flow_runs), count_answers(settings.log_url), len(watch_log(settings).windows))
"""
