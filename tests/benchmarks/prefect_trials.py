"""Kill Prefect's worker or server at random moments of runs, and see that no slot stays taken.

    python -m tests.benchmarks.prefect_trials     (--tries N, default 20; --seed S)

Each run is one of a copy of the deployment `score`, with a slot of its own, so that what Prefect takes five minutes
to free is waited for once. A server that is gone is tried a quarter as often: it takes over 30 s to come back.
Exit code 1: a slot stayed taken, a lost run was not marked as crashed, or the next scheduled run did not come.
"""

import tempfile
from pathlib import Path

from commands import DONE, FINDING, run_command
from tests.benchmarks.results import parse_arguments, publish_result


def main() -> int:
    """Try all, and write the table."""
    arguments = parse_arguments(__doc__, tries=20, seed=0)

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from tests.benchmarks.prefect_study import ALONE, KILLED, SERVER, break_runs, make_rows
    from tests.services import run_services

    few = max(2, arguments.tries // 4)  # one a moment
    with tempfile.TemporaryDirectory(prefix="wine-prefect-") as folder:
        home, empty = Path(folder) / "home", Path(folder) / "empty"
        empty.mkdir()
        with run_services(home, empty) as services:
            services.do("deploy")
            services.do("worker")
            with temporary_settings({PREFECT_API_URL: services.api}), SyncPrefectClient(api=services.api) as client:
                faults = {KILLED: arguments.tries, ALONE: arguments.tries, SERVER: few}
                tries = break_runs(services, client, faults, arguments.seed)
    publish_result("prefect_trials", f"prefect_trials --tries {arguments.tries}", make_rows(tries))
    return DONE if all(one.is_sound for one in tries) else FINDING


if __name__ == "__main__":
    run_command(main)
