"""Kill Prefect's worker or server at random moments of runs, and see that no slot stays taken.

    python -m tests.benchmarks.prefect_trials     (--tries N, default 20; --seed S)

Each run is one of a copy of the deployment `score`, with a slot of its own, so that what Prefect takes five minutes
to free is waited for once. Exit code 1: a slot stayed taken, a lost run was not marked as crashed, the next scheduled
run did not come, or its answers were wrong.
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

    with tempfile.TemporaryDirectory(prefix="wine-prefect-") as folder:
        home, empty = Path(folder) / "home", Path(folder) / "empty"
        empty.mkdir()
        with run_services(home, empty) as services:
            services.do("deploy")
            services.do("worker")
            with temporary_settings({PREFECT_API_URL: services.api}), SyncPrefectClient(api=services.api) as client:
                faults = dict.fromkeys((KILLED, ALONE, SERVER), arguments.tries)
                tries = break_runs(services, client, faults, arguments.seed)
    publish_result("prefect_trials", f"prefect_trials --tries {arguments.tries}", make_rows(tries))
    return DONE if all(one.is_sound for one in tries) else FINDING


if __name__ == "__main__":
    run_command(main)
