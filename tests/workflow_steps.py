"""A job of a workflow, carried out on this machine: its `run` steps, in order, in a fresh copy of the project.

    python -m tests.workflow_steps train.yml train [--skip STEP …] [NAME=VALUE …]

NAME=VALUE goes into the environment (WINE_DATA=twin, say). Of a matrix the first value is taken. Steps that use an
action are named and left out: the copy stands for the check-out, this machine's Python for the one that is set up,
and nothing is uploaded.
"""

import argparse
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from commands import DONE, FINDING, BadInputError, run_command
from settings import ROOT
from tests.processes import run_program

WORKFLOWS = ROOT / ".github" / "workflows"
EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")
# How GitHub calls a step that names no shell: it ends at the first command that fails.
SHELL = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c")


@dataclass(frozen=True)
class Step:
    """A step of a job: `run` is its commands, `uses` the action in their place."""

    name: str
    run: str
    uses: str
    env: dict[str, str]


@dataclass(frozen=True)
class Done:
    """What became of a step; `returncode` is None for one that was left out."""

    name: str
    returncode: int | None
    output: str = ""


def read_workflow(name: str) -> dict[str, Any]:
    """Read a workflow by its file's name; its triggers are under "on", which YAML takes for true."""
    loaded: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return {("on" if key is True else str(key)): value for key, value in loaded.items()}


def list_steps(workflow: Mapping[str, Any], job: str, more: Mapping[str, str] = {}) -> list[Step]:
    """The steps of a job with the environment that is given to each; `more` stands above what the workflow gives.

    Raises BadInputError for a condition or an expression that this cannot work out.
    """
    if job not in workflow["jobs"]:
        raise BadInputError(f"there is no job {job}; there are: {', '.join(workflow['jobs'])}")
    described = workflow["jobs"][job]
    matrix = described.get("strategy", {}).get("matrix", {})
    known = {f"matrix.{name}": str(values[0]) for name, values in matrix.items()}
    known |= {"github.token": "no-token", "github.repository": "nobody/wine-quality-mlops"}

    def fill(text: str) -> str:
        unknown = [name for name in EXPRESSION.findall(text) if name not in known]
        if unknown or "${{" in EXPRESSION.sub("", text):
            raise BadInputError(f"{job}: cannot tell what is meant by {unknown or text!r}")
        return EXPRESSION.sub(lambda found: known[found[1]], text)

    steps = []
    for step in described["steps"]:
        if "if" in step or "shell" in step or "working-directory" in step:
            raise BadInputError(f"{job}, {step.get('name')}: conditions, shells and folders are not carried out here")
        uses, run = step.get("uses", ""), fill(step.get("run", ""))
        given = workflow.get("env", {}) | described.get("env", {}) | step.get("env", {}) if run else {}
        environment = {name: fill(str(value)) for name, value in given.items()} | dict(more)
        steps.append(Step(step.get("name", uses), run, uses, environment))
    return steps


def run_steps(
    steps: Sequence[Step], folder: Path, environment: Mapping[str, str], skip: Sequence[str] = ()
) -> list[Done]:
    """Carry steps out in a folder until one fails; returns what became of each."""
    done: list[Done] = []
    for step in steps:
        if step.uses or step.name in skip:
            done.append(Done(step.name, None, step.uses and f"uses {step.uses}"))
            continue
        result = run_program(*SHELL, step.run, cwd=folder, env={**environment, **step.env}, timeout=3600)
        done.append(Done(step.name, result.returncode, result.stdout + result.stderr))
        if result.returncode:
            break
    return done


def main() -> int:
    """Carry out a job in a fresh copy."""
    parser = argparse.ArgumentParser(description="Carry out the steps of a job here, in a fresh copy of the project.")
    parser.add_argument("workflow", choices=sorted(path.name for path in WORKFLOWS.glob("*.yml")))
    parser.add_argument("job")
    parser.add_argument("more", nargs="*", metavar="NAME=VALUE", help="for the environment")
    parser.add_argument("--skip", nargs="+", default=[], metavar="STEP", help="steps to leave out, by name")
    arguments = parser.parse_args()
    more = dict(pair.split("=", 1) for pair in arguments.more)

    from tests.fresh_copy import clone_project, stranger

    with tempfile.TemporaryDirectory(prefix="workflow-") as folder:
        summary = Path(folder) / "step-summary.md"
        copy = clone_project(Path(folder) / "clone")
        environment = stranger(GITHUB_STEP_SUMMARY=str(summary))
        steps = list_steps(read_workflow(arguments.workflow), arguments.job, more)
        done = run_steps(steps, copy, environment, arguments.skip)
        for step in done:
            print(f"== {step.name}: {'left out' if step.returncode is None else f'exit code {step.returncode}'}")
            print(step.output)
        if summary.exists():
            print(f"== summary\n{summary.read_text()}")
    return FINDING if any(step.returncode for step in done) else DONE


if __name__ == "__main__":
    run_command(main)
