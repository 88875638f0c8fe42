import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from atomic_files import write_atomically
from settings import ROOT

pytestmark = pytest.mark.fast
WRITE_OFTEN = """
import sys
from pathlib import Path
from atomic_files import write_atomically
for _ in range(200):
    write_atomically(Path(sys.argv[1]), sys.argv[2] * 10_000)
"""


def test_a_file_and_its_folders_are_written_for_all_to_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    write_atomically(path, "grün \udc80")
    assert path.read_bytes() == "grün ?".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    write_atomically(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert [other.name for other in path.parent.iterdir()] == ["file.txt"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_leave_what_one_of_them_wrote(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_OFTEN, path, letter], cwd=ROOT) for letter in "ab"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * 10_000, "b" * 10_000)
    assert list(tmp_path.iterdir()) == [path]
