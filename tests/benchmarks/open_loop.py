"""Ask the API for single wines at a constant rate, and measure from when each request was due.

    python -m tests.benchmarks.open_loop     (--seconds N a rate, default 60)

The highest rate is measured first, with clients that ask again once they are answered. Such a closed loop flatters
the tail: while the server pauses nobody asks, so one slow answer stands for all that would have waited.
"""

import tempfile
from pathlib import Path

from commands import DONE, run_command
from tests.benchmarks.results import parse_arguments, publish_result


def main() -> int:
    """Measure and write the table."""
    arguments = parse_arguments(__doc__, seconds=60)

    from tests.benchmarks.open_loop_study import measure

    with tempfile.TemporaryDirectory(prefix="wine-open-loop-") as folder:
        publish_result(
            "open_loop", f"open_loop --seconds {arguments.seconds}", measure(Path(folder), arguments.seconds)
        )
    return DONE


if __name__ == "__main__":
    run_command(main)
