"""The notebooks as committed, and run again from top to bottom with small parameters."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from settings import ROOT
from tests.conftest import isolated_environment, seed_store, write_few_wines

NOTEBOOKS = sorted(path.relative_to(ROOT) for path in ROOT.glob("*/*.ipynb"))
A_PATH_OF_SOMEBODY = re.compile(r"(/home/|/root/|/Users/|/tmp/|/work/|site-packages)")
SMALL = {  # by notebook: values for its cell of parameters that a test has time for
    "wine_training": 'NAMES = ["RandomForestRegressor", "DecisionTreeClassifier"]\nSHUFFLES, POINTS = 1, 5',
    "wine_tracking": 'MODEL, TRIALS, PUBLISHED_TRIALS, ROUNDS = "DecisionTreeClassifier", 2, 1, 5',
    "wine_model_registry": "",
    "wine_orchestration": 'LATE, MODELS = 1, ("ExtraTreesClassifier",)',
    "wine_deployment": 'CHAMPION = NEXT = "DecisionTreeClassifier"\nLOAD_SECONDS, LOAD_USERS = 1, 2',
    "wine_monitoring": """WINDOW, LABELS = 150, 1.0
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
def test_a_notebook_is_small_defines_nothing_and_has_one_cell_of_parameters(path: Path) -> None:
    notebook = nbformat.read(ROOT / path, as_version=4)
    assert (ROOT / path).stat().st_size < 1_000_000
    assert len(find_parameters(notebook)) == 1
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert not re.search(r"^\s*def ", code, re.MULTILINE)


def find_parameters(notebook: nbformat.NotebookNode) -> list[int]:
    return [number for number, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]


SECOND = {"wine_model_registry"}  # of a stage that has another: make test runs one notebook a stage


@pytest.mark.parametrize(  # a group of its own each, as name_group has it
    "notebook",
    [pytest.param(path, id=str(path), marks=pytest.mark.full if path.stem in SECOND else ()) for path in NOTEBOOKS],
)
def test_a_notebook_runs_from_top_to_bottom(
    notebook: Path, empty_stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_store(tmp_path, empty_stores)
    wines = write_few_wines(tmp_path / "wines")
    for name, value in (isolated_environment(tmp_path) | {"WINE_DATA": str(wines), "WINE_FOLDS": "2"}).items():
        monkeypatch.setenv(name, value)
    cells = nbformat.read(ROOT / notebook, as_version=4)
    (place,) = find_parameters(cells)  # other values go behind them, as papermill puts them
    cells.cells.insert(place + 1, nbformat.v4.new_code_cell(SMALL[notebook.stem]))
    NotebookClient(cells, timeout=300, resources={"metadata": {"path": str((ROOT / notebook).parent)}}).execute()
