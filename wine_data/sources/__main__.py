"""Load the wines of a source, and describe them.

python -m wine_data.sources [SOURCE]    (make data: uci)
"""

import argparse

from commands import DONE, run_command
from settings import load_settings
from wine_data.sources.load import load_wines


def main() -> int:
    """Load a source and describe its wines."""
    parser = argparse.ArgumentParser(description="Load the wines of a source, and download them if needed.")
    parser.add_argument("source", nargs="?", help="auto, uci, kaggle, twin or a folder (default: WINE_DATA)")
    settings = load_settings()
    source = parser.parse_args().source or settings.data
    data = load_wines(source, settings.seed, settings.downloads, settings.uci_url, settings.wine_type)
    print(data.introduce())
    print(f"{len(data.train):,} rows to train, {len(data.validation):,} to validate")
    print("Next: python -m wine_data.audit finds leaks, repeats and errors")
    return DONE


if __name__ == "__main__":
    run_command(main)
