"""Which figures belong to which source: the published pair, the pair made from UCI, the twin's.

    python -m tests.benchmarks.pair_figures FOLDER

FOLDER holds the published pair and the UCI originals. Writes results/pair_figures.json.
"""

import argparse
from pathlib import Path
from typing import Any

from commands import DONE, run_command
from tests.benchmarks.results import render_result, write_result
from wine_data.sources.load import WineData, fingerprint_wines, load_wines, read_folder, read_originals

SEED = 42


def describe_source(name: str, data: WineData) -> dict[str, Any]:
    """Count what the sources differ in, as a row of the table."""
    from wine_data.audit.checks import LEAK, audit_wines
    from wine_data.split import drop_duplicates

    complete, incomplete = (finding for finding in audit_wines(data).findings if finding.check.startswith(LEAK))
    return {
        "source": name,
        "fingerprint": data.fingerprint[:12],
        "distinct in train": f"{len(drop_duplicates(data.train)):,}",
        "distinct in validation": f"{len(drop_duplicates(data.validation)):,}",
        "complete rows on both sides": f"{complete.count:,} of {complete.total:,}",
        "incomplete rows on both sides": f"{incomplete.count:,} of {incomplete.total:,}",
    }


def main() -> int:
    """Load the three, count, print, write."""
    parser = argparse.ArgumentParser(description="Print the figures that belong to each source of wines.")
    parser.add_argument("folder", type=Path, help="folder with the published pair and the UCI originals")
    folder = parser.parse_args().folder

    from wine_data.sources.pair import publish_pair

    published = read_folder(folder, SEED)
    remade = publish_pair(read_originals(folder), SEED)
    rows = [
        describe_source("the published pair", WineData(*published, "folder", fingerprint_wines(*published))),
        describe_source("`uci`, seed 42", WineData(*remade, "uci", fingerprint_wines(*remade))),
        describe_source("`twin`, seed 42", load_wines("twin", SEED, folder, "")),
    ]
    path = write_result("pair_figures", "python -m tests.benchmarks.pair_figures FOLDER", rows)
    print(render_result("pair_figures"))
    print(f"\nWritten to {path.name}. Next: copy the table into wine_data/README.md; a test compares them")
    return DONE


if __name__ == "__main__":
    run_command(main)
