"""Runs the notebooks in stage order.

    python -m tests.run_notebooks    (make notebooks)

runs them in .scratch, a folder that is made anew, and keeps their new outputs. The tests run them elsewhere, with other
values for their cell of parameters.
"""

import argparse
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from commands import DONE, run_command
from settings import ROOT, SCRATCH

STAGES = (
    "wine_data/wine_data.ipynb",
    "wine_quality_training/wine_training.ipynb",
    "experiment_tracking/wine_tracking.ipynb",
    "experiment_tracking/wine_model_registry.ipynb",
    "orchestration/wine_orchestration.ipynb",
    "deployment/wine_deployment.ipynb",
    "monitoring/wine_monitoring.ipynb",
)
CELL_SECONDS = 900


def run_notebook(
    path: Path, parameters: str = "", environment: Mapping[str, str] = os.environ
) -> nbformat.NotebookNode:
    """Run a notebook, with more lines in its cell of parameters, and return it with its outputs.

    A mistake of its cells is raised as CellExecutionError.
    """
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    written = cell.source
    cell.source = f"{written}\n{parameters}"
    client = NotebookClient(notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(path.parent)}})
    client.execute(env=dict(environment))
    cell.source = written
    for each in notebook.cells:
        each.metadata.pop("execution", None)  # when each cell ran
    return notebook


def main() -> int:
    """Run every notebook, or those named, and write its outputs into it."""
    parser = argparse.ArgumentParser(description="Run the notebooks in stage order in .scratch, and keep the outputs.")
    parser.add_argument("--only", type=int, choices=range(len(STAGES)), help="only this stage, on what is in .scratch")
    only = parser.parse_args().only
    if only is None:
        shutil.rmtree(SCRATCH, ignore_errors=True)
    for name in STAGES if only is None else [STAGES[only]]:
        print(f"Running {name} ...", flush=True)
        nbformat.write(run_notebook(ROOT / name, "SCRATCH = True"), ROOT / name)
    print("The notebooks hold new outputs. Next: git diff --stat")
    return DONE


if __name__ == "__main__":
    run_command(main)
