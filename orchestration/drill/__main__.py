"""Run the whole MLOps loop once, from normal traffic to a rollback, with real servers.

    python -m orchestration.drill     (make drill)

It has its own tracking store, Prefect server, worker, API and prediction log in a temporary folder, and does not change
yours. The wines come from the twin. The drift is a hot vintage: alcohol rises, and tasters give two grades less to a
wine with more alcohol than nearly all earlier ones (monitoring/simulate/drifts.py).
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from commands import DONE, FINDING, NotThereError, run_command
from orchestration.drill.surroundings import move_ports, run_services
from settings import load_settings, move_paths

WINDOW, FOLDS = 400, 2


def main() -> int:
    """Run the drill, draw it, and report whether every step had the expected result."""
    parser = argparse.ArgumentParser(
        description="Run the whole loop once, on its own servers: drift, alarm, retraining, gate, reload and rollback. "
        "It takes some minutes. Exit code: 1 if a step had an unexpected result."
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep all files there; the folder must not exist")
    arguments = parser.parse_args()
    picture = load_settings().monitoring_reports / "drill.png"
    console = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its servers stop too
    if arguments.keep and arguments.keep.exists():
        raise NotThereError(f"{arguments.keep} exists already: choose a new folder")
    with tempfile.TemporaryDirectory(prefix="wine-drill-") as name:
        folder = Path(name)
        small = {"WINE_DATA": "twin", "WINE_FOLDS": str(FOLDS), "WINE_WINDOW_ROWS": str(WINDOW)}
        environment = move_paths(folder) | move_ports() | small
        # This process uses the drill's stores too, so set them before it imports Prefect.
        os.environ.update(environment | {"PREFECT_LOGGING_LEVEL": "CRITICAL"})
        try:
            with run_services(environment, folder / "drill.log") as (server, worker):
                from orchestration.drill.steps import Drill, plot_drill, run_drill

                drill = Drill(folder, console)
                run_drill(drill, server, worker)
                plot_drill(drill, picture)
        finally:
            if arguments.keep:
                shutil.copytree(name, arguments.keep)
    console.print(
        f"{'Done' if not drill.missed else 'Not as it should be: ' + '; '.join(drill.missed)}. The story: {picture}"
    )
    console.print("Next: open that figure; make monitor shows your own API in the same way")
    return FINDING if drill.missed else DONE


if __name__ == "__main__":
    run_command(main)
