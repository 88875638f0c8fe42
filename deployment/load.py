"""The load test: many users ask the API at once, and every answer is looked at.

    make load       python -m deployment.load [--users N] [--rate N] [--seconds N]
    make load-ui    python -m deployment.load --ui [PORT]

It asks the API that `make serve` started, and leaves its reports in a new folder of WINE_LOAD_REPORTS. It ends
with 1 where an answer was not the right one, or where more than 5 % of them took longer than WINE_LOAD_P95.
"""

import argparse
import csv
import itertools
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from commands import BAD_INPUT, DONE, FINDING, NotThereError, RefusedError, require_free_port, run_command
from settings import ROOT, Settings, load_settings

LOCUSTFILE = Path(__file__).parent / "load_test" / "locustfile.py"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # what listens there answers here
UI_HOST, UI_PORT = "127.0.0.1", 8089
PATIENCE = 10  # seconds that answers may still take when the time is over
FAULTS_TOLD = 10


@dataclass(frozen=True)
class Line:
    """What was measured of one kind of question; times in milliseconds, rate in requests a second."""

    name: str
    requests: int
    failures: int
    p50: float
    p95: float
    p99: float
    rate: float


@dataclass(frozen=True)
class Fault:
    """An unexpected answer, how often it came, and the first question that it came to."""

    name: str
    fault: str
    times: int
    asked: str
    answered: str


def find_address(host: str, port: int) -> str:
    """The address under which an API that listens on a host and a port is asked."""
    host = EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def require_api(host: str, port: int) -> None:
    """Raise NotThereError if nothing there speaks HTTP; whether it speaks well is for the test to find out."""
    connection = HTTPConnection(EVERYWHERE.get(host, host), port, timeout=PATIENCE)
    try:
        connection.request("GET", "/", headers={"Accept": "application/json"})
        connection.getresponse().read()
    except (OSError, HTTPException) as error:
        raise NotThereError(
            f"nothing answers on {find_address(host, port)} ({str(error) or type(error).__name__}): "
            "make serve, or WINE_PORT if it serves elsewhere"
        ) from error
    finally:
        connection.close()


def run_load(settings: Settings, users: int, rate: float, seconds: int) -> int:
    """Ask the API for a while, print what was measured, and return the exit code."""
    require_api(settings.host, settings.port)
    address, folder = find_address(settings.host, settings.port), make_folder(settings.load_reports)
    print(
        f"{users} users ask {address} for {seconds} s: GET / once, wines twice, what is no wine three times", flush=True
    )
    options = f"--users {users} --spawn-rate {rate:g} --run-time {seconds}s --stop-timeout {PATIENCE}"
    reports = {"logfile": "locust.log", "html": "report.html", "csv": "load", "json-file": "load"}
    code, interrupted = _run_locust(
        "--headless",
        "--only-summary",
        f"--host={address}",
        *options.split(),
        *(f"--{option}={folder / name}" for option, name in reports.items()),
    )
    if not (folder / "load.json").is_file():
        return _tell_early_end(code, interrupted, folder)
    lines, faults = read_lines(folder), read_faults(folder)
    print(render_lines(lines))
    findings = find_findings(lines[-1], faults, settings.load_p95)
    for finding in findings:
        print(finding)
    if not findings:
        print(f"Every answer was the right one; p95 is {lines[-1].p95:.1f} ms, the target {settings.load_p95:g} ms")
    print(f"Report: {folder / 'report.html'}")
    if interrupted:
        raise KeyboardInterrupt
    return FINDING if findings else DONE


def _tell_early_end(code: int, interrupted: bool, folder: Path) -> int:
    """Return or raise what locust's end before any measurement means."""
    if interrupted:
        raise KeyboardInterrupt
    if code == BAD_INPUT:  # it has said what is wrong
        return BAD_INPUT
    raise NotThereError(f"locust ended with {code} before it measured anything; see {folder / 'locust.log'}")


def run_ui(settings: Settings, users: int, rate: float, port: int) -> int:
    """Serve locust's page, on which a person starts and stops the users, until stopped with ctrl-c."""
    require_api(settings.host, settings.port)
    require_free_port(UI_HOST, port, "say --ui PORT")
    print(f"Locust: http://{UI_HOST}:{port}, to load {find_address(settings.host, settings.port)}", flush=True)
    print("Next: open it and press Start, or stop with ctrl-c", flush=True)
    code, interrupted = _run_locust(
        "--host",
        find_address(settings.host, settings.port),
        "--users",
        str(users),
        "--spawn-rate",
        f"{rate:g}",
        "--web-host",
        UI_HOST,
        "--web-port",
        str(port),
        "--loglevel",
        "WARNING",
    )
    return DONE if interrupted else code


def make_folder(reports: Path) -> Path:
    """Make a folder named for the time, that no earlier run has used."""
    name = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}"
    for number in itertools.count(1):
        folder = reports / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError


