"""Which lines and branches of the project its tests reach, room by room.

    python -m tests.coverage_by_room [--short]    (make coverage)

runs the tests of make test, then the others of make test-all, and counts what they and the processes that they start
reach. A process that is killed leaves no count, so what only such a process runs is missing here. Counting makes the
tests slower: their times are those of make test and make test-all.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commands import DONE, FINDING, NotThereError, run_command
from settings import ROOT

FOLDER = ROOT / ".coverage"
PARALLEL = ("-n", "2", "--durations=60", "--dist", "loadgroup", "--no-loadscope-reorder")
TESTS = (  # their markers, the options of pytest, and the report that counts up to them
    ("not full and not clone and not alone", PARALLEL, "test"),
    ("(full or clone) and not alone", PARALLEL, "test-all"),
    ("alone", (), "test-all"),
)
TOGETHER = "together"
COUNTED = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def read_rooms(report: Path) -> dict[str, Counter[str]]:
    """Lines and branches by room, those that were reached and all. Raises NotThereError where none were counted."""
    if not report.exists():
        raise NotThereError(f"there is no {report}: the tests ended before anything was counted")
    rooms: dict[str, Counter[str]] = defaultdict(Counter)
    files: Mapping[str, Any] = json.loads(report.read_text())["files"]
    for name, figures in files.items():
        room, inside, _ = name.partition("/")
        if not room:  # an absolute path, in a copy of the project that a test made
            continue
        for part in (room if inside else "settings, commands, executors", TOGETHER):
            rooms[part].update({kind: figures["summary"][kind] for kind in COUNTED})
    return dict(sorted(rooms.items(), key=lambda item: item[0] == TOGETHER))


def print_rooms(rooms: Mapping[str, Counter[str]]) -> None:
    """A line a room."""
    print(f"{'room':30} {'lines':>7} {'reached':>8} {'branches':>9} {'reached':>8}")
    for name, counted in rooms.items():
        lines, reached, branches, both = (counted[kind] for kind in COUNTED)
        print(f"{name:30} {lines:7,} {reached / lines:8.1%} {branches:9,} {both / max(branches, 1):8.1%}")


def main() -> int:
    """Run the tests and print the tables."""
    parser = argparse.ArgumentParser(description="Run the tests and print which lines they reach, by room.")
    parser.add_argument("--short", action="store_true", help="the tests of make test alone")
    short = parser.parse_args().short
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    codes = []
    for selected, options, name in TESTS[:1] if short else TESTS:
        command = [sys.executable, "-m", "pytest", *options, "-m", selected, "--cov", "--cov-append"]
        command.append(f"--cov-report=json:{FOLDER / name}.json")
        codes.append(subprocess.run(command, cwd=ROOT, check=False).returncode)
    for name in ("test",) if short else ("test", "test-all"):
        print(f"\nReached by make {name}")
        print_rooms(read_rooms(FOLDER / f"{name}.json"))
    print(f"\nNext: {sys.executable} -m coverage html shows every line")
    return FINDING if any(codes) else DONE


if __name__ == "__main__":
    run_command(main)
