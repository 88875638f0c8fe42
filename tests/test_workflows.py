"""The workflows: linted, held to a few rules, and their steps carried out here."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestration.summary.outcome import NO_REGISTRY, SYNTHETIC, Outcome, render_summary
from settings import ROOT
from tests.fresh_copy import clone_project, stranger
from tests.lint_workflows import list_linters, run_linter
from tests.messages import find_lines, list_missing
from tests.processes import run_program
from tests.workflow_steps import WORKFLOWS, Done, list_steps, read_workflow, run_steps
from wine_data.audit.checks import audit_wines
from wine_data.sources.load import WineData

NAMES = sorted(path.name for path in WORKFLOWS.glob("*.yml"))
JOBS = [(name, job) for name in NAMES for job in read_workflow(name)["jobs"]]
each_workflow = pytest.mark.parametrize("name", NAMES)
each_job = pytest.mark.parametrize(("name", "job"), JOBS)
# The first is what runs these very tests; the second needs root.
LEFT_OUT = ("Tests and notebooks", "Debian packages")
CHANGE_NO_MODEL = ("**.md", "images/**", "tests/**", "Dockerfile", "compose.yaml")


@each_workflow
def test_a_workflow_reads_only_and_fails_where_any_part_of_a_pipe_does(name: str) -> None:
    workflow = read_workflow(name)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["defaults"] == {"run": {"shell": "bash"}}  # GitHub's own default has no pipefail; bash named has


def test_an_action_is_pinned_to_one_commit_everywhere_with_the_version_beside_it() -> None:
    uses = {line for name in NAMES for line in re.findall(r"uses: (.*)", (WORKFLOWS / name).read_text())}
    assert [line for line in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    assert len({line.split("@")[0] for line in uses}) == len(uses) > 0


@each_job
def test_a_job_writes_nowhere_ends_in_time_and_leaves_no_token(name: str, job: str) -> None:
    described = read_workflow(name)["jobs"][job]
    assert set(described.get("permissions", {}).values()) <= {"read"}
    assert 0 < described["timeout-minutes"] <= 120
    checkouts = [step for step in described["steps"] if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == [False]


@each_job
def test_a_job_calls_targets_and_modules_that_exist(name: str, job: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for step in list_steps(read_workflow(name), job):
        assert set(re.findall(r"\bmake ([a-z-]+)", step.run)) <= set(targets)
        for module in re.findall(r"-m ([\w.]+)", step.run):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


def test_pull_requests_run_the_short_tests_and_main_and_every_night_all_of_them() -> None:
    short, every = {"pull_request"}, {"push", "schedule", "workflow_dispatch"}
    for name, triggers, target in (("checks.yml", short, "test"), ("everything.yml", every, "test-all")):
        workflow = read_workflow(name)
        assert set(workflow["on"]) == triggers
        assert list_steps(workflow, "test")[-1].run == f"make {target}"
        assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]


def test_training_runs_on_main_weekly_and_by_hand() -> None:
    triggers = read_workflow("train.yml")["on"]
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


@pytest.mark.parametrize("rehearsals", [(), (NO_REGISTRY, SYNTHETIC)], ids=["published", "rehearsal"])
def test_a_summary_says_whether_it_is_a_rehearsal_and_why(rehearsals: tuple[str, ...]) -> None:
    outcome = Outcome("uci", "f" * 64, "c" * 40, {}, "| the table |", None, None, rehearsals)
    summary = render_summary(outcome, [])
    assert ("rehearsal" in summary.splitlines()[0]) == ("rehearsal" in summary.lower()) == bool(rehearsals)
    assert list_missing(summary, "nothing", *rehearsals) == []  # in the wines, that is


# GitHub's command, as a stub: it knows of two artifacts where EARLIER names one, and downloads the newer.
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
    """Run the steps of a job, or one of them, with a stub of GitHub's command."""
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
    facts = [NO_REGISTRY, SYNTHETIC, "| leak-free | holdout |", "| as-published | validation |"]
    assert [fact for fact in [*facts, *audit_wines(twin).sentences()] if fact not in summary] == []
    assert find_lines(summary, "promotion", "version 1")
    assert {path.name for path in (trained / "report").iterdir()} >= {"summary.md", "audit.png", "ExtraTreesClassifier"}
    assert (trained / "registry.tar.gz").stat().st_size < 50_000_000


@pytest.mark.clone
def test_the_next_training_starts_from_the_registry_of_the_last(trained: Path, tmp_path: Path) -> None:
    earlier = shutil.copy(trained / "registry.tar.gz", tmp_path)
    for name in ("mlflow.db", "mlartifacts", "deployment/models"):
        (trained / name).rename(tmp_path / Path(name).name)
    assert list_failed(run_job("train.yml", "train", trained, FETCH, EARLIER=str(earlier))) == []
    assert (trained / "deployment" / "models" / "current").read_text() == "1\n"
    command = (trained / ".venv/bin/python", "-m", "experiment_tracking.registry", "list")
    assert "champion" in run_program(*command, cwd=trained, env=stranger(), check=True, timeout=300).stdout


@pytest.mark.clone
def test_where_github_does_not_answer_training_ends_rather_than_begin_a_new_registry(clone: Path) -> None:
    assert [name for name, _ in list_failed(run_job("train.yml", "train", clone, FETCH, GH_WITHOUT_GITHUB))] == [FETCH]


@pytest.mark.clone
def test_the_list_of_the_contents_names_every_package_of_the_lock(clone: Path) -> None:
    assert list_failed(run_job("security.yml", "scan", clone, "List of the contents")) == []
    for lock, name in (("requirements.txt", "sbom.json"), ("deployment/requirements.txt", "sbom-serving.json")):
        listed = json.loads((clone / "report" / name).read_text())["components"]
        pinned = re.findall(r"^([\w.-]+)==", (clone / lock).read_text(), re.MULTILINE)
        assert {component["name"] for component in listed} == set(pinned), name


@pytest.mark.clone
@pytest.mark.parametrize(("name", "job"), [("checks.yml", "test"), ("canary.yml", "newest")])
def test_the_steps_of_a_job_end_well(name: str, job: str, clone: Path) -> None:
    done = run_job(name, job, clone, UPGRADE="")  # what came out today is for the canary to find, not here
    assert list_failed(done) == []
