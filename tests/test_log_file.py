"""A prediction log whose disk is full, or whose file is deleted or read-only."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from deployment.prediction_log.log import FLUSH_SECONDS, PredictionLog
from deployment.prediction_log.reader import count_answers, read_answers
from settings import ROOT
from tests.messages import list_missing
from tests.small_disk import FILLER, fill_disk, mount_small_disk
from tests.test_prediction_log import CHILD, LOG_ONE, add_answers, log, make_answer, url, wait_for_rows
from tests.waiting import wait_until

__all__ = ["log", "url"]  # fixtures
pytestmark = pytest.mark.fast


def test_a_disk_that_is_full_for_a_while_loses_nothing_that_can_wait(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with mount_small_disk(tmp_path, 4) as disk:
        url = f"sqlite:///{disk / 'predictions.db'}"
        log = PredictionLog(url, days=90, rows=100_000, waiting=5_000)
        log.open()
        log.add_answer(make_answer("before"))
        wait_for_rows(log, 1)
        fill_disk(disk)
        add_answers(log, 6_000)
        wait_until(lambda: "full" in capfd.readouterr().err, "a word of the disk")
        counts = log.counts
        assert counts.lost + counts.written + counts.waiting == 6_001
        assert list_missing(counts.problem, "5,000 rows wait already") == []
        (disk / FILLER).unlink()
        wait_until(lambda: log.counts.waiting == 0, "an empty queue")
        log.add_answer(make_answer("after"))
        log.close()
        logged = read_answers(url)["request_id"].tolist()
        assert (logged[0], logged[-1], len(logged)) == ("before", "after", log.counts.written)
        assert log.counts.lost == counts.lost
    assert list_missing(capfd.readouterr().err, "prediction log", f"{counts.lost:,}") == []


def test_a_log_whose_file_is_deleted_is_made_anew(
    log: PredictionLog, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log.add_answer(make_answer("before"))
    wait_for_rows(log, 1)
    file = Path(url.removeprefix("sqlite:///"))
    shutil.rmtree(file.parent)
    wait_until(file.exists, "another file")
    add_answers(log, 100)
    log.close()
    assert (count_answers(url), log.counts.lost) == (100, 0)
    assert list_missing(capfd.readouterr().err, "deleted or replaced", str(file)) == []


def test_rows_that_wait_for_the_lock_of_a_file_that_is_deleted_are_in_the_new_one(log: PredictionLog, url: str) -> None:
    log.add_answer(make_answer("before"))
    wait_for_rows(log, 1)
    file = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(file, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        add_answers(log, 100)
        time.sleep(3 * FLUSH_SECONDS)  # the writer has seen the file that it knows, and waits
        shutil.rmtree(file.parent)
    wait_until(file.exists, "another file")
    log.close()
    assert (count_answers(url), log.counts.lost) == (100, 0)


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write all files")
def test_a_log_that_was_read_only_is_written_once_it_may_be(url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD + LOG_ONE, url]
    if os.geteuid() == 0:  # a process of root's that obeys a file's rights
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    log = PredictionLog(url, days=90, rows=100_000)
    log.open()
    log.close()
    file = Path(url.removeprefix("sqlite:///"))
    file.chmod(0o444)
    errors = tmp_path / "errors.txt"
    pipe = subprocess.PIPE
    with errors.open("wb") as output, subprocess.Popen(command, cwd=ROOT, stdin=pipe, stderr=output) as child:
        wait_until(lambda: "readonly" in errors.read_text(), "a word of the file", 60)
        for each in file.parent.iterdir():  # SQLite gives the files beside it the same rights
            each.chmod(0o644)
        wait_until(lambda: "is written again" in errors.read_text(), "the log is written again")
        child.communicate(b"go\n", timeout=30)
    assert count_answers(url) == 1
