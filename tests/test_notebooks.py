"""The notebooks as committed, and run again from top to bottom on the twin."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from settings import ROOT
from tests.conftest import isolated_environment

NOTEBOOKS = sorted(path.relative_to(ROOT) for path in ROOT.glob("*/*.ipynb"))
A_PATH_OF_SOMEBODY = re.compile(r"(/home/|/root/|/Users/|/tmp/|/work/|site-packages)")
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
def test_a_notebook_is_small_and_has_one_cell_of_knobs(path: Path) -> None:
    notebook = nbformat.read(ROOT / path, as_version=4)
    assert (ROOT / path).stat().st_size < 1_000_000
    assert len([cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]) == 1
    assert not [
        cell for cell in notebook.cells if cell.cell_type == "code" and re.search(r"^\s*def ", cell.source, re.M)
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_a_notebook_runs_from_top_to_bottom_on_the_twin(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (isolated_environment(tmp_path) | {"WINE_DATA": "twin", "WINE_FOLDS": "2"}).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(ROOT / path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str((ROOT / path).parent)}}).execute()
    assert os.environ["WINE_DATA"] == "twin"
