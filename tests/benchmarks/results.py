"""Result files: what was measured, when, on what machine, by which command."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def write_result(name: str, command: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows of figures with the circumstances they were measured under."""
    result = {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "rows": list(rows),
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def render_result(name: str) -> str:
    """A result file as a Markdown table with a line that says where its figures come from."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    columns = list(result["rows"][0])
    lines = [columns, ["---"] * len(columns), *([str(row[column]) for column in columns] for row in result["rows"])]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\nMeasured by `{result['command']}` on {result['date']}, {result['machine']}."
