"""Disks that are full."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FILLER = "filler"  # the file that takes what is left of a disk


@contextmanager
def mount_small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a disk on a folder for as long as the block lasts, or skip the test."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a process that ends may still have a file open


def fill_disk(disk: Path) -> None:
    """Leave 64 KiB free, or what is left."""
    (disk / FILLER).write_bytes(bytes(max(0, shutil.disk_usage(disk).free - 65_536)))
