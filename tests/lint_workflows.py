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
WORKFLOWS = ".github/workflows/*.yml"
SCHEMAS = {
    "github-workflows": WORKFLOWS,
    "dependabot": ".github/dependabot.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "compose-spec": "compose.yaml",
    "citation-file-format": "CITATION.cff",
}


def list_linters() -> dict[str, list[str]]:
    """The commands, by name."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    return {f"schema {name}": [*check, f"vendor.{name}", *_find_files(SCHEMAS[name])] for name in SCHEMAS} | {
        "actionlint": [str(SCRIPTS / "actionlint"), "-no-color", *_find_files(WORKFLOWS)],
        "zizmor": [str(SCRIPTS / "zizmor"), "--offline", "--quiet", "--no-progress", ".github"],
        "hadolint": [str(SCRIPTS / "hadolint"), "Dockerfile"],
    }


def run_linter(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a linter on the project; what it printed is in the result."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def _find_files(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


def main() -> int:
    """Run every linter and print what each found."""
    argparse.ArgumentParser(description="Lint workflows, Dockerfile, compose.yaml and forms.").parse_args()
    code = DONE
    for name, command in list_linters().items():
        result = run_linter(command)
        print(f"{name}: {result.stdout + result.stderr if result.returncode else 'ok'}")
        code = FINDING if result.returncode else code
    return code


if __name__ == "__main__":
    run_command(main)
