"""What may go from folders: wines that no run needs, bundles of versions that went, old reports, downloads."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from commands import BadInputError, NotThereError
from experiment_tracking.registry.versions import Version
from experiment_tracking.tidy.piece import Piece, make_piece, remove_folder
from wine_quality_training.bundle.bundle import METADATA_FILE, find_current
from wine_quality_training.bundle.metadata import ModelMetadata, read_metadata

WINES, BUNDLES, REPORTS, DOWNLOADS = "kept wines", "bundles", "reports", "downloads from S3"
WINDOW = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d"  # the folder of a window; a person made any other


def list_wines(snapshots: Path, needed: Iterable[str], before: float) -> Iterator[Piece]:
    """Snapshots; those that are needed stay, with the labelled answers that joined them, and those used since then."""
    folders = {path.name: path for path in snapshots.glob("[!.]*/")}
    stay = set(needed)
    stay |= {_read_labelled(folders[name]) for name in stay & folders.keys()}
    for name, folder in sorted(folders.items()):
        goes = name not in stay and _when_used(folder) < before
        yield replace(make_piece(WINES, folder, goes), remove=partial(_remove_unused, folder, before) if goes else None)


def _remove_unused(snapshot: Path, before: float) -> None:
    """Remove wines, unless a run has begun to use them again meanwhile."""
    if snapshot.is_dir() and _when_used(snapshot) < before:
        remove_folder(snapshot)


def _read_labelled(snapshot: Path) -> str:
    with suppress(OSError, ValueError, AttributeError):
        return str(json.loads((snapshot / "about.json").read_text()).get("labelled", ""))
    return ""


def _when_used(snapshot: Path) -> float:
    """When a run last kept these wines, which writes their description anew."""
    about = snapshot / "about.json"
    return (about if about.is_file() else snapshot).stat().st_mtime


def list_bundles(models: Path, versions: Iterable[Version], before: float) -> Iterator[Piece]:
    """Bundles; the one that serves stays, those of versions that stay, and those written since then."""
    stay = {(version.number, version.run_id) for version in versions}
    current = find_current(models)
    for path in sorted(models.glob(f"[!.]*/{METADATA_FILE}")):
        folder, identity = path.parent, _identify(path.parent)
        goes = identity is not None and identity not in stay and folder != current
        yield make_piece(BUNDLES, folder, goes and folder.stat().st_mtime < before)


def is_of_registry(models: Path, versions: Iterable[Version]) -> bool:
    """Whether the bundle that serves is a version of this registry; another's may need what this one does not know."""
    with suppress(NotThereError, BadInputError):
        return _identify(find_current(models)) in [(version.number, version.run_id) for version in versions]
    return False


def _identify(bundle: Path) -> tuple[str, str] | None:
    with suppress(NotThereError, BadInputError):
        metadata: ModelMetadata = read_metadata(bundle / METADATA_FILE)
        return metadata.version, metadata.run_id
    return None


def list_reports(folder: Path, most: int) -> Iterator[Piece]:
    """Reports of windows, the newest first; the first `most` stay."""
    windows = sorted((path for path in folder.glob("*/") if re.fullmatch(WINDOW, path.name)), reverse=True)
    for place, window in enumerate(windows):
        yield make_piece(REPORTS, window, place >= most)


def list_downloads(downloads: Path, data: str, before: float) -> Iterator[Piece]:
    """Folders of data sets from S3; that of `data` stays, and those of which a file came since then.

    The originals from UCI stay: two files, without which a machine that is offline would have no wines.
    """
    current = downloads / data.replace("://", "/").rstrip("/")
    folders = {path.parent for path in (downloads / "s3").rglob("*") if path.is_file()}
    for folder in sorted(folders):
        newest = max(path.stat().st_ctime for path in folder.rglob("*"))  # the other time is that of the object
        yield make_piece(DOWNLOADS, folder, folder not in (current, *current.parents) and newest < before)
