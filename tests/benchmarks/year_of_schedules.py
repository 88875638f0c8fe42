"""A year of schedules in minutes: the size of every store, month by month, with a tidying at the end of each week.

    python -m tests.benchmarks.year_of_schedules [--weeks 52] [--looks 28]

Each week two models are trained on wines that no other week has, the gate judges one, and monitoring runs so often.
Every thirteenth week a person promotes the version that was trained. Models, wines and reports are small. At the end
the champions are brought back one after the other, each from the registry and as the bundle that serves. A Prefect
server has as many runs a week as monitoring looks.
"""

import os
import sys
import tempfile
from pathlib import Path

from commands import FINDING, run_command
from tests.benchmarks.results import parse_arguments, publish_result

MONTH, QUARTER = 4, 13  # weeks
KEEP_DAYS = 90


def main() -> int:
    """Let a year pass, and publish what the stores had each month."""
    arguments = parse_arguments(__doc__, weeks=52, looks=28)

    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "ERROR"  # read at import; the server keeps all lines

    from experiment_tracking.tidy.piece import measure_folder
    from experiment_tracking.tidy.tidying import name_size
    from tests.benchmarks.prefect_weeks import start_prefect
    from tests.benchmarks.year_study import Schedule, describe_month, roll_back_all

    with tempfile.TemporaryDirectory() as name:
        folder, empty = Path(name), Path(name) / "empty"
        empty.mkdir()
        schedule = Schedule.find(folder, keep_days=KEEP_DAYS, keep_reports=50)
        schedule.looks = arguments.looks
        removed, rows = [], []
        with start_prefect(folder / "prefect", empty, KEEP_DAYS) as prefect:
            for inventory in schedule.run(arguments.weeks, QUARTER):
                removed.append(inventory)
                prefect.pass_week()
                prefect.run(arguments.looks)
                if schedule.weeks % MONTH == 0:
                    runs = {"Prefect's runs": f"{prefect.count_rows()['flow_run']:,}: {name_size(prefect.measure())}"}
                    rows.append(describe_month(schedule, removed, runs))
                    print(f"week {schedule.weeks}: {name_size(measure_folder(folder))}", file=sys.stderr)
        sound = roll_back_all(schedule)
    print(f"every champion could be brought back: {sound}")
    command = f"year_of_schedules --weeks {arguments.weeks} --looks {arguments.looks}"
    return publish_result("year_of_schedules", command, rows) or (0 if sound else FINDING)


if __name__ == "__main__":
    run_command(main)
