"""What every benchmark does: read its arguments, time some work, write a result file and print it as a table."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from subprocess import run
from typing import Any

from commands import DONE
from settings import ROOT

RESULTS = Path(__file__).with_name("results")
REPEATED = "repeated grouped cv"
COMMIT = ("git", "rev-parse", "--short", "HEAD")


def parse_arguments(doc: str | None, *folders: str, **numbers: int | list[int]) -> argparse.Namespace:
    """Read folders and whole numbers, or lists of them; the benchmark's docstring is its help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in folders:
        parser.add_argument(name, type=Path)
    for name, default in numbers.items():
        several = "+" if isinstance(default, list) else None
        parser.add_argument(f"--{name}", type=int, nargs=several, default=default)
    return parser.parse_args()


def time_work(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def make_row(figure: str, goal: str, measured: str) -> dict[str, str]:
    """A row of most tables; "" for no goal."""
    return {"figure": figure, "goal": goal, "measured": measured}


def publish_result(name: str, command: str, rows: Sequence[dict[str, Any]]) -> int:
    """Write a result file and print its table; returns the exit code."""
    old = render_result(name) if (RESULTS / f"{name}.json").exists() else ""
    path = write_result(name, f"python -m tests.benchmarks.{command}", rows)
    shown = replace_table(old, render_result(name)) if old else []
    next_step = "git diff shows what has changed" if shown else "copy the table into the page that is to show it"
    print(f"{render_result(name)}\n\nWritten to {', '.join([path.name, *shown])}. Next: {next_step}")
    return DONE


def replace_table(old: str, new: str) -> list[str]:
    """Put a new table in the place of the old one, in every page that shows it; return the names of the pages."""
    pages = [page for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")] if old in page.read_text()]
    for page in pages:
        page.write_text(page.read_text().replace(old, new))
    return [page.name for page in pages]


def write_result(name: str, command: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows of figures with the circumstances they were measured under."""
    result = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": run(COMMIT, capture_output=True, text=True, check=False).stdout.strip() or "unknown",
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "rows": list(rows),
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def read_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a result file; none where there is no file yet."""
    path = RESULTS / f"{name}.json"
    return list(json.loads(path.read_text())["rows"]) if path.exists() else []


def render_result(name: str) -> str:
    """A result file as a Markdown table with a line that says where its figures come from."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    columns = list(result["rows"][0])
    lines = [columns, ["---"] * len(columns), *([str(row[column]) for column in columns] for row in result["rows"])]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nMeasured by `{result['command']}` on {result['date']}, {result['machine']}."


def render_number_to_beat() -> str:
    """The scores that no holdout wine has a part in, as a Markdown table: repeated grouped cv, the best RMSE first."""
    result = json.loads((RESULTS / "search_quality.json").read_text())
    values = {row["figure"]: row["measured"].split()[0] for row in result["rows"]}
    lines = []
    for figure, rmse in values.items():
        if name := figure.partition(f"{REPEATED}: RMSE of ")[2]:
            kappa, accuracy = (values[f"{REPEATED}: {measure} of {name}"] for measure in ("kappa", "accuracy"))
            lines.append((rmse, f"| {name} | {rmse} | {kappa} | {accuracy} |"))
    table = [
        "| model | RMSE | kappa | accuracy |",
        "| --- | ---: | ---: | ---: |",
        *(line for _, line in sorted(lines)),
    ]
    at = f" at commit {result['commit']}" if "commit" in result else ""
    return "\n".join(table) + f"\n\nMeasured by `{result['command']}` on {result['date']}{at}, {result['machine']}."
