"""The prediction log on real files: what comes back from it, and what becomes of it when processes and disks fail."""

import asyncio
import math
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from commands import BadInputError, NotThereError
from deployment.prediction_log.log import (
    LoggedAnswer,
    LoggedRefusal,
    PredictionLog,
    UnknownRequestError,
)
from deployment.prediction_log.reader import count_answers, iterate_answers, read_answers, read_refusals
from settings import ROOT
from tests.messages import list_missing, naming
from tests.test_schema import WINE
from tests.waiting import wait_until

pytestmark = pytest.mark.fast

CHILD = """
import itertools, os, sys, time
from deployment.prediction_log.log import LoggedAnswer, PredictionLog
def make_answer(request_id):
    return LoggedAnswer(time.time(), request_id, "3", "run", (1.0,) * 12, 6, "{}", 5.75, 1.5)
log = PredictionLog(sys.argv[1], days=90, rows=10_000)
"""
LOG_ON = """
log.open()
for number in itertools.count():
    log.add_answer(make_answer(str(number)))
    print(number, time.time(), flush=True)
    time.sleep(0.001)
"""
LOG_ONE = """
log.open()
log.add_answer(make_answer("theirs"))
print("logged", flush=True)
sys.stdin.readline()
"""
EIGHT_LOG_200 = """
start = time.time() + 0.5
for _ in range(7):
    if not os.fork():
        break
time.sleep(start - time.time())
log.open()
for number in range(200):
    log.add_answer(make_answer(f"{os.getpid()} {number}"))
log.close()
"""


def make_answer(request_id: str, at: float | None = None) -> LoggedAnswer:
    wine, probabilities = tuple(WINE.values()), '{"5": 0.25, "6": 0.75}'
    return LoggedAnswer(at or time.time(), request_id, "3", "run", wine, 6, probabilities, 5.75, 1.5)


def add_answers(log: PredictionLog, count: int) -> None:
    for number in range(count):
        log.add_answer(make_answer(str(number)))


def wait_for_rows(log: PredictionLog, written: int, seconds: float = 15) -> None:
    """Wait until the log's writer has written so many rows since it was opened."""
    wait_until(lambda: log.counts.written >= written, f"{written:,} rows in the log", seconds)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new folder' / 'predictions.db'}"


@pytest.fixture
def log(url: str) -> Iterator[PredictionLog]:
    log = PredictionLog(url, days=90, rows=100_000)
    log.open()
    yield log
    log.close()


def lock_database(url: str) -> sqlite3.Connection:
    """Take the right to write, as a long transaction of another process does; close() gives it back."""
    connection = connect(url)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def connect(url: str) -> sqlite3.Connection:
    return sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)


def test_an_answer_comes_back_from_the_log_as_it_went(log: PredictionLog, url: str) -> None:
    hour_ago = time.time() - 3_600
    log.add_answer(make_answer("first", hour_ago))
    log.add_answer(make_answer("second"))
    wait_for_rows(log, 2)
    asyncio.run(log.add_feedback("second", 7))
    log.close()
    first, second = read_answers(url).to_dict("records")
    assert {name: first[name] for name in WINE} == WINE
    assert first["time"] == hour_ago
    assert [first[name] for name in ("request_id", "version", "prediction")] == ["first", "3", 6]
    assert [first[name] for name in ("expected_quality", "latency_ms")] == [5.75, 1.5]
    assert first["probabilities"] == '{"5": 0.25, "6": 0.75}'
    assert math.isnan(first["quality"])
    assert second["quality"] == 7
    assert count_answers(url) == 2


def test_windows_are_read_by_time_and_in_parts(log: PredictionLog, url: str) -> None:
    start = time.time() - 1_000
    for second in range(1_000):
        log.add_answer(make_answer(str(second), start + second))
    log.close()
    before, after = read_answers(url, until=start + 500), read_answers(url, since=start + 500)
    assert before["request_id"].tolist() == [str(second) for second in range(500)]
    assert after["request_id"].tolist() == [str(second) for second in range(500, 1_000)]
    assert [len(part) for part in iterate_answers(url, rows=300)] == [300, 300, 300, 100]
    nothing, words = read_answers(url, since=time.time() + 60), ["request_id", "version", "run_id", "probabilities"]
    assert nothing.empty
    assert nothing.dtypes.drop(words).equals(before.dtypes.drop(words))


