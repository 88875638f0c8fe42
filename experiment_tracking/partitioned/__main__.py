"""Fit XGBoost on wines in many files, which need not fit into one machine's memory.

    python -m experiment_tracking.partitioned FOLDER

Each file is a partition. The workers of a Dask cluster (WINE_DASK, or processes of this machine) fit on all of them
together. The result is a run with the model and its holdout score, which can be registered.
"""

import argparse
from pathlib import Path

from rich.console import Console

from commands import DONE, BadInputError, run_command
from executors import LOCAL, open_cluster
from experiment_tracking.search.space import ROUNDS
from settings import load_settings


def main() -> int:
    """Read, fit, score, track, and print the next step."""
    parser = argparse.ArgumentParser(description="Fit XGBoost on wines in many files, on a Dask cluster.")
    parser.add_argument("folder", type=Path, help="folder of CSV or Parquet files, each a partition")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"the most rounds of XGBoost ({ROUNDS})")
    arguments = parser.parse_args()
    settings, console = load_settings(), Console(highlight=False, soft_wrap=True)
    if arguments.rounds < 1:
        raise BadInputError("--rounds must be more than 0")

    from experiment_tracking.partitioned.boosting import evaluate_partitions, fit_partitions
    from experiment_tracking.runs.store import open_store
    from experiment_tracking.runs.tracking import track_model
    from wine_data.sources.partitions import read_partitions
    from wine_quality_training.report.tables import list_scores, tabulate_scores

    with console.status("Starting") as status, open_cluster(settings.dask or LOCAL) as client:
        status.update(f"Reading the files of {arguments.folder}")
        partitions = read_partitions(arguments.folder, client.get_executor(pure=False).map)
        console.print(f"Wines from {partitions.source}, fingerprint {partitions.fingerprint[:12]}")
        status.update(f"Fitting on {len(client.scheduler_info()['workers'])} workers")
        pipeline, scored = fit_partitions(partitions, client, settings.seed, arguments.rounds)
    evaluation = evaluate_partitions(pipeline, scored)
    experiment_id = open_store(settings.mlflow_uri, settings.mlflow_artifacts)
    tracked = track_model(experiment_id, None, partitions, partitions.sample, [evaluation])
    console.print(*tabulate_scores(list_scores([evaluation])), sep="\n")
    console.print(f"Next: python -m experiment_tracking.registry register {tracked.run_id}")
    return DONE


if __name__ == "__main__":
    run_command(main)