def read_lines(folder: Path) -> list[Line]:
    """Read what locust measured, a line each kind of question and the last for all.

    Raises:
        RefusedError: no question was answered.
    """
    entries = json.loads((folder / "load.json").read_text())
    if not entries:
        raise RefusedError(f"no question was answered in that time; see {folder / 'locust.log'}")
    entries.sort(key=lambda entry: (entry["method"], entry["name"]))
    return [_measure(f"{entry['method']} {entry['name']}", [entry]) for entry in entries] + [_measure("all", entries)]


def _measure(name: str, entries: Sequence[dict[str, Any]]) -> Line:
    times = sorted((float(time), count) for entry in entries for time, count in entry["response_times"].items())
    requests, failures = (sum(entry[key] for entry in entries) for key in ("num_requests", "num_failures"))
    start = min(entry["start_time"] for entry in entries)
    seconds = max(entry["last_request_timestamp"] for entry in entries) - start
    p50, p95, p99 = (find_percentile(times, share) for share in (0.5, 0.95, 0.99))
    return Line(name, requests, failures, p50, p95, p99, requests / max(seconds, 1.0))


def find_percentile(times: Iterable[tuple[float, int]], share: float) -> float:
    """The shortest time within which this share of the answers came, of sorted times and how often each was taken."""
    times = list(times)
    wanted, seen = math.ceil(share * sum(count for _, count in times)), 0
    for time, count in times:
        seen += count
        if seen >= wanted:
            return time
    return math.nan


def read_faults(folder: Path) -> list[Fault]:
    """Read what was unexpected, the most frequent first; a fault of the load test itself is one."""
    faults = [Fault(**fault) for fault in json.loads((folder / "unexpected.json").read_text())]
    with (folder / "load_exceptions.csv").open(newline="") as file:
        faults += [
            Fault("the load test itself", row["Message"], int(row["Count"]), "", row["Traceback"])
            for row in csv.DictReader(file)
        ]
    return sorted(faults, key=lambda fault: -fault.times)


def render_lines(lines: Sequence[Line]) -> str:
    """Lay what was measured out as a table of text."""
    width = max(len(line.name) for line in lines)
    header = f"{'':{width}}  requests  failures  p50 ms  p95 ms  p99 ms  per s"
    return "\n".join(
        [header]
        + [
            f"{line.name:{width}}  {line.requests:8,}  {line.failures:8,}  {line.p50:6.1f}  {line.p95:6.1f}  "
            f"{line.p99:6.1f}  {line.rate:5.1f}"
            for line in lines
        ]
    )


def find_findings(every: Line, faults: Sequence[Fault], target: float) -> list[str]:
    """Say what makes the test fail, with an example of each unexpected answer; nothing where it passes."""
    findings = [
        f"Unexpected, {fault.times:,} times: {fault.name}: {fault.fault}"
        + (f"\n  asked     {_shorten(fault.asked)}" if fault.asked else "")
        + f"\n  answered  {_shorten(fault.answered) or 'nothing'}"
        for fault in faults[:FAULTS_TOLD]
    ]
    if len(faults) > FAULTS_TOLD:
        findings.append(f"and {len(faults) - FAULTS_TOLD} more kinds, in unexpected.json beside the report")
    if every.p95 > target:
        findings.append(f"p95 is {every.p95:.1f} ms, over the target of {target:g} ms (WINE_LOAD_P95)")
    return findings


def _shorten(text: str, length: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _run_locust(*arguments: str) -> tuple[int, bool]:
    """Run locust in a process of its own; return its exit code and whether ctrl-c ended it.

    In its own process, as gevent replaces much of the standard library, and in its own session, so that ctrl-c
    reaches it once, from here: it then writes its reports and ends.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # being ended is the same as ctrl-c
    process = subprocess.Popen(
        [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(), False
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2 * PATIENCE)
        return process.poll() or DONE, True
    finally:
        process.kill()


def main() -> int:
    """Load the API, or serve the page on which a person does."""
    settings = load_settings()
    parser = argparse.ArgumentParser(
        description="Load the API of make serve and check every answer. WINE_LOAD_* hold the defaults."
    )
    parser.add_argument("--users", type=int, default=settings.load_users, help="users at once (%(default)s)")
    parser.add_argument("--rate", type=float, default=settings.load_rate, help="users started a second (%(default)g)")
    parser.add_argument("--seconds", type=int, default=settings.load_seconds, help="length of the test (%(default)s)")
    parser.add_argument(
        "--ui", type=int, nargs="?", const=UI_PORT, metavar="PORT", help=f"locust's page instead, on port {UI_PORT}"
    )
    given = parser.parse_args()
    for name in ("users", "rate", "seconds"):
        if getattr(given, name) <= 0:
            parser.error(f"argument --{name}: {getattr(given, name):g} is not above 0")
    if given.ui is not None:
        return run_ui(settings, given.users, given.rate, given.ui)
    return run_load(settings, given.users, given.rate, given.seconds)


if __name__ == "__main__":
    run_command(main)