def test_refusals_are_logged_by_field_and_reason_and_cut_to_size(log: PredictionLog, url: str) -> None:
    log.add_refusal(LoggedRefusal(time.time(), "one", "/predict", 422, (("pH", "too low"), ("alcohol", "missing"))))
    log.add_refusal(LoggedRefusal(time.time(), "two", "/predict", 503, ()))
    log.add_refusal(LoggedRefusal(time.time(), "three", "/predict", 422, (("\ud800\0" * 200, "?" * 999),) * 25))
    log.close()
    refusals = read_refusals(url)
    columns = ["request_id", "status", "field", "reason"]
    first, second, third, *_ = refusals[columns].itertuples(index=False, name=None)
    assert (first, second) == (("one", 422, "pH", "too low"), ("one", 422, "alcohol", "missing"))
    assert third == ("two", 503, "", "")
    assert refusals["status"].tolist()[3:] == [422] * 20
    assert set(refusals["field"].str.len()[3:]) == set(refusals["reason"].str.len()[3:]) == {200}
    assert (log.counts.written, log.counts.lost) == (3, 0)


def test_feedback_finds_an_answer_that_another_process_gave_an_instant_ago(log: PredictionLog, url: str) -> None:
    command = [sys.executable, "-c", CHILD + LOG_ONE, url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "logged\n"
        asyncio.run(log.add_feedback("theirs", 4))
        child.communicate("go\n", timeout=30)
    assert read_answers(url)["quality"].tolist() == [4]


def test_of_four_feedbacks_at_once_one_is_kept(log: PredictionLog) -> None:
    with pytest.raises(UnknownRequestError, match="mine"):
        asyncio.run(log.add_feedback("mine", 5))
    log.add_answer(make_answer("mine"))
    start = threading.Barrier(4)

    def send(_: int) -> None:
        start.wait()
        asyncio.run(log.add_feedback("mine", 5))

    with ThreadPoolExecutor(4) as pool:
        errors = [sent.exception() for sent in [pool.submit(send, number) for number in range(4)]]
    assert sorted(type(error).__name__ for error in errors) == ["NoneType"] + ["RepeatedFeedbackError"] * 3


def test_kill_9_loses_at_most_the_last_second(url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD + LOG_ON, url], cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline().split() for _ in range(1_500)]
        killed = time.time()
        child.kill()
    due = [number.decode() for number, at in lines if float(at) < killed - 1]
    assert len(due) > 100
    assert read_answers(url)["request_id"].tolist()[: len(due)] == due


def test_a_locked_database_loses_nothing(log: PredictionLog, url: str, capfd: pytest.CaptureFixture[str]) -> None:
    other = lock_database(url)
    add_answers(log, 3_000)
    with pytest.raises(NotThereError, match=naming("database is locked", "again")):
        asyncio.run(log.add_feedback("0", 5))
    wait_until(lambda: "database is locked" in capfd.readouterr().err, "a word of the lock")
    assert log.counts.waiting == 3_000
    other.close()
    wait_for_rows(log, 3_000)
    assert (log.counts.lost, count_answers(url)) == (0, 3_000)


@pytest.mark.alone
def test_a_full_queue_counts_what_it_loses_and_keeps_nobody_waiting(url: str) -> None:
    log = PredictionLog(url, days=90, rows=100_000, waiting=100)
    log.open()
    other = lock_database(url)
    started = time.perf_counter()
    add_answers(log, 1_000)
    assert time.perf_counter() - started < 1
    counts = log.counts
    assert counts.lost + counts.waiting == 1_000
    assert counts.lost >= 800
    assert list_missing(counts.problem, "100") == []
    other.close()
    log.close()
    assert log.counts.written == count_answers(url) == counts.waiting


def test_a_log_that_ends_while_locked_ends_in_seconds_and_counts_what_is_lost(log: PredictionLog, url: str) -> None:
    other = lock_database(url)
    log.add_answer(make_answer("one"))
    started = time.perf_counter()
    log.close()
    assert time.perf_counter() - started < 6
    assert (log.counts.lost, log.counts.waiting) == (1, 0)
    assert "database is locked" in log.counts.problem
    other.close()
    log.add_answer(make_answer("late"))
    assert log.counts.lost == 2
    assert list_missing(log.counts.problem, "closed") == []


