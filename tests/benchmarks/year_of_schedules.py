"""A year of schedules in minutes: the size of every store, month by month, with a tidying at the end of each week.

    python -m tests.benchmarks.year_of_schedules [--weeks 52] [--looks 28]

Each week two models are trained on wines that no other week has, the gate judges one, and monitoring looks so often.
Every thirteenth week a person promotes the version that was trained. Models, wines and reports are small. At the end
the champions are brought back one after the other, each from the registry and as the bundle that serves.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from commands import FINDING, run_command
from experiment_tracking.registry.promotion import list_champions, roll_back
from experiment_tracking.registry.versions import find_version, list_versions, load_version
from experiment_tracking.tidy.piece import measure_folder
from experiment_tracking.tidy.tidying import Inventory, count, take_inventory
from tests.benchmarks.results import parse_arguments, publish_result
from tests.benchmarks.year_study import Schedule
from wine_quality_training.bundle.bundle import load_current

MONTH, QUARTER = 4, 13  # weeks
STORES = ("runs in MLflow", "reports in MLflow", "reports", "kept wines", "bundles")


def describe_month(schedule: Schedule, removed: Sequence[Inventory]) -> dict[str, str]:
    """What every store has after the last tidying."""
    there = {store: (number, size) for store, number, size, *_ in take_inventory(schedule.settings).rows()}
    database = Path(schedule.settings.mlflow_uri.removeprefix("sqlite:///")).stat().st_size
    return {
        "week": str(schedule.weeks),
        "versions; champions so far": f"{len(list_versions())}; {len(list_champions())}",
        "MLflow's database": name_megabytes(database),
        **{store: f"{there[store][0]}: {name_megabytes(there[store][1])}" for store in STORES},
        "removed so far": name_megabytes(sum(count(each.pieces)[3] for each in removed)),
    }


def name_megabytes(size: int) -> str:
    """Bytes as in the table."""
    return f"{size / 1e6:.1f} MB"


def roll_back_all(schedule: Schedule) -> bool:
    """Bring back every champion, the latest first, and say whether each could be loaded and served."""
    champions = list_champions()
    for number in [champions[-1], *(roll_back(schedule.settings.serving_models)[0].number for _ in champions[1:])]:
        load_version(find_version(number))
    return load_current(schedule.settings.serving_models).metadata.version == champions[0]


def main() -> int:
    """Let a year pass, and publish what the stores had each month."""
    arguments = parse_arguments(__doc__, weeks=52, looks=28)
    with tempfile.TemporaryDirectory() as folder:
        schedule = Schedule.find(Path(folder), keep_days=90, keep_reports=50)
        schedule.looks = arguments.looks
        removed, rows = [], []
        for inventory in schedule.run(arguments.weeks, QUARTER):
            removed.append(inventory)
            if schedule.weeks % MONTH == 0:
                rows.append(describe_month(schedule, removed))
                print(f"week {schedule.weeks}: {measure_folder(Path(folder)) / 1e6:.1f} MB", file=sys.stderr)
        sound = roll_back_all(schedule)
    print(f"every champion could be brought back: {sound}")
    command = f"year_of_schedules --weeks {arguments.weeks} --looks {arguments.looks}"
    return publish_result("year_of_schedules", command, rows) or (0 if sound else FINDING)


if __name__ == "__main__":
    run_command(main)
