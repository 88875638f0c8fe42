"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write or replace a file with this content, as open_atomically does. Text is UTF-8, half a character "?"."""
    with open_atomically(path) as file:
        file.write(content.encode(errors="replace") if isinstance(content, str) else content)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Write or replace a file, and make its folders, so that readers see the old content or the new.

    Each of several writers has a temporary file of its own, and the last one wins. The content is on the disk before it
    gets its name, so a power cut leaves no empty file. Raises OSError where the disk is full or may not be written; the
    file that was there is intact then, as it is if the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)  # mkstemp lets only its owner read
        Path(partial).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(partial).unlink()
        raise
