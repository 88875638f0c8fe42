"""The workflows: linted, held to a few rules, and their steps carried out here."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment_tracking.registry.promotion import Record
from orchestration.summary.outcome import NO_REGISTRY, SYNTHETIC, Outcome, render_summary
from settings import ROOT
from tests.fresh_copy import clone_project, stranger
from tests.lint_workflows import list_linters, run_linter
from tests.told import find_lines, list_untold
from tests.workflow_steps import WORKFLOWS, Done, list_steps, read_workflow, run_steps
from wine_data.audit.checks import audit_wines
from wine_data.sources.load import WineData

NAMES = sorted(path.name for path in WORKFLOWS.glob("*.yml"))
JOBS = [(name, job) for name in NAMES for job in read_workflow(name)["jobs"]]
each_workflow = pytest.mark.parametrize("name", NAMES)
each_job = pytest.mark.parametrize(("name", "job"), JOBS)
# The first is what runs these very tests; the second wants root.
LEFT_OUT = ("Tests and notebooks", "Debian packages")
CHANGE_NO_MODEL = ("**.md", "images/**", "tests/**", "Dockerfile", "compose.yaml")


@each_workflow
def test_an_action_is_pinned_by_its_commit_with_the_version_beside_it(name: str) -> None:
    uses = re.findall(r"uses: (.*)", (WORKFLOWS / name).read_text())
    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_an_action_is_pinned_to_one_commit_everywhere() -> None:
    uses = {line for name in NAMES for line in re.findall(r"uses: (.*)", (WORKFLOWS / name).read_text())}
    assert len({line.split("@")[0] for line in uses}) == len(uses)


@each_workflow
def test_a_workflow_may_read_the_code_and_no_more(name: str) -> None:
    assert read_workflow(name)["permissions"] == {"contents": "read"}


@each_job
def test_a_job_writes_nowhere_and_ends_in_time(name: str, job: str) -> None:
    described = read_workflow(name)["jobs"][job]
    assert set(described.get("permissions", {}).values()) <= {"read"}
    assert 0 < described["timeout-minutes"] <= 120


@each_workflow
def test_a_step_fails_where_any_part_of_a_pipe_does(name: str) -> None:
    # GitHub's own default has no pipefail; bash named has.
    assert read_workflow(name)["defaults"] == {"run": {"shell": "bash"}}


@each_job
def test_a_job_leaves_no_token_in_the_checkout(name: str, job: str) -> None:
    steps = read_workflow(name)["jobs"][job]["steps"]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False]


@each_job
def test_a_job_calls_targets_and_modules_that_exist(name: str, job: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for step in list_steps(read_workflow(name), job):
        assert set(re.findall(r"\bmake ([a-z-]+)", step.run)) <= set(targets)
        for module in re.findall(r"-m ([\w.]+)", step.run):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


def test_the_checks_cover_every_python_that_is_promised() -> None:
    for name in ("checks.yml", "everything.yml"):
        assert read_workflow(name)["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


def test_pull_requests_run_the_short_tests_and_main_and_every_night_all_of_them() -> None:
    short, whole = read_workflow("checks.yml"), read_workflow("everything.yml")
    assert set(short["on"]) == {"pull_request"}
    assert set(whole["on"]) == {"push", "schedule", "workflow_dispatch"}
    assert [step.run for step in list_steps(short, "test")][-1] == "make test"
    assert [step.run for step in list_steps(whole, "test")][-1] == "make test-all"


def test_training_runs_on_main_weekly_and_by_hand() -> None:
    triggers: dict[str, Any] = read_workflow("train.yml")["on"]
    assert set(triggers) == {"push", "schedule", "workflow_dispatch"}
    assert triggers["push"] == {"branches": ["main"], "paths-ignore": [*CHANGE_NO_MODEL]}


def test_the_citation_has_the_version_of_the_project() -> None:
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version[1]


@pytest.mark.parametrize("name", [name for name in list_linters() if name not in ("hadolint", "schema compose-spec")])
def test_a_linter_finds_nothing(name: str) -> None:
    done = run_linter(list_linters()[name])
    assert done.returncode == 0, done.stdout + done.stderr


def make_outcome(record: Record | None = None, rehearsals: tuple[str, ...] = ()) -> Outcome:
    return Outcome("uci", "f" * 64, "c" * 40, {}, "| the table |", record, None, rehearsals)


def test_a_summary_says_rehearsal_and_why() -> None:
    summary = render_summary(make_outcome(rehearsals=(NO_REGISTRY, SYNTHETIC)), ["a leak."])
    assert "rehearsal" in summary.splitlines()[0]
    assert NO_REGISTRY in summary
    assert SYNTHETIC in summary


def test_a_summary_of_real_wines_and_an_earlier_registry_says_no_such_thing() -> None:
    summary = render_summary(make_outcome(), [])
    assert "rehearsal" not in summary.lower()
    assert list_untold(summary, "nothing") == []  # in the wines


# Stands for GitHub's command: it knows of two artifacts where EARLIER names one, and downloads the newer.
GH = """#!/bin/sh
case "$1 $2 $3" in
  "api "*) [ -z "$EARLIER" ] || printf '2026-11-25T04:00:00Z\\t17\\n2026-11-18T04:00:00Z\\t16\\n';;
  "run download 17") cp "$EARLIER" registry.tar.gz;;
  *) echo "gh: $* was not expected" >&2; exit 1;;
