"""From how many wines and trials on a Dask cluster pays, beside the same work without one.

    python -m tests.benchmarks.cluster_crossover [--wines 5300 20000] [--rows 100000 1000000]

Both sides use the cores of this machine: threads of one process, or a worker process a core. So the cluster cannot be
faster here, and what is measured is what it costs: its start, until every worker has imported what a trial needs, and
the rest, which is sending, scheduling and waiting. From these follows how many trials it takes until two, or eight,
such machines would be done first: start + (trials x cost there) / machines < trials x cost here.

For XGBoost on partitioned wines the files are read on both sides; on one machine into memory.

Prints the figures and writes them to results/cluster_search.json and results/cluster_partitions.json.
"""

import argparse

from commands import DONE, run_command
from tests.benchmarks.results import render_result, write_result


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="From how many wines and trials on a Dask cluster pays.")
    parser.add_argument("--wines", type=int, nargs="+", default=[5300, 20_000])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments = parser.parse_args()

    from tests.benchmarks.cluster_costs import compare_partitions, compare_search

    command = "python -m tests.benchmarks.cluster_crossover"
    written = [
        write_result("cluster_search", command, compare_search(arguments.wines)),
        write_result("cluster_partitions", command, compare_partitions(arguments.rows)),
    ]
    for path in written:
        print(render_result(path.stem), end="\n\n")
    print(f"Written to {' and '.join(path.name for path in written)}. Next: put the tables into docs/benchmarks.md")
    return DONE


if __name__ == "__main__":
    run_command(main)
