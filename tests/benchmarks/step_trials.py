"""Let every step of seven operations fail once, in three ways, and see what each failure leaves.

    python -m tests.benchmarks.step_trials     (--workers N, default 2)

A step opens, replaces, renames or flushes a file, or commits to a database. It fails as an error once, as an error from
then on, or as the end of the process. An operation has recovered if the served model is whole, and the same command
finishes, or says what to do. This takes up to an hour. Exit code 1: an operation has not recovered, or a step has not
failed in each of the ways.
"""

import tempfile
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from commands import DONE, FINDING, run_command
from tests.benchmarks.results import parse_arguments, publish_result

BAD = "not recovered"


def try_all_steps(folder: Path, workers: int) -> tuple[list[dict[str, Any]], bool]:
    """Try every step in copies of one store; return a row for each operation, and whether all went well."""
    from rich.console import Console
    from rich.progress import track

    from tests.faults import ALWAYS, EXIT, ONCE, WAYS
    from tests.test_faults import OPERATIONS, count_steps, make_template, try_step

    columns = {ONCE: "an error once", ALWAYS: "errors from then on", EXIT: "end of the process", BAD: BAD}
    counts = Counter[tuple[str, str]]()
    template = make_template(folder / "template")
    steps = {operation: count_steps(template, folder / operation, operation) for operation in OPERATIONS}
    places = [(each, step, way) for each in OPERATIONS for step in range(1, steps[each] + 1) for way in WAYS]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:  # each process has its own server to fork from
        tries = {pool.submit(try_step, template, folder / "{} {} {}".format(*place), *place): place for place in places}
        for tried in track(as_completed(tries), "Steps", total=len(tries), console=Console(stderr=True)):
            operation, step, way = tries[tried]
            try:
                counts[operation, way] += tried.result()
            except Exception:
                counts[operation, BAD] += 1
                print(f"{operation}, step {step}, {way}:\n{traceback.format_exc()}", flush=True)
    rows = [
        {"operation": operation, "steps": steps[operation]}
        | {column: counts[operation, key] for key, column in columns.items()}
        for operation in OPERATIONS
    ]
    return rows, all(counts[operation, way] == steps[operation] for operation in OPERATIONS for way in WAYS)


def main() -> int:
    """Try every step, and write the table."""
    arguments = parse_arguments(__doc__, workers=2)
    with tempfile.TemporaryDirectory(prefix="wine-steps-") as folder:
        rows, is_good = try_all_steps(Path(folder), arguments.workers)
    publish_result("step_trials", "step_trials", rows)
    return DONE if is_good else FINDING


if __name__ == "__main__":
    run_command(main)
