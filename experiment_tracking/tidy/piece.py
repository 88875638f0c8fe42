"""One thing in a store, its size, and how to remove it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from atomic_files import list_old_partials


@dataclass(frozen=True)
class Piece:
    """One thing in a store; `remove` is None where it stays, `size` in bytes, 0 where it is not on this machine."""

    store: str
    name: str
    size: int
    remove: Callable[[], None] | None = None


def make_piece(store: str, folder: Path, goes: bool) -> Piece:
    """The piece that a folder is."""
    return Piece(store, folder.name, measure_folder(folder), partial(remove_folder, folder) if goes else None)


def measure_folder(folder: Path) -> int:
    """The bytes of all files in a folder; 0 if it is not there."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process has just renamed or removed it
            size += path.stat().st_size if path.is_file() else 0
    return size


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there; what a kill half-way leaves has a name that nobody but list_partials reads."""
    if not folder.is_dir():
        return
    hidden = folder.with_name(f".{folder.name}.partial-tidy")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def list_partials(folder: Path) -> Iterator[Piece]:
    """What killed processes have left half written or half removed in a folder."""
    for path in list_old_partials(folder):
        yield Piece("half written", path.name, measure_folder(path), partial(shutil.rmtree, path))
