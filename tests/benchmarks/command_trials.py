"""Kill training, search and promotion at random moments beside a running API, and do them again.

    python -m tests.benchmarks.command_trials     (--tries N, default 20; --seed S)

Where most tries take over 30 s, a quarter of them is enough. Four clients ask the API ten times a second each. A try
has gone well when the same command does the rest, alias and served model agree, and after the kill each was the old
champion or the new one. Exit code 1: an answer was wrong, or a try has not gone well.
"""

from commands import run_command
from tests.benchmarks.fault_trials import try_all
from tests.benchmarks.results import parse_arguments


def main() -> int:
    """Try every command."""
    arguments = parse_arguments(__doc__, tries=20, seed=0)

    from tests.benchmarks.command_faults import COMMAND_FAULTS

    return try_all("command_trials", list(COMMAND_FAULTS), arguments.tries, arguments.seed)


if __name__ == "__main__":
    run_command(main)