def test_a_repeated_request_id_is_counted_and_takes_no_other_answer_with_it(log: PredictionLog, url: str) -> None:
    for request_id in ("one", "two", "one", "three"):
        log.add_answer(make_answer(request_id))
    log.close()
    assert read_answers(url)["request_id"].tolist() == ["one", "two", "three"]
    assert (log.counts.written, log.counts.lost) == (3, 1)
    assert list_missing(log.counts.problem, "request ids") == []


def test_a_log_of_another_version_is_refused_by_name(log: PredictionLog, url: str) -> None:
    log.close()
    connect(url).execute("UPDATE prediction_log_schema SET version = 7")
    with pytest.raises(BadInputError, match=naming("predictions.db", "version 7", "WINE_LOG_URL")):
        log.open()
    with pytest.raises(BadInputError, match="version 7"):
        read_answers(url)


def test_a_log_from_before_refusals_counted_wines_is_read_and_written_on(log: PredictionLog, url: str) -> None:
    log.add_refusal(LoggedRefusal(time.time(), "old", "/predict", 422, ()))
    log.close()
    connect(url).execute("ALTER TABLE refusals DROP COLUMN wines")
    assert read_refusals(url)["wines"].tolist() == [1]
    connect(url).execute("ALTER TABLE refusals DROP COLUMN wines")
    again = PredictionLog(url, days=90, rows=100)
    again.open()
    again.add_refusal(LoggedRefusal(time.time(), "new", "/predict/batch", 422, (), wines=700))
    again.close()
    assert read_refusals(url)["wines"].tolist() == [1, 700]


def test_eight_processes_open_a_new_log_at_once_and_every_answer_is_there(url: str) -> None:
    """Forked before the log is opened, so that they start within a millisecond; output ends when the last one has."""
    command = [sys.executable, "-c", CHILD + EIGHT_LOG_200, url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    answers = read_answers(url)["request_id"]
    assert (len(answers), answers.str.split().str[0].nunique()) == (1_600, 8)


@pytest.mark.parametrize(
    ("address", "facts"),
    [
        ("predictions.db", ("WINE_LOG_URL", "sqlite:////a/file.db")),
        ("sqlite://", ("WINE_LOG_URL", "sqlite:////a/file.db")),
        ("mysql://wine:secret@localhost/wine", ("WINE_LOG_URL",)),
        ("postgres//wine:secret@localhost/wine", ("WINE_LOG_URL",)),
        ("postgresql+psycopg://wine:secret@127.0.0.1:1/wine", ("127.0.0.1:1", "psycopg")),
        ("sqlite:////proc/none/predictions.db", ("predictions.db", "No such file or directory", "WINE_LOG_URL")),
        (f"sqlite:///{ROOT / 'settings.py'}", ("settings.py", "file is not a database", "WINE_LOG_URL")),
    ],
)
def test_a_database_that_cannot_be_had_is_named_without_its_password(address: str, facts: tuple[str, ...]) -> None:
    with pytest.raises(NotThereError, match=naming(*facts)) as caught:
        PredictionLog(address, days=90, rows=100).open()
    assert "secret" not in str(caught.value)


def test_reading_a_log_that_is_off_names_a_way_to_have_one() -> None:
    with pytest.raises(NotThereError, match=naming("WINE_LOG_URL=off", "unset", "sqlite:////a/file.db")) as caught:
        read_answers("off")
    assert "or to off" not in str(caught.value)


def test_reading_a_log_that_is_not_there_says_so_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=r"predictions\.db\b"):
        read_answers(f"sqlite:///{tmp_path / 'predictions.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.alone
def test_the_writer_keeps_up_while_the_process_computes(log: PredictionLog) -> None:
    """A writer that waits for the interpreter at each row writes 200 rows/s; this one about 20,000."""
    add_answers(log, 20_000)
    wait_for_rows(log, 20_000, seconds=20_000 / 3_000)
    assert log.counts.lost == 0
