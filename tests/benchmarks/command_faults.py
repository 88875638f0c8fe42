"""Training, search and promotion killed at random moments beside a running API, and done again."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from subprocess import DEVNULL, TimeoutExpired

from experiment_tracking.registry.versions import find_champion
from tests.benchmarks.fault_server import Server
from tests.benchmarks.results import time_work
from tests.benchmarks.server_faults import Fault
from tests.faults import run_alone
from tests.folders import isolated_environment
from tests.processes import run_module, start_python
from tests.test_faults import make_template, open_here
from wine_quality_training.bundle.bundle import load_bundle, load_current

BEFORE = "2"  # the champion
FIRST_THIRD = 0.3  # of the time a command takes, in which it imports: nobody is killed there
SECONDS = 600.0
PAUSE = 0.1

PROMOTION = ("experiment_tracking.registry", "promote", "3", "--reason", "a trial")
SEARCH = ("experiment_tracking.search", "--trials", "8", "--workers", "2", "--task", "regressor")
TRAINING = ("orchestration.flows", "--models", "ExtraTreesClassifier")


@contextmanager
def live_with_store(server: Server) -> Iterator[None]:
    """Give the server's folder a store: the champions 1 and 2, version 3, few wines."""
    store = find_store(server)
    if not store.exists():
        make_template(store)
    shutil.copytree(store, server.folder, dirs_exist_ok=True)
    yield


def find_store(server: Server) -> Path:
    return server.bundles.with_name("store")


def describe_place(folder: Path) -> dict[str, str]:
    return isolated_environment(folder) | {"WINE_DATA": str(folder / "wines"), "WINE_FOLDS": "2"}


@cache
def measure_seconds(store: Path, command: tuple[str, ...]) -> float:
    """How long a command takes that nobody disturbs."""
    with tempfile.TemporaryDirectory(prefix="wine-undisturbed-") as folder:
        place = Path(shutil.copytree(store, Path(folder) / "store"))
        module, *arguments = command
        return time_work(lambda: run_module(module, describe_place(place), *arguments, seconds=SECONDS))


def read_champion(folder: Path) -> tuple[str, str]:
    """The version that the alias names, and the one that serves, after a look at every bundle."""
    models = folder / "deployment" / "models"
    for bundle in models.glob("[0-9]*"):
        load_bundle(bundle)
    open_here(folder)
    champion = find_champion()
    return champion.number if champion else "", load_current(models).metadata.version


def kill_command(server: Server, command: tuple[str, ...], *again: str) -> str:
    """Kill a command and all that it started at a random moment, and let the same command do the rest."""
    module, *arguments = command
    moment = measure_seconds(find_store(server), command) * server.random.uniform(FIRST_THIRD, 1)
    silence = {"stdout": DEVNULL, "stderr": DEVNULL, "start_new_session": True}
    process = start_python("-m", module, *arguments, env=describe_place(server.folder), **silence)
    with suppress(TimeoutExpired):
        process.wait(moment)
    server.broken = time.monotonic()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return finish_command(server, command, *again)


def finish_command(server: Server, command: tuple[str, ...], *again: str) -> str:
    """See that what a disturbed command left is whole, and that the same command does the rest."""
    module, *arguments = command
    left = run_alone(read_champion, server.folder)
    for added in (again, ()):  # the second where nothing was left to go on with
        done = run_module(module, describe_place(server.folder), *arguments, *added, seconds=SECONDS)
        if done.returncode in (0, 1):
            break
    assert done.returncode in (0, 1), done.stdout + done.stderr
    alias, served = run_alone(read_champion, server.folder)
    assert alias == served, f"the alias names {alias}, and {served} serves"
    assert set(left) <= {BEFORE, served}, f"after the fault the alias and what served were {left}"
    return f"a run that is not over, until the same command {'with ' + added[0] if added else 'again'} does the rest"


COMMAND_FAULTS = {
    "kill -9 of a promotion": Fault(lambda server: kill_command(server, PROMOTION), live_with_store, PAUSE, True),
    "kill -9 of a search": Fault(lambda server: kill_command(server, SEARCH, "--resume"), live_with_store, PAUSE, True),
    "kill -9 of a training": Fault(lambda server: kill_command(server, TRAINING), live_with_store, PAUSE, True),
}
