"""Files that are written whole or not at all."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write or replace a file, and make its folders, so that readers see the old content or the new.

    Each of several writers has a temporary file of its own, and the last one wins. The content is on the disk before it
    gets its name, so a power cut leaves no empty file. Text is written as UTF-8, half a character as "?". Raises
    OSError where the disk is full or may not be written; the file that was there is intact.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode(errors="replace") if isinstance(content, str) else content
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.partial-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)  # mkstemp lets only its owner read
        Path(partial).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(partial).unlink()
        raise
