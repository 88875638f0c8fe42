"""Look through all stores, and remove what is old and not needed: one tidying at a time, on all machines."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atomic_files import DAY
from experiment_tracking.runs.locks import hold_lock
from experiment_tracking.runs.store import TIDY_NUMBER, hold_between_machines, name_store, open_store
from experiment_tracking.tidy.folders import is_of_registry, list_bundles, list_downloads, list_reports, list_wines
from experiment_tracking.tidy.piece import Piece, list_partials
from experiment_tracking.tidy.tracked import list_tracked
from settings import Settings


@dataclass(frozen=True)
class Inventory:
    """All pieces of all stores, and in sentences what cannot be tidied from here."""

    pieces: tuple[Piece, ...]
    notes: tuple[str, ...]

    @property
    def gone(self) -> list[Piece]:
        """The pieces that may go, in the order in which they have to."""
        return [piece for piece in self.pieces if piece.remove]

    def rows(self) -> list[tuple[str, int, int, int, int]]:
        """Store, how many pieces it has and their bytes, how many of them go and their bytes."""
        stores = dict.fromkeys(piece.store for piece in self.pieces)
        return [(store, *count([one for one in self.pieces if one.store == store])) for store in stores]


def count(pieces: Sequence[Piece]) -> tuple[int, int, int, int]:
    """How many pieces and bytes there are, and how many of both go."""
    gone = [piece.size for piece in pieces if piece.remove]
    return len(pieces), sum(piece.size for piece in pieces), len(gone), sum(gone)


def take_inventory(settings: Settings) -> Inventory:
    """Find what every store has, and what may go. MLflow's store is open."""
    now = time.time()
    before = now - settings.keep_days * DAY
    monitored = min(before, now - settings.cool_down_hours * 3600)  # a cool-down counts from one of these runs
    models, notes = settings.serving_models, []
    tracked = list_tracked(before, monitored, settings.keep_reports, models)
    pieces = [*tracked.pieces, *list_reports(settings.monitoring_reports, settings.keep_reports)]
    if tracked.obstacle:
        notes.append(f"Versions and runs: {tracked.obstacle}")
    if not isinstance(settings.mlflow_artifacts, Path):
        notes.append(f"Files in {settings.mlflow_artifacts} go with their runs, but their sizes are not counted")
    if is_of_registry(models, tracked.versions):
        pieces += list_wines(settings.snapshots, tracked.fingerprints, before)
        pieces += list_bundles(models, tracked.versions, before)
    else:
        notes.append(
            f"Wines and bundles: no version of {name_store()} serves from {models}, so nothing says which of them "
            "are needed"
        )
    pieces += list_downloads(settings.downloads, settings.data, before)
    for folder in (settings.snapshots, models, settings.monitoring_reports):
        pieces += list_partials(folder)
    return Inventory(tuple(pieces), tuple(notes))


def remove_pieces(pieces: Sequence[Piece], on_piece: Callable[[Piece], None] = lambda piece: None) -> None:
    """Remove what may go. If it is killed, the next tidying finds the rest."""
    for piece in pieces:
        if piece.remove:
            piece.remove()
        on_piece(piece)


def tidy_stores(settings: Settings) -> list[str]:
    """Remove what may go, and say in sentences what went and what cannot be tidied from here."""
    with hold_tidying(settings):
        inventory = take_inventory(settings)
        remove_pieces(inventory.pieces)
    gone = [row for row in inventory.rows() if row[3]]
    sentences = [f"{store}: {went:,} of {there:,} removed, {name_size(size)}" for store, there, _, went, size in gone]
    return [*(sentences or ["Nothing had to go"]), *(f"Left alone: {note}" for note in inventory.notes)]


@contextmanager
def hold_tidying(settings: Settings) -> Iterator[None]:
    """Open MLflow's store, and let no other process tidy meanwhile; waits for one that does. Raises as open_store."""
    # A PostgreSQL may have an MLflow server, which gives new experiments a place of its own.
    open_store(settings.mlflow_uri, settings.mlflow_artifacts, create=not settings.mlflow_uri.startswith("postgresql"))
    with hold_lock(settings.serving_models / ".tidying.lock"), hold_between_machines(TIDY_NUMBER):
        yield


def name_size(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
