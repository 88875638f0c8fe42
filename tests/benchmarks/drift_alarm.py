"""How often the drift alarm is false, and how soon it comes, on simulated windows; beside it Evidently's defaults.

    python -m tests.benchmarks.drift_alarm [--windows N] [--repetitions N] [--references N] [--reports N] [--seed N]
                                           [--processes N]

A reference is a model of its own, fitted on wines of the twin; its windows are other wines of the twin, answered by
it and checked by the functions that watch the log. --windows undrifted ones of each size follow each other, a quarter
of their answers graded, and as many whose requests are all for fifty wines; at each from the third on it is asked
whether there is an alarm. In each of --repetitions a drift begins after three of them, and the windows from there to
the alarm are counted, up to ten.

A shift is of each measurement in turn, and nothing is graded, so that it is found in the wines and the answers and
not in what tasters say. Evidently's DataDriftPreset compares the measurements and the colour of some of the same
windows (--reports of each size, and a quarter of that for each drift) with the wines that the model learned from; it
judges each window by itself.

About 35 minutes on two busy cores. Goes to results/drift_alarm.json.
"""

import os
import sys

from commands import BadInputError, run_command
from tests.benchmarks.results import parse_arguments, publish_result


def main() -> int:
    """Simulate, print and write."""
    amounts = {"windows": 1000, "repetitions": 110, "references": 20, "reports": 44, "seed": 0}
    plan = vars(parse_arguments(__doc__, **amounts, processes=os.cpu_count() or 1))
    for name, value in plan.items():
        if value < (name not in ("seed", "reports")):
            raise BadInputError(f"--{name} {value} is too small")
    processes = plan.pop("processes")

    from tests.benchmarks.drift_study import Plan, list_rows, run_plan

    rows = list_rows(run_plan(Plan(**plan), processes))
    return publish_result("drift_alarm", " ".join(["drift_alarm", *sys.argv[1:]]), rows)


if __name__ == "__main__":
    run_command(main)
