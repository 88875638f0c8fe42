"""Break the API at random moments under load, again and again, and count what is wrong or lost.

    python -m tests.benchmarks.fault_trials     (--tries N, default 20; --seed S)

A server with two processes has four clients that ask without a pause. It has recovered when ten requests in a row, on
connections of their own, are answered. Where that takes over 30 s, a quarter of the tries is enough. What this machine
cannot break is left out, with the reason. Each fault's row is written as soon as it is there, those of an earlier run
stay till then. Exit code 1: an answer was wrong, or a server did not recover.
"""

import tempfile
from pathlib import Path

from commands import DONE, FINDING, run_command
from tests.benchmarks.results import parse_arguments, publish_result, read_rows


def try_all(name: str, faults: list[str], tries: int, seed: int) -> int:
    """Try each fault so often, and write the table under a name; return the exit code."""
    import pytest

    from tests.benchmarks.fault_study import make_row, try_fault
    from tests.benchmarks.traffic import make_bundles

    rows, bad = {row["trial"]: row for row in read_rows(name) if row["trial"] in faults}, 0
    with tempfile.TemporaryDirectory(prefix="wine-bundles-") as folder:
        bundles = Path(folder) / "models"
        table = make_bundles(bundles)
        for fault in faults:
            try:
                outcomes = try_fault(fault, bundles, table, seed, tries)
            except pytest.skip.Exception as missing:
                print(f"{fault}: not tried, because {missing}", flush=True)
                continue
            wrong, problems = sum(one.wrong for one in outcomes), [one.problem for one in outcomes if one.problem]
            bad += wrong + len(problems)
            print("\n".join([f"{fault}: {len(outcomes)} tries, {wrong} wrong answers", *problems]), flush=True)
            rows[fault] = make_row(fault, outcomes)
            publish_result(name, f"{name} --tries {tries}", [rows[each] for each in faults if each in rows])
    return FINDING if bad else DONE


def main() -> int:
    """Try every fault of the API, its log and its clock."""
    arguments = parse_arguments(__doc__, tries=20, seed=0)

    from tests.benchmarks.fault_study import API_FAULTS

    return try_all("fault_trials", list(API_FAULTS), arguments.tries, arguments.seed)


if __name__ == "__main__":
    run_command(main)
