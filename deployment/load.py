"""The load test: many users ask the API at once, and every answer is checked.

    make load       python -m deployment.load [--users N] [--rate N] [--seconds N]
    make load-ui    python -m deployment.load --ui [PORT]

It asks the API that `make serve` started, and leaves its reports in a new folder of WINE_LOAD_REPORTS. It ends
with 1 where an answer was not the right one, or where more than 5 % of them took longer than WINE_LOAD_P95:
locust judges that at its end (load_test/gate.py).
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
EVERYWHERE = {ANY_HOST: "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # what listens there answers here
UI_HOST, UI_PORT = "127.0.0.1", 8089
PATIENCE = 10  # seconds that answers may still take when the time is over


def find_address(host: str, port: int) -> str:
    """The address under which an API that listens on a host and a port is asked."""
    host = EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def require_api(address: str) -> None:
    """Raise NotThereError if nothing there speaks HTTP; whether its answers are right is for the test to find out."""
    try:
        httpx.get(address, headers={"Accept": "application/json"}, timeout=PATIENCE, trust_env=False)
    except httpx.HTTPError as error:
        raise NotThereError(
            f"nothing answers on {address} ({str(error) or type(error).__name__}): "
            "make serve, or WINE_PORT if it serves elsewhere"
        ) from error


def make_folder(reports: Path) -> Path:
    """Make a folder of its own for a run, named for the time."""
    folder = reports / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S.%fZ}"
    folder.mkdir(parents=True)
    return folder


def run_load(options: list[str], seconds: int, folder: Path) -> int:
    """Run the load test for so long, with its reports in a folder; return locust's exit code.

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
    if not is_measured and code != BAD_INPUT:  # of that locust has said what is wrong
        raise NotThereError(f"locust ended with {code} before it measured anything; see {folder / 'locust.log'}")
    return code


def read_lines(folder: Path) -> list[Line]:
    """What a run measured: a line each kind of request, and the last for all."""
    return [Line(**line) for line in json.loads((folder / LINES).read_text())]


def _run_locust(options: list[str]) -> tuple[int, bool]:
    """Run locust in a process of its own; return its exit code and whether ctrl-c ended it.

    In its own process, as gevent replaces much of the standard library, and in its own session, so that ctrl-c
    reaches it once, from here: it then writes its reports and ends.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # being ended is the same as ctrl-c
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
    address = find_address(settings.host, settings.port)
    require_api(address)
    options = [f"--host={address}", f"--users={given.users}", f"--spawn-rate={given.rate:g}"]
    if given.ui is not None:
        require_free_port(UI_HOST, given.ui, "choose another with --ui PORT")
        print(f"Locust: http://{UI_HOST}:{given.ui}, to load {address}", flush=True)
        print("Next: open it and press Start, or stop with ctrl-c", flush=True)
        page = [f"--web-host={UI_HOST}", f"--web-port={given.ui}", "--loglevel=WARNING"]
        code, interrupted = _run_locust([*options, *page])
        return DONE if interrupted else code
    print(f"{given.users} users ask {address} for {given.seconds} s:", end=" ")
    print("GET / once, wines twice, what is no wine three times", flush=True)
    return run_load(options, given.seconds, make_folder(settings.load_reports))


if __name__ == "__main__":
    run_command(main)
