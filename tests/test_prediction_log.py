"""The prediction log on real files: what comes back from it, and what becomes of it when processes and disks fail."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.dialects.postgresql import psycopg

from commands import BadInputError, NotThereError
from deployment.prediction_log.log import (
    LoggedAnswer,
    LoggedRefusal,
    PredictionLog,
    RepeatedFeedbackError,
    UnknownRequestError,
)
from deployment.prediction_log.reader import count_answers, iterate_answers, read_answers, read_refusals
from deployment.prediction_log.tables import PREDICTIONS, write_insert
from settings import ROOT
from tests.told import list_untold, naming
from tests.waiting import wait_until
from wine_data.schema import FEATURES

pytestmark = pytest.mark.fast

WINE = (7.0, 0.27, 0.36, 20.7, 0.045, 45.0, 170.0, 1.001, 3.0, 0.45, 8.8, 1.0)
DAY = 86_400.0
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
    return LoggedAnswer(at or time.time(), request_id, "3", "run", WINE, 6, '{"5": 0.25, "6": 0.75}', 5.75, 1.5)


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
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_an_answer_comes_back_from_the_log_as_it_went(log: PredictionLog, url: str) -> None:
    hour_ago = time.time() - 3_600
    log.add_answer(make_answer("first", hour_ago))
    log.add_answer(make_answer("second"))
    wait_for_rows(log, 2)
    log.add_feedback("second", 7)
    log.close()
    first, second = read_answers(url).to_dict("records")
    assert tuple(first[name] for name in FEATURES) == WINE
    assert first["time"] == hour_ago
    told = [first[name] for name in ("request_id", "version", "prediction", "expected_quality", "latency_ms")]
    assert told == ["first", "3", 6, 5.75, 1.5]
    assert first["probabilities"] == '{"5": 0.25, "6": 0.75}'
    assert first["quality"] != first["quality"]
    assert second["quality"] == 7
    assert count_answers(url) == 2


def test_windows_are_read_by_time_and_in_parts(log: PredictionLog, url: str) -> None:
    for at in range(1, 1_001):
        log.add_answer(make_answer(str(at), time.time() - 1_000 + at))
    middle = time.time() - 500
    log.close()
    before, after = read_answers(url, until=middle), read_answers(url, since=middle)
    assert before["request_id"].tolist() + after["request_id"].tolist() == [str(at) for at in range(1, 1_001)]
    assert 490 < len(before) < 510
    parts = list(iterate_answers(url, rows=300))
    assert [len(part) for part in parts] == [300, 300, 300, 100]
    nothing = read_answers(url, since=time.time() + 60)
    assert nothing.empty
    assert nothing.dtypes.to_dict() == parts[0].dtypes.to_dict() | {
        name: nothing[name].dtype for name in ("request_id", "version", "probabilities")
    }


def test_refusals_are_logged_by_field_and_reason_and_cut_to_size(log: PredictionLog, url: str) -> None:
    log.add_refusal(LoggedRefusal(time.time(), "one", "/predict", 422, (("pH", "too low"), ("alcohol", "missing"))))
    log.add_refusal(LoggedRefusal(time.time(), "two", "/predict", 503, ()))
    log.add_refusal(LoggedRefusal(time.time(), "three", "/predict", 422, (("\ud800\0" * 200, "?" * 999),) * 25))
    log.close()
    refusals = read_refusals(url)
    assert refusals.loc[:2, ["request_id", "field", "reason"]].to_numpy().tolist() == [
        ["one", "pH", "too low"],
        ["one", "alcohol", "missing"],
        ["two", "", ""],
    ]
    assert refusals["status"].tolist() == [422, 422, 503] + [422] * 20
    assert set(refusals["field"].str.len()[3:]) == set(refusals["reason"].str.len()[3:]) == {200}
    assert (log.counts.written, log.counts.lost) == (3, 0)


def test_feedback_is_taken_once_for_an_answer_given_an_instant_ago(log: PredictionLog, url: str) -> None:
    log.add_answer(make_answer("mine"))
    log.add_feedback("mine", 8)
    with pytest.raises(RepeatedFeedbackError, match="mine"):
        log.add_feedback("mine", 8)
    with pytest.raises(UnknownRequestError, match="nobody's"):
        log.add_feedback("nobody's", 8)
    assert read_answers(url)["quality"].tolist() == [8]


def test_feedback_finds_an_answer_that_another_process_gave_an_instant_ago(log: PredictionLog, url: str) -> None:
    command = [sys.executable, "-c", CHILD + LOG_ONE, url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "logged\n"
        log.add_feedback("theirs", 4)
        child.communicate("go\n", timeout=30)
    assert read_answers(url)["quality"].tolist() == [4]


def test_of_two_feedbacks_at_once_one_wins(log: PredictionLog) -> None:
    log.add_answer(make_answer("mine"))
    start, results = threading.Barrier(4), []

    def send() -> None:
        start.wait()
        try:
            log.add_feedback("mine", 5)
            results.append("taken")
        except RepeatedFeedbackError:
            results.append("repeated")

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["repeated", "repeated", "repeated", "taken"]


def test_kill_9_loses_at_most_the_last_second(url: str, tmp_path: Path) -> None:
    with (tmp_path / "told").open("w") as told:
        child = subprocess.Popen([sys.executable, "-c", CHILD + LOG_ON, url], cwd=ROOT, stdout=told)
    try:
        wait_until(lambda: (tmp_path / "told").read_text().count("\n") > 1_500, "1,500 answers", seconds=60)
    finally:
        killed = time.time()
        child.send_signal(signal.SIGKILL)
        child.wait()
    lines = [line.split() for line in (tmp_path / "told").read_text().splitlines()]
    due = [line[0] for line in lines if len(line) == 2 and float(line[1]) < killed - 1]
    logged = read_answers(url)["request_id"].tolist()
    assert len(due) > 100
    assert logged[: len(due)] == due


def test_a_full_disk_loses_rows_counts_them_says_why_and_the_log_goes_on_after(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here (needs root)")
    try:
        url = f"sqlite:///{tmp_path / 'predictions.db'}"
        log = PredictionLog(url, days=90, rows=100_000)
        log.open()
        log.add_answer(make_answer("before"))
        wait_for_rows(log, 1)
        (tmp_path / "filler").write_bytes(bytes(shutil.disk_usage(tmp_path).free - 65_536))
        for number in range(5_000):
            log.add_answer(make_answer(str(number)))
        wait_until(lambda: log.counts.waiting == 0, "an empty queue")
        counts = log.counts
        assert counts.lost + counts.written == 5_001
        assert counts.lost >= 2_048
        assert counts.problem == "database or disk is full"
        (tmp_path / "filler").unlink()
        log.add_answer(make_answer("after"))
        wait_for_rows(log, counts.written + 1)
        log.close()
        logged = read_answers(url)["request_id"].tolist()
        assert (logged[0], logged[-1], len(logged)) == ("before", "after", counts.written + 1)
        assert log.counts.lost == counts.lost
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    trouble, end = capfd.readouterr().err.splitlines()
    assert list_untold(trouble, "prediction log", "database or disk is full") == []
    assert list_untold(end, "prediction log", f"{counts.lost:,}") == []


def test_a_database_locked_for_seconds_loses_nothing_and_feedback_says_to_come_again(
    log: PredictionLog, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    other = lock_database(url)
    for number in range(3_000):
        log.add_answer(make_answer(str(number)))
    with pytest.raises(NotThereError, match=naming("database is locked", "again")):
        log.add_feedback("0", 5)
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
    for number in range(1_000):
        log.add_answer(make_answer(str(number)))
    assert time.perf_counter() - started < 1
    counts = log.counts
    assert counts.lost + counts.waiting == 1_000
    assert counts.lost >= 800
    assert list_untold(counts.problem, "100") == []
    other.close()
    log.close()
    assert log.counts.written == count_answers(url) == counts.waiting


def test_a_log_that_ends_while_locked_ends_in_seconds_and_counts_what_is_left(log: PredictionLog, url: str) -> None:
    other = lock_database(url)
    log.add_answer(make_answer("one"))
    started = time.perf_counter()
    log.close()
    assert time.perf_counter() - started < 6
    assert (log.counts.lost, log.counts.waiting) == (1, 0)
    assert "database is locked" in log.counts.problem
    other.close()


def test_what_comes_after_the_end_is_counted_as_lost(log: PredictionLog) -> None:
    log.close()
    log.add_answer(make_answer("late"))
    assert log.counts.lost == 1
    assert list_untold(log.counts.problem, "closed") == []


def test_a_repeated_request_id_is_counted_and_takes_no_other_answer_with_it(log: PredictionLog, url: str) -> None:
    for request_id in ("one", "two", "one", "three"):
        log.add_answer(make_answer(request_id))
    log.close()
    assert read_answers(url)["request_id"].tolist() == ["one", "two", "three"]
    assert (log.counts.written, log.counts.lost) == (3, 1)
    assert list_untold(log.counts.problem, "request ids") == []


def test_what_is_too_old_goes_with_its_feedback(log: PredictionLog, url: str) -> None:
    now = time.time()
    for days in range(5_000):  # more than one step of deletion
        log.add_answer(make_answer(f"old {days}", now - 91 * DAY - days))
    log.add_answer(make_answer("new", now - 89 * DAY))
    log.add_refusal(LoggedRefusal(now - 91 * DAY, "old", "/predict", 422, (("pH", "missing"),)))
    log.add_feedback("old 7", 5)
    log.add_feedback("new", 6)
    log.close()
    again = PredictionLog(url, days=90, rows=100_000)
    again.open()
    wait_until(lambda: len(read_refusals(url)) == 0, "the end of old refusals")
    again.close()
    assert read_answers(url)[["request_id", "quality"]].to_numpy().tolist() == [["new", 6]]
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT request_id FROM feedback").fetchall() == [("new",)]


def test_only_the_newest_rows_are_kept(log: PredictionLog, url: str) -> None:
    for number in range(5_000):
        log.add_answer(make_answer(str(number), 1_000.0 + number + time.time() - 10_000))
    log.close()
    again = PredictionLog(url, days=90, rows=100)
    again.open()
    wait_until(lambda: count_answers(url) == 100, "100 answers left")
    again.close()
    assert read_answers(url)["request_id"].tolist() == [str(number) for number in range(4_900, 5_000)]


def test_a_log_of_another_version_is_refused_by_name(log: PredictionLog, url: str) -> None:
    log.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE prediction_log_schema SET version = 7")
    with pytest.raises(BadInputError, match=naming("predictions.db", "version 7", "version 1", "WINE_LOG_URL")):
        log.open()
    with pytest.raises(BadInputError, match="version 7"):
        read_answers(url)


def test_eight_processes_open_a_new_log_at_once_and_every_answer_is_there(url: str) -> None:
    """Forked before the log is opened, so that they start within a millisecond; output ends when the last one has."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD + EIGHT_LOG_200, url],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
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


def test_reading_a_log_that_is_not_there_says_so_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=r"predictions\.db\b"):
        read_answers(f"sqlite:///{tmp_path / 'predictions.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.alone
def test_the_writer_keeps_up_while_the_process_computes(log: PredictionLog) -> None:
    """A writer that waits for the interpreter at each row writes 200 rows/s; this one about 20,000."""
    for number in range(20_000):
        log.add_answer(make_answer(str(number)))
    wait_for_rows(log, 20_000, seconds=20_000 / 3_000)
    assert log.counts.lost == 0


def test_postgresql_gets_the_same_insert_in_its_own_words() -> None:
    text = write_insert(PREDICTIONS, 2, psycopg.dialect())  # type: ignore[no-untyped-call]
    assert text.startswith("INSERT INTO predictions (time, request_id, version, run_id, fixed_acidity,")
    assert ' "pH", ' in text
    assert text.endswith(f"{', '.join(['(' + ', '.join(['%s'] * 20) + ')'] * 2)} ON CONFLICT DO NOTHING")
