"""Give readers broken contents, and routes random requests, and count what is neither read nor refused in words.

    python -m tests.benchmarks.hostile_cases     (--cases N, default 20,000; --seed S)

Each reader of files, bodies and headers gets so many cases. The routes get as many from schemathesis, over HTTP, on a
server with a wine model. This takes a quarter of an hour. Exit code 1: something failed; the case is printed.
"""

import re
import tempfile
import traceback
from pathlib import Path

from commands import DONE, FINDING, run_command
from tests.benchmarks.results import make_row, parse_arguments, publish_result

ROUTES = 3  # that take a body, and so get most of the requests


def main() -> int:
    """Attack every reader, then the routes, and write the table."""
    arguments = parse_arguments(__doc__, cases=20_000, seed=0)

    from rich.console import Console
    from rich.progress import track

    from tests.benchmarks.traffic import make_bundles
    from tests.folders import isolated_environment
    from tests.running import run_api
    from tests.test_fuzz import attack_reader, list_readers
    from tests.test_predict import attack_routes

    rows, bad = [], 0
    with tempfile.TemporaryDirectory(prefix="wine-hostile-") as name:
        models = Path(name) / "deployment" / "models"
        make_bundles(models)
        readers = list_readers(models / "1", Path(name))
        for reader, (content, read) in track(readers.items(), "Readers", console=Console(stderr=True)):
            try:
                counts = attack_reader(content, read, arguments.cases, arguments.seed)
                found = f"{counts['read']:,} read, {counts['refused']:,} refused"
            except Exception:
                bad, found = bad + 1, "another error"
                traceback.print_exc()
            rows.append(make_row(f"reader of {reader}", "read, or refused with a message", found))
        with run_api(isolated_environment(Path(name))) as (address, _):
            try:
                report = attack_routes(address, arguments.cases // ROUTES, seconds=7_200)
                found = re.findall(r"[\d,]+ generated, [\d,]+ passed", report)[-1]
            except AssertionError:
                bad, found = bad + 1, "another answer"
                traceback.print_exc()
        rows.append(make_row("routes, by schemathesis", "answers that /openapi.json describes", found))
    publish_result("hostile_cases", f"hostile_cases --cases {arguments.cases} --seed {arguments.seed}", rows)
    return FINDING if bad else DONE


if __name__ == "__main__":
    run_command(main)
