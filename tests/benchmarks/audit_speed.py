"""How long the audit takes, and what memory, for a train file of one million rows.

    python -m tests.benchmarks.audit_speed [--rows N]

Prints the figures and writes them to results/audit_speed.json.
"""

import argparse
import resource
import sys
import time

from commands import DONE, run_command
from tests.benchmarks.results import render_result, write_result


def main() -> int:
    """Make the rows, audit them, print, write."""
    parser = argparse.ArgumentParser(description="Time the audit on many rows.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the train file")
    rows = parser.parse_args().rows

    from wine_data.audit.checks import audit_wines
    from wine_data.sources.load import WineData
    from wine_data.sources.pair import publish_pair
    from wine_data.twin.sample import sample_twin

    _, validation = publish_pair(sample_twin(5320, seed=1), seed=1)
    data = WineData(sample_twin(rows, seed=2), validation, "twin", "none")
    start = time.perf_counter()
    audit_wines(data)
    seconds = time.perf_counter() - start
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    figures = [
        {"figure": f"time to audit {rows:,} rows", "goal": "< 15 s", "measured": f"{seconds:.1f} s"},
        {"figure": "peak memory of the process", "goal": "< 2 GB", "measured": f"{peak:.2f} GB"},
    ]
    path = write_result("audit_speed", "python -m tests.benchmarks.audit_speed", figures)
    print(render_result("audit_speed"))
    print(f"\nWritten to {path.name}. Next: copy the table into wine_data/README.md; a test compares them")
    return DONE


if __name__ == "__main__":
    run_command(main)
