"""How long the audit takes, and what memory, for a train file of one million rows.

    python -m tests.benchmarks.audit_speed [--rows N]

Prints the figures and writes them to results/audit_speed.json.
"""

import resource
import sys

from commands import run_command
from tests.benchmarks.results import make_row, parse_arguments, publish_result, time_work


def main() -> int:
    """Make the rows, audit them, print, write."""
    rows = parse_arguments(__doc__, rows=1_000_000).rows

    from wine_data.audit.checks import audit_wines
    from wine_data.sources.load import WineData
    from wine_data.sources.pair import publish_pair
    from wine_data.twin.sample import sample_twin

    _, validation = publish_pair(sample_twin(5320, seed=1), seed=1)
    data = WineData(sample_twin(rows, seed=2), validation, "twin", "none")
    seconds = time_work(lambda: audit_wines(data))
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    figures = [
        make_row(f"time to audit {rows:,} rows", "< 15 s", f"{seconds:.1f} s"),
        make_row("peak memory of the process", "< 2 GB", f"{peak:.2f} GB"),
    ]
    return publish_result("audit_speed", "audit_speed", figures)


if __name__ == "__main__":
    run_command(main)
