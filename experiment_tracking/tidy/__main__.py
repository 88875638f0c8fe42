"""Remove what is old and not needed from every store.

    python -m experiment_tracking.tidy [--dry-run]    (make tidy)

What stays: everything younger than WINE_KEEP_DAYS, the reports of the newest WINE_KEEP_REPORTS windows, and, however
old, the champion, all versions that ever were champion, challengers that the gate has not refused, with their runs,
models and bundles and the wines they learned from, the records of promotions, and the counts of the gate.
"""

import argparse

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from commands import DONE, run_command
from settings import load_settings

COMMAND = "python -m experiment_tracking.tidy"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    parser.add_argument("-v", "--verbose", action="store_true", help="name everything that goes")
    return parser.parse_args()


def main() -> int:
    """Show what every store has and what goes, and remove that."""
    arguments, settings = parse_arguments(), load_settings()
    console = Console(highlight=False, soft_wrap=True)

    from experiment_tracking.tidy.tidying import count, hold_tidying, name_size, remove_pieces, take_inventory

    with hold_tidying(settings):
        with console.status("Looking through the stores"):
            inventory = take_inventory(settings)
        goes = "would go" if arguments.dry_run else "goes"
        table = Table("store", "there", "size", goes, "size", box=None)
        for store, there, size, gone, gone_size in inventory.rows():
            table.add_row(store, f"{there:,}", name_size(size), f"{gone:,}", name_size(gone_size))
        console.print(table)
        for piece in inventory.gone if arguments.verbose else ():
            console.print(f"{goes}: {piece.store}, {piece.name}, {name_size(piece.size)}")
        for note in inventory.notes:
            console.print(f"Left alone: {note}")
        if not arguments.dry_run:
            with Progress(console=console, transient=True) as progress:
                bar = progress.add_task("Removing", total=len(inventory.gone))
                remove_pieces(inventory.gone, lambda piece: progress.advance(bar))
    _, _, gone, size = count(inventory.pieces)
    done = f"{gone:,} of {len(inventory.pieces):,}, {name_size(size)}"
    if arguments.dry_run:
        console.print(f"{done}, would go; nothing was removed. Next: make tidy")
    else:
        console.print(f"{done}, are gone. Next: python -m experiment_tracking.registry list")
    return DONE


if __name__ == "__main__":
    run_command(main)
