"""What the prediction log deletes and what it keeps, on real files."""

import asyncio
import time

import pytest

from deployment.api.limits import make_request_id
from deployment.prediction_log.log import LoggedRefusal, PredictionLog, UnknownRequestError
from deployment.prediction_log.reader import count_answers, read_answers, read_refusals
from tests.messages import naming
from tests.test_prediction_log import connect, log, make_answer, url
from tests.waiting import wait_until

__all__ = ["log", "url"]  # fixtures
pytestmark = pytest.mark.fast

DAY = 86_400.0


def test_what_is_too_old_goes_with_its_feedback(url: str) -> None:
    log, now = PredictionLog(url, days=10_000, rows=100_000), time.time()
    log.open()
    for days in range(5_000):  # more than one step of deletion
        log.add_answer(make_answer(f"old {days}", now - 91 * DAY - days))
    log.add_answer(make_answer("new", now - 89 * DAY))
    log.add_refusal(LoggedRefusal(now - 91 * DAY, "old", "/predict", 422, (("pH", "missing"),)))
    asyncio.run(log.add_feedback("old 7", 5))
    asyncio.run(log.add_feedback("new", 6))
    log.close()
    again = PredictionLog(url, days=90, rows=100_000)
    again.open()
    wait_until(lambda: read_refusals(url).empty, "the end of old refusals")
    again.close()
    assert read_answers(url)[["request_id", "quality"]].to_numpy().tolist() == [["new", 6]]
    assert connect(url).execute("SELECT request_id FROM feedback").fetchall() == [("new",)]


def test_only_the_newest_rows_are_kept(log: PredictionLog, url: str) -> None:
    for number in range(5_000):
        log.add_answer(make_answer(str(number), 1_000.0 + number + time.time() - 10_000))
    log.close()
    again = PredictionLog(url, days=90, rows=100)
    again.open()
    wait_until(lambda: count_answers(url) == 100, "100 answers left")
    again.close()
    assert read_answers(url)["request_id"].tolist() == [str(number) for number in range(4_900, 5_000)]


def test_a_graded_answer_is_kept_for_the_days_whatever_comes_after_it(log: PredictionLog, url: str) -> None:
    start = time.time() - 10_000
    for number in range(5_000):
        log.add_answer(make_answer(str(number), start + number))
    for number in (7, 2_500, 2_501):  # in several steps of deletion
        asyncio.run(log.add_feedback(str(number), 8))
    log.close()
    again = PredictionLog(url, days=90, rows=100)
    again.open()
    wait_until(lambda: count_answers(url) == 103, "the newest and the graded answers left")
    again.close()
    graded = read_answers(url).dropna(subset="quality")
    assert (graded["request_id"].tolist(), graded["quality"].tolist()) == (["7", "2500", "2501"], [8, 8, 8])


def test_feedback_that_comes_too_late_learns_that_its_answer_was_deleted(url: str) -> None:
    early = make_request_id()
    log = PredictionLog(url, days=90, rows=3)
    log.open()
    for _ in range(3):
        time.sleep(0.01)
        log.add_answer(make_answer(make_request_id()))
    wait_until(lambda: log.counts.written == 3, "three answers in the log")
    for request_id, facts in (
        (early, ("deleted", "UTC", "WINE_LOG_ROWS", "3 answers")),
        (f"{early}-17", ("deleted", "WINE_LOG_DAYS")),
        (make_request_id(), ("No answer", "batch")),
        ("0" * 31 + "x", ("No answer",)),
    ):
        with pytest.raises(UnknownRequestError, match=naming(*facts)):
            asyncio.run(log.add_feedback(request_id, 6))
    log.close()
