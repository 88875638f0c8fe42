from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest

from commands import BadInputError, NotThereError
from tests.messages import naming
from wine_data.snapshots.snapshot import keep_snapshot, read_snapshot
from wine_data.sources.load import WineData

pytestmark = pytest.mark.fast


def test_wines_come_back_from_a_snapshot_as_they_went(tmp_path: Path, twin: WineData) -> None:
    folder = keep_snapshot(twin, tmp_path)
    back = read_snapshot(tmp_path, twin.fingerprint)
    pd.testing.assert_frame_equal(back.train, twin.train)
    pd.testing.assert_frame_equal(back.validation, twin.validation)
    assert (back.source, back.note, back.fingerprint) == (twin.source, twin.note, twin.fingerprint)
    assert {path.name for path in folder.iterdir()} == {"train.parquet", "validation.parquet", "about.json"}


def test_the_same_wines_are_kept_once_with_the_note_of_the_last_load(tmp_path: Path, twin: WineData) -> None:
    first = keep_snapshot(replace(twin, note="no connection: these wines are synthetic"), tmp_path)
    written = (first / "train.parquet").stat().st_mtime_ns
    assert keep_snapshot(replace(twin, note=""), tmp_path) == first
    assert read_snapshot(tmp_path, twin.fingerprint).note == ""
    assert (first / "train.parquet").stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [twin.fingerprint]


def test_a_file_in_the_place_of_a_snapshot_is_kept_and_reported(tmp_path: Path, twin: WineData) -> None:
    (tmp_path / twin.fingerprint).write_text("a file of somebody")
    with pytest.raises(NotADirectoryError):
        keep_snapshot(twin, tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(twin.fingerprint, "a file of somebody")]


def test_a_snapshot_that_is_not_there_or_was_changed_is_refused(tmp_path: Path, twin: WineData) -> None:
    with pytest.raises(NotThereError, match=naming("0123", "make pipeline")):
        read_snapshot(tmp_path, "0123")
    folder = keep_snapshot(twin, tmp_path)
    twin.train.head(5).to_parquet(folder / "train.parquet")
    with pytest.raises(BadInputError, match=naming(twin.fingerprint, "changed", "make pipeline")):
        read_snapshot(tmp_path, twin.fingerprint)
    (folder / "train.parquet").write_bytes(b"cut off")
    with pytest.raises(BadInputError, match=naming(twin.fingerprint, "Parquet", "make pipeline")):
        read_snapshot(tmp_path, twin.fingerprint)


def test_a_disk_that_fails_is_no_change_of_the_wines(
    tmp_path: Path, twin: WineData, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = keep_snapshot(twin, tmp_path)
    with monkeypatch.context() as failing:
        failing.setattr(pd, "read_parquet", Mock(side_effect=OSError(5, "Input/output error")))
        with pytest.raises(NotThereError, match=naming(str(folder), "Input/output error")):
            read_snapshot(tmp_path, twin.fingerprint)
    assert read_snapshot(tmp_path, twin.fingerprint).fingerprint == twin.fingerprint


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, twin: WineData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pd.DataFrame, "to_parquet", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        keep_snapshot(twin, tmp_path)
    assert list(tmp_path.iterdir()) == []
