"""The gate of the load test: its results, its faults and locust's exit code."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commands import DONE, FINDING

if TYPE_CHECKING:  # importing locust patches much of the standard library
    from locust.env import Environment
    from locust.stats import StatsEntry

LINES, FAULTS = "lines.json", "unexpected.json"  # beside the report
MOST_FAULTS, MOST_LETTERS = 10, 160  # printed


@dataclass(frozen=True)
class Line:
    """The results for one kind of request; times in milliseconds, rate in requests per second."""

    name: str
    requests: int
    failures: int
    p50: float
    p95: float
    p99: float
    rate: float


@dataclass(frozen=True)
class Fault:
    """An unexpected response, how often it occurred, and the first request that got it."""

    name: str
    fault: str
    times: int
    asked: str = ""
    answered: str = ""


Examples = Mapping[tuple[str, str], Mapping[str, str]]


def judge_run(environment: "Environment", examples: Examples, target: float) -> None:
    """Print and write the results, and set locust's exit code: FINDING if the test fails.

    Args:
        environment: locust's, at the end of a run.
        examples: by name and fault, a request and its response.
        target: highest 95th percentile of the response times, in milliseconds.
    """
    assert environment.parsed_options is not None
    folder = Path(environment.parsed_options.json_file).parent
    entries = sorted(environment.stats.entries.values(), key=lambda entry: (entry.method, entry.name))
    total = measure("all", environment.stats.total)
    lines = [*(measure(f"{entry.method} {entry.name}", entry) for entry in entries), total]
    faults = list_faults(environment, examples)
    for name, rows in ((LINES, lines), (FAULTS, faults)):
        (folder / name).write_text(json.dumps([asdict(row) for row in rows], indent=2))
    print(render_lines(lines))
    findings = find_findings(total, faults, target)
    for finding in findings:
        print(finding)
    if not findings:
        print(f"Every answer was correct; p95 is {total.p95:.1f} ms, the target {target:g} ms")
    environment.process_exit_code = FINDING if findings else DONE


def measure(name: str, entry: "StatsEntry") -> Line:
    """Convert locust's statistics to a line."""
    p50, p95, p99 = (entry.get_response_time_percentile(share) for share in (0.5, 0.95, 0.99))
    return Line(name, entry.num_requests, entry.num_failures, p50, p95, p99, entry.total_rps)


def list_faults(environment: "Environment", examples: Examples) -> list[Fault]:
    """The faults, most frequent first, including errors in the load test itself."""
    faults = []
    for error in environment.stats.errors.values():
        example = examples.get((error.name, str(error.error)), {})
        faults.append(Fault(error.name, str(error.error), error.occurrences, **example))
    if environment.runner is not None:
        for raised in environment.runner.exceptions.values():
            faults.append(Fault("the load test itself", raised["msg"], raised["count"], "", raised["traceback"]))
    return sorted(faults, key=lambda fault: -fault.times)


def render_lines(lines: Sequence[Line]) -> str:
    """Format the results as a text table."""
    width = max(len(line.name) for line in lines)
    header = f"{'':{width}}  requests  failures  p50 ms  p95 ms  p99 ms  per s"
    rows = [
        f"{line.name:{width}}  {line.requests:8,}  {line.failures:8,}  {line.p50:6.1f}  {line.p95:6.1f}  "
        f"{line.p99:6.1f}  {line.rate:5.1f}"
        for line in lines
    ]
    return "\n".join([header, *rows])


def find_findings(total: Line, faults: Sequence[Fault], target: float) -> list[str]:
    """The reasons why the test fails, with an example of each unexpected response; empty if it passes."""
    if not total.requests:
        return ["No request was answered in that time: see locust.log in the folder of the report"]
    findings = [
        f"Unexpected, {fault.times:,} times: {fault.name}: {fault.fault}"
        + (f"\n  asked     {_shorten(fault.asked)}" if fault.asked else "")
        + f"\n  answered  {_shorten(fault.answered) or 'nothing'}"
        for fault in faults[:MOST_FAULTS]
    ]
    if len(faults) > MOST_FAULTS:
        findings.append(f"and {len(faults) - MOST_FAULTS} more kinds: see {FAULTS} in the folder of the report")
    if total.p95 > target:
        findings.append(f"p95 is {total.p95:.1f} ms, over the target of {target:g} ms (WINE_LOAD_P95)")
    return findings


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
