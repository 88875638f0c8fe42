"""Change one operator or value at a time in the files that decide what serves, and count the changes no test notices.

    python -m tests.benchmarks.mutants

mutmut makes the changes (mutants) in a copy of the project, and runs the tests of each file against each of them.
A mutant that these tests do not notice has survived, and is printed. This takes about half an hour. Exit code 1: the
tests of a file fail without any change.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from commands import FINDING, run_command
from settings import ROOT
from tests.benchmarks.results import parse_arguments, publish_result

MUTMUT = "mutmut==3.8.1"
TESTS = {
    "wine_quality_training/bundle/bundle.py": ["tests/test_bundle.py"],
    "experiment_tracking/registry/gate.py": ["tests/test_verdicts.py"],
    "experiment_tracking/registry/promotion.py": [
        "tests/test_rollback.py",
        "tests/test_tidy.py::test_tidying_keeps_what_champions_and_pending_challengers_need",
        "tests/test_tidy.py::test_a_version_that_is_needed_since_it_was_looked_at_stays",
    ],
}
SURVIVED, UNTESTED = 0, (5, 33)  # exit codes: the tests noticed nothing, no test calls the function
CONFIGURATION = """
[tool.mutmut]
source_paths = ["{folder}"]
only_mutate = ["{file}"]
also_copy = {everything}
pytest_add_cli_args = ["-p", "no:randomly"]
pytest_add_cli_args_test_selection = {tests}
use_git_change_detection = false
track_dependencies = false
timeout_multiplier = 20.0
timeout_constant = 30.0
"""


def install_mutmut(folder: Path) -> Path:
    """Install mutmut into a folder of its own, so that the lock has none of its packages."""
    limits = ["--constraints", str(ROOT / "requirements.txt")]
    command = [sys.executable, "-m", "uv", "--quiet", "pip", "install", "--target", str(folder), *limits, MUTMUT]
    subprocess.run(command, check=True)
    return folder


def try_mutants(project: Path, tools: Path, file: str, tests: list[str]) -> list[int | None]:
    """Try all mutants of one file in a copy of the project; return the exit code of the tests for each (None: none)."""
    everything = sorted(path.name for path in project.iterdir() if path.name not in (".git", "mutants", "tests"))
    values = {
        "folder": str(Path(file).parent),
        "file": file,
        "tests": json.dumps(tests),
        "everything": json.dumps(everything),
    }
    original = (ROOT / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(original + CONFIGURATION.format(**values))
    environment = os.environ | {"PYTHONPATH": str(tools), "PREFECT_HOME": str(project / ".prefect")}
    mutmut = [sys.executable, "-m", "mutmut"]
    subprocess.run([*mutmut, "run"], cwd=project, env=environment, check=False)
    meta = project / "mutants" / f"{file}.meta"
    codes: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"] if meta.exists() else {}
    for name in (name for name, code in codes.items() if code == SURVIVED):
        subprocess.run([*mutmut, "show", name], cwd=project, env=environment, check=False)
    return list(codes.values())


def count_outcomes(file: str, tests: list[str], codes: list[int]) -> dict[str, Any]:
    """A row of the table, from the exit codes of the tests of a file."""
    survived, untested = codes.count(SURVIVED), sum(map(codes.count, UNTESTED))
    return {
        "file": Path(file).name,
        "tests": ", ".join(sorted({Path(test.partition("::")[0]).stem for test in tests})),
        "mutants": len(codes),
        "killed": len(codes) - survived - untested,
        "survived": survived,
        "not called": untested,
    }


def main() -> int:
    """Try every file, and write the table."""
    parse_arguments(__doc__)

    from tests.fresh_copy import copy_project

    rows = []
    with tempfile.TemporaryDirectory(prefix="wine-mutants-") as folder:
        tools = install_mutmut(Path(folder) / "tools")
        for file, tests in TESTS.items():
            codes = try_mutants(copy_project(Path(folder) / Path(file).stem), tools, file, tests)
            if not codes or None in codes:
                print(f"{file}: {', '.join(tests)} fails without any change, or mutmut ended early: see above")
                return FINDING
            rows.append(count_outcomes(file, tests, [code for code in codes if code is not None]))
    return publish_result("mutants", "mutants", rows)


if __name__ == "__main__":
    run_command(main)