esac
"""
GH_WITHOUT_GITHUB = "#!/bin/sh\necho 'gh: HTTP 503' >&2\nexit 1\n"
FETCH = "The registry of the last run"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clean clone of the project, in which the first job that a test runs sets up the environment."""
    folder = clone_project(tmp_path_factory.mktemp("workflow") / "clone")
    yield folder
    shutil.rmtree(folder)


def run_job(name: str, job: str, clone: Path, only: str = "", gh: str = GH, **more: str) -> list[Done]:
    """Run the steps of a job, or one of them, beside a command that stands for GitHub's."""
    (clone.parent / "gh").write_text(gh)
    (clone.parent / "gh").chmod(0o755)
    environment = stranger(GITHUB_STEP_SUMMARY=str(clone.parent / "summary.md"))
    environment["PATH"] = f"{clone.parent}:{environment['PATH']}"
    given = {"PYTHON": sys.executable, "EARLIER": ""} | more
    steps = [step for step in list_steps(read_workflow(name), job, given) if only in ("", step.name)]
    assert steps
    return run_steps(steps, clone, environment, LEFT_OUT)


def list_failed(done: list[Done]) -> list[tuple[str, str]]:
    return [(step.name, step.output) for step in done if step.returncode]


@pytest.fixture(scope="module")
def trained(clone: Path) -> Path:
    """The clone after a job that trained in it."""
    assert list_failed(run_job("train.yml", "train", clone, WINE_DATA="twin", WINE_FOLDS="2")) == []
    shutil.copy(clone.parent / "summary.md", clone.parent / "summary of training.md")
    return clone


@pytest.mark.clone
def test_training_ends_with_a_summary_figures_and_a_registry_to_keep(trained: Path, twin: WineData) -> None:
    summary = (trained.parent / "summary of training.md").read_text()
    assert "rehearsal" in summary.splitlines()[0]
    wanted = [
        NO_REGISTRY, SYNTHETIC, "| leak-free | holdout |", "| as-published | validation |",
        *audit_wines(twin).sentences(),
    ]  # fmt: skip
    assert [line for line in wanted if line not in summary] == []
    assert find_lines(summary, "promotion", "version 1")
    assert {path.name for path in (trained / "report").iterdir()} >= {"summary.md", "audit.png", "ExtraTreesClassifier"}
    assert (trained / "registry.tar.gz").stat().st_size < 50_000_000


@pytest.mark.clone
def test_the_next_training_starts_from_the_registry_of_the_last(trained: Path, tmp_path: Path) -> None:
    clone = trained
    earlier = shutil.copy(clone / "registry.tar.gz", tmp_path)
    for name in ("mlflow.db", "mlartifacts", "deployment/models"):
        (clone / name).rename(tmp_path / Path(name).name)
    assert list_failed(run_job("train.yml", "train", clone, FETCH, EARLIER=str(earlier))) == []
    assert (clone / "deployment" / "models" / "current").read_text() == "1\n"
    listed = subprocess.run(
        [clone / ".venv/bin/python", "-m", "experiment_tracking.registry", "list"],
        cwd=clone, env=stranger(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "champion" in listed.stdout


@pytest.mark.clone
def test_where_github_does_not_answer_training_ends_rather_than_begin_a_new_registry(clone: Path) -> None:
    assert [name for name, _ in list_failed(run_job("train.yml", "train", clone, FETCH, GH_WITHOUT_GITHUB))] == [FETCH]


@pytest.mark.clone
def test_the_steps_of_the_checks_end_well(clone: Path) -> None:
    assert list_failed(run_job("checks.yml", "test", clone)) == []


@pytest.mark.clone
def test_the_steps_of_the_canary_end_well(clone: Path) -> None:
    done = run_job("canary.yml", "newest", clone, UPGRADE="")  # what came out today is for the canary to find, not here
    assert list_failed(done) == []
