"""Break MLflow's store during promotions beside a running API, and promote again.

    python -m tests.benchmarks.store_trials     (--tries N, default 20; --seed S)

The store is locked, read-only, gone or on a full disk for some seconds. Four clients ask the API ten times a second
each. A try has gone well when the promotion ended well or with one line, the same command does the rest, alias and
served model agree, and before that each was the old champion or the new one. Exit code 1: an answer was wrong, or a try
has not gone well.
"""

from commands import run_command
from tests.benchmarks.fault_trials import try_all
from tests.benchmarks.results import parse_arguments


def main() -> int:
    """Try every fault of the store."""
    arguments = parse_arguments(__doc__, tries=20, seed=0)

    from tests.benchmarks.store_faults import STORE_FAULTS

    return try_all("store_trials", list(STORE_FAULTS), arguments.tries, arguments.seed)


if __name__ == "__main__":
    run_command(main)
