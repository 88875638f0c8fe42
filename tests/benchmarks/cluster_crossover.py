"""From how many wines and trials on a Dask cluster pays, beside the same work without one.

    python -m tests.benchmarks.cluster_crossover [--wines N …] [--rows N …]

Both sides use the cores of this machine: threads of one process, or a worker process a core. So the cluster cannot be
faster here, and what is measured is what it costs: its start, until every worker has imported what a trial needs, and
the rest, which is sending, scheduling and waiting. From these follows how many trials it takes until two, or eight,
such machines would be done first: start + (trials x cost there) / machines < trials x cost here.

For XGBoost on partitioned wines the files are read on both sides; on one machine into memory.

Prints the figures and writes them to results/cluster_search.json and results/cluster_partitions.json.
"""

from commands import run_command
from tests.benchmarks.results import parse_arguments, publish_result


def main() -> int:
    """Measure, print, write."""
    arguments = parse_arguments(__doc__, wines=[5300, 20_000], rows=[100_000, 1_000_000])

    from tests.benchmarks.cluster_costs import compare_partitions, compare_search

    publish_result("cluster_search", "cluster_crossover", compare_search(arguments.wines))
    return publish_result("cluster_partitions", "cluster_crossover", compare_partitions(arguments.rows))


if __name__ == "__main__":
    run_command(main)
