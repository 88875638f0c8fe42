"""How often the drift alarm is false, and how soon it comes, on simulated windows; beside it Evidently's defaults.

    python -m tests.benchmarks.drift_alarm [--windows N] [--repetitions N] [--references N] [--reports N] [--seed N]

A reference is a model of its own, fitted on wines of the twin; its windows are other wines of the twin, answered by
it and checked by the functions that watch the log. Undrifted windows follow each other, a quarter of their answers
graded; at each from the third on it is asked whether there is an alarm. In a repetition a drift begins after three
of them, and the windows from there to the alarm are counted, up to ten.

A shift is of each measurement in turn, and nothing is graded, so that it is found in the wines and the answers and
not in what tasters say. Evidently's DataDriftPreset compares the measurements and the colour of some of the same
windows with the wines that the model learned from; it judges each window by itself.

19 minutes on two busy cores. Goes to results/drift_alarm.json.
"""

import argparse
import os
import sys

from commands import DONE, BadInputError, run_command
from tests.benchmarks.results import render_result, write_result


def parse_arguments() -> tuple[dict[str, int], int]:
    """The command's arguments: what to simulate, and in how many processes."""
    parser = argparse.ArgumentParser(
        description="False alarms and detection delay of the drift alarm on simulated windows of 200, 1,000 and 5,000 "
        "wines, and what Evidently's defaults say of some of them."
    )
    parser.add_argument("--windows", type=int, default=1000, help="looks at undrifted windows, for each size (1000)")
    parser.add_argument("--repetitions", type=int, default=110, help="of each drift, for each size (110)")
    parser.add_argument("--references", type=int, default=20, help="models that share them (20)")
    parser.add_argument(
        "--reports",
        type=int,
        default=44,
        help="least windows without drift for Evidently; a quarter of each drift (44)",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides all wines (0)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at once (one a core)")
    arguments = vars(parser.parse_args())
    for name, value in arguments.items():
        if value < (name not in ("seed", "reports")):
            raise BadInputError(f"--{name} {value} makes no sense")
    processes = arguments.pop("processes")
    return arguments, processes


def main() -> int:
    """Simulate, print and write."""
    plan, processes = parse_arguments()

    from tests.benchmarks.drift_study import Plan, list_rows, run_plan

    rows = list_rows(run_plan(Plan(**plan), processes))
    path = write_result("drift_alarm", " ".join(["python -m tests.benchmarks.drift_alarm", *sys.argv[1:]]), rows)
    print(f"{render_result('drift_alarm')}\n\nWritten to {path.name}. Next: copy the table into docs/benchmarks.md")
    return DONE


if __name__ == "__main__":
    run_command(main)
