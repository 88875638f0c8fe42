"""No function of the project and its tests is longer than 40 lines, and no file longer than 350.

    python -m tests.size_limits    (part of make check)

What grows over a limit has two subjects; ruff holds the number of parameters.
"""

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

from commands import DONE, FINDING, run_command
from settings import ROOT

FILE_LINES, FUNCTION_LINES = 350, 40


def find_long(path: Path) -> Iterator[str]:
    """Sentences on the file and its functions that are over a limit."""
    text = path.read_text()
    name, lines = path.relative_to(ROOT), len(text.splitlines())
    if lines > FILE_LINES:
        yield f"{name} has {lines} lines; {FILE_LINES} are allowed"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"{name}:{node.lineno} {node.name} has {lines} lines; {FUNCTION_LINES} are allowed"


def main() -> int:
    """Print what is too long; end with 1 if there is anything."""
    argparse.ArgumentParser(description="Find functions over 40 lines and files over 350.").parse_args()
    packages = [path.parent for path in ROOT.glob("*/__init__.py")]
    paths = [*ROOT.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]
    found = [sentence for path in sorted(paths) for sentence in find_long(path)]
    print("\n".join(found) or f"No function is over {FUNCTION_LINES} lines, and no file over {FILE_LINES}")
    return FINDING if found else DONE


if __name__ == "__main__":
    run_command(main)
