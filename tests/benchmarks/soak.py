"""Ask one API process for many predictions, under all that clients do, and count what is wrong or lost.

    python -m tests.benchmarks.soak     (--predictions N, default 2,000,000; --seed S)

Single wines, batches, invalid bodies, slow clients, dropped connections and tasters' grades arrive at once, as fast
as they are answered, and the champion changes every two seconds. Each answer is compared with what the model of
its version says by itself. Exit code 1: an answer was wrong or lost, the log has not a row for each, or memory grows.
"""

import tempfile
from pathlib import Path

from commands import DONE, FINDING, run_command
from tests.benchmarks.results import parse_arguments, publish_result


def main() -> int:
    """Run the soak and write its table."""
    arguments = parse_arguments(__doc__, predictions=2_000_000, seed=0)

    from tests.benchmarks.soak_study import run_soak

    with tempfile.TemporaryDirectory(prefix="wine-soak-") as folder:
        rows, sound = run_soak(Path(folder), arguments.predictions, arguments.seed)
    publish_result("soak", f"soak --predictions {arguments.predictions}", rows)
    return DONE if sound else FINDING


if __name__ == "__main__":
    run_command(main)
