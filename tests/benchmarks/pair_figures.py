"""Which figures belong to which source: the published pair, the pair made from UCI, the twin's.

    python -m tests.benchmarks.pair_figures FOLDER

FOLDER holds the published pair and the UCI originals. Writes results/pair_figures.json.
"""

from commands import run_command
from tests.benchmarks.results import parse_arguments, publish_result
from wine_data.sources.load import WineData, load_wines

SEED = 42


def describe_source(name: str, data: WineData) -> dict[str, str]:
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
    folder = parse_arguments(__doc__, "folder").folder
    names = {"the published pair": str(folder), f"`uci`, seed {SEED}": "uci", f"`twin`, seed {SEED}": "twin"}
    rows = [describe_source(name, load_wines(source, SEED, folder, "")) for name, source in names.items()]
    return publish_result("pair_figures", "pair_figures FOLDER", rows)


if __name__ == "__main__":
    run_command(main)
