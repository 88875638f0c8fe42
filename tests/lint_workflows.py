"""The linters of what runs elsewhere: workflows, forms, Dockerfile, compose.yaml.

    python -m tests.lint_workflows    (make lint-workflows)

All of them come with the lock and need no network. actionlint looks at the shell commands of the steps too where
shellcheck is installed, as it is on GitHub's machines.
"""

import argparse
import subprocess
import sys
import sysconfig
from pathlib import Path

from commands import DONE, FINDING, run_command
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


def list_linters() -> dict[str, list[str]]:
    """The commands, by name."""
    schemas = {
        f"schema {name}": [
            sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", *_find_files(pattern),
        ]
        for name, pattern in SCHEMAS.items()
    }  # fmt: skip
    return schemas | {
        "actionlint": [str(SCRIPTS / "actionlint"), "-no-color", *_find_files(SCHEMAS["github-workflows"])],
        "zizmor": [str(SCRIPTS / "zizmor"), "--offline", "--quiet", "--no-progress", ".github"],
        "hadolint": [str(SCRIPTS / "hadolint"), "Dockerfile"],
    }


def run_linter(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a linter on the project; what it printed is in the result."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def _find_files(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


def main() -> int:
    """Run every linter and tell what each found."""
    argparse.ArgumentParser(description="Lint workflows, Dockerfile, compose.yaml and forms.").parse_args()
    results = {name: run_linter(command) for name, command in list_linters().items()}
    for name, result in results.items():
        print(f"{name}: {'found' if result.returncode else 'ok'}")
        if result.returncode:
            print(result.stdout + result.stderr)
    return FINDING if any(result.returncode for result in results.values()) else DONE


if __name__ == "__main__":
    run_command(main)
