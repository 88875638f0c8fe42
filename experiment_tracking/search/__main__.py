"""Tune models on leak-free folds, with every trial in MLflow.

    python -m experiment_tracking.search [--trials N] [--minutes M] [--task regressor|classifier|both]
                                         [--protocol leak-free|as-published] [--workers N] [--resume]

The command scores the best of each family and a blend in grouped cross-validation, and writes the runs of the winner:
as a regressor, as a classifier, or both.
`--protocol as-published` runs the published search instead, whose objective is the validation file.
"""

import argparse
import gc
import os
import sys

from rich.console import Console

from commands import DONE, run_command
from experiment_tracking.search.space import BATCH, BOTH, TASKS, TRIALS, Plan
from settings import Settings, load_settings
from wine_data.sources.load import load_wines
from wine_quality_training.evaluate import LEAK_FREE, PROTOCOLS

OBJECTS = 200_000  # between two garbage collections; with Python's 700, the imports take 1.2 s longer
TURN = 1e-4  # seconds before Python switches threads; with 5e-3, a forest during the imports takes 2 s, not 0.3


def parse_plan(settings: Settings) -> Plan:
    """Make a plan from the command's arguments."""
    parser = argparse.ArgumentParser(
        description="Tune models on leak-free folds, with every trial in MLflow.",
        epilog="The result depends on the seed, not on the number of workers.",
    )
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"number of trials ({TRIALS})")
    parser.add_argument("--minutes", type=float, help="start no new trials after this time")
    parser.add_argument("--task", choices=[*TASKS, BOTH], default=BOTH, help="what to track of the winner (both)")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default=LEAK_FREE, help="protocol that scores the trials (leak-free)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trials in parallel (number of cores)")
    parser.add_argument(
        "--batch",
        type=int,
        default=BATCH,
        help=f"trials that TPE suggests at a time ({BATCH}), the most that run in parallel; it changes the result",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the last unfinished search with these arguments"
    )
    return Plan(**vars(parser.parse_args()), seed=settings.seed, dask=settings.dask)


def main() -> int:
    """Search, show progress, and print the tables and the next step."""
    gc.set_threshold(OBJECTS)
    sys.setswitchinterval(TURN)
    settings, console = load_settings(), Console(highlight=False, soft_wrap=True)
    plan = parse_plan(settings)
    data = load_wines(settings.data, settings.seed, settings.downloads, settings.uci_url, settings.wine_type)

    from experiment_tracking.search.finalists import open_runner
    from wine_data.split import split_wines

    split = split_wines(data.train, data.validation, settings.folds, settings.seed)
    console.print(data.introduce())
    with open_runner(plan, split) as runner:  # its first fits run during the import of MLflow
        from experiment_tracking.runs.store import open_store
        from experiment_tracking.search.selection import open_search, search_with

        experiment_id = open_store(settings.mlflow_uri, settings.mlflow_artifacts)
        search_with(runner, open_search(plan, data, split, experiment_id), plan, split, console)
    gc.freeze()  # else a last garbage collection takes 1 s
    return DONE


if __name__ == "__main__":
    run_command(main)
