"""Files that are written whole or not at all."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

DAY = 86_400  # seconds; no writer runs that long


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write or replace a file, as open_atomically does. Text becomes UTF-8, with "?" for a lone surrogate."""
    with open_atomically(path) as file:
        file.write(content.encode(errors="replace") if isinstance(content, str) else content)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Write or replace a file atomically, and create its folders: readers see the old content or the new.

    Each writer has its own temporary file; the last one to finish wins. The content is on the disk before the file gets
    its name, so a power cut leaves no empty file. Raises OSError if the disk is full or not writable. Then, and if the
    block raises, the old file stays intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)  # mkstemp makes a file that only its owner can read
        Path(partial).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(partial).unlink()
        raise


def list_old_partials(folder: Path) -> Iterator[Path]:
    """Folders in a folder that killed writers left half written more than a day ago."""
    for path in folder.glob(".*partial-*"):
        if path.is_dir() and time.time() - path.stat().st_mtime > DAY:
            yield path
