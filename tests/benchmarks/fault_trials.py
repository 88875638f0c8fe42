"""Break the API at random moments under load, again and again, and count what is wrong or lost.

    python -m tests.benchmarks.fault_trials     (--tries N, default 20; --seed S)

Each try has a server of its own with two processes, four clients that ask without a pause, and one fault. It has
recovered when ten requests in a row, on connections of their own, are answered. Exit code 1: an answer was wrong.
"""

import tempfile
from pathlib import Path

from commands import DONE, FINDING, run_command
from tests.benchmarks.results import parse_arguments, publish_result


def main() -> int:
    """Try every fault and write the table."""
    arguments = parse_arguments(__doc__, tries=20, seed=0)

    from tests.benchmarks.fault_study import FAULTS, make_row, try_fault
    from tests.benchmarks.traffic import make_bundles

    rows, wrong = [], 0
    with tempfile.TemporaryDirectory(prefix="wine-bundles-") as folder:
        bundles = Path(folder) / "models"
        table = make_bundles(bundles)
        for fault in FAULTS:
            outcomes = [try_fault(fault, bundles, table, arguments.seed + number) for number in range(arguments.tries)]
            rows.append(make_row(fault, outcomes))
            wrong += sum(one.wrong for one in outcomes)
            print(f"{fault}: {len(outcomes)} tries, {sum(one.wrong for one in outcomes)} wrong answers", flush=True)
    publish_result("fault_trials", f"fault_trials --tries {arguments.tries}", rows)
    return FINDING if wrong else DONE


if __name__ == "__main__":
    run_command(main)
