"""The load test: many concurrent users send requests to the API, and every response is checked.

    make load       python -m deployment.load [--users N] [--rate N] [--seconds N]
    make load-ui    python -m deployment.load --ui [PORT]

It tests the API that `make serve` started, and writes its reports to a new folder in WINE_LOAD_REPORTS. It ends with 1
if a response was wrong, or if more than 5 % of them took longer than WINE_LOAD_P95 (load_test/gate.py).
"""

import argparse
import json
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx

from commands import BAD_INPUT, DONE, NotThereError, require_free_port, run_command
from deployment.load_test.gate import LINES, Line
from settings import ROOT, load_settings

LOCUSTFILE = Path(__file__).parent / "load_test" / "locustfile.py"
ANY_HOST = "0.0.0.0"  # nosec B104  # nothing here listens there
EVERYWHERE = {ANY_HOST: "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # how to reach a listener on all interfaces
UI_HOST, UI_PORT = "127.0.0.1", 8089
PATIENCE = 10  # seconds to wait for unfinished requests at the end


def find_address(host: str, port: int) -> str:
    """The address for requests to an API that listens on a host and port."""
    host = EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def require_api(address: str) -> None:
    """Raise NotThereError if no HTTP server responds; the test itself checks the responses."""
    try:
        httpx.get(address, headers={"Accept": "application/json"}, timeout=PATIENCE, trust_env=False)
    except httpx.HTTPError as error:
        raise NotThereError(
            f"nothing answers on {address} ({str(error) or type(error).__name__}): "
            "start make serve, or set WINE_PORT to its port"
        ) from error


def make_folder(reports: Path) -> Path:
    """Create a new folder for a run, named after the time."""
    folder = reports / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S.%fZ}"
    folder.mkdir(parents=True)
    return folder


def run_load(options: list[str], seconds: int, folder: Path) -> int:
    """Run the load test, with its reports in a folder; return locust's exit code.

    Raises:
        NotThereError: locust ended before it measured anything.
    """
    reports = {"logfile": "locust.log", "html": "report.html", "csv": "load", "json-file": "load"}
    options = [*options, "--headless", "--only-summary", f"--run-time={seconds}s", f"--stop-timeout={PATIENCE}"]
    code, interrupted = _run_locust([*options, *(f"--{name}={folder / file}" for name, file in reports.items())])
    is_measured = (folder / LINES).is_file()
    if is_measured:
        print(f"Report: {folder / 'report.html'}")
    if interrupted:
        raise KeyboardInterrupt
    if not is_measured and code != BAD_INPUT:  # then locust has printed the reason
        raise NotThereError(f"locust ended with {code} before it measured anything; see {folder / 'locust.log'}")
    return code


def read_lines(folder: Path) -> list[Line]:
    """The results of a run: one line for each kind of request, the last for all."""
    return [Line(**line) for line in json.loads((folder / LINES).read_text())]


def _run_locust(options: list[str]) -> tuple[int, bool]:
    """Run locust in a child process; return its exit code and whether Ctrl-C ended it.

    It needs its own process, as gevent patches much of the standard library, and its own session, so that it gets
    Ctrl-C only once, from here. It then writes its reports and ends.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM has the effect of Ctrl-C
    command = [sys.executable, "-m", "locust", f"--locustfile={LOCUSTFILE}", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
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
    """Run the load test, or serve locust's page."""
    settings = load_settings()
    parser = argparse.ArgumentParser(
        description="Send requests to the API of make serve and check every answer. WINE_LOAD_* set the defaults."
    )
    parser.add_argument("--users", type=int, default=settings.load_users, help="number of users (%(default)s)")
    parser.add_argument(
        "--rate", type=float, default=settings.load_rate, help="users that start each second (%(default)g)"
    )
    parser.add_argument("--seconds", type=int, default=settings.load_seconds, help="length of the test (%(default)s)")
    parser.add_argument(
        "--ui",
        type=int,
        nargs="?",
        const=UI_PORT,
        metavar="PORT",
        help=f"open locust's page instead, on port {UI_PORT}",
    )
    given = parser.parse_args()
    for name in ("users", "rate", "seconds"):
        if getattr(given, name) <= 0:
            parser.error(f"argument --{name}: {getattr(given, name):g} is not above 0")
    address = find_address(settings.host, settings.port)
    require_api(address)
    options = [f"--host={address}", f"--users={given.users}", f"--spawn-rate={given.rate:g}"]
    if given.ui is not None:
        require_free_port(UI_HOST, given.ui, "choose another with --ui PORT")
        print(f"Locust: http://{UI_HOST}:{given.ui}, for {address}", flush=True)
        print("Next: open it and press Start, or stop with ctrl-c", flush=True)
        page = [f"--web-host={UI_HOST}", f"--web-port={given.ui}", "--loglevel=WARNING"]
        code, interrupted = _run_locust([*options, *page])
        return DONE if interrupted else code
    print(f"{given.users} users send requests to {address} for {given.seconds} s;", end=" ")
    print("of six, one is for /, two are valid wines, three are invalid", flush=True)
    return run_load(options, given.seconds, make_folder(settings.load_reports))


if __name__ == "__main__":
    run_command(main)
