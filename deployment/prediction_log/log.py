"""The prediction log: a thread of its own writes every prediction and every refusal.

The API adds rows to a queue without waiting. The thread writes the queue four times per second, so that kill -9 loses
less than a second. Rows that cannot be written are counted, and delay no response.
"""

import asyncio
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Engine, Float, Integer, insert, literal, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from commands import BadInputError, NotThereError
from deployment.prediction_log.findings import Findings, read_findings
from deployment.prediction_log.tables import (
    FEEDBACK,
    PREDICTIONS,
    REFUSALS,
    explain_error,
    find_edge,
    find_file,
    identify_file,
    insert_rows,
    make_engine,
    may_pass,
    prepare_tables,
    trim_tables,
)
from wine_data.schema import TARGET

LOW_PRIORITY = 10
FLUSH_SECONDS = 0.25
BATCH_ROWS = 2_048  # per transaction; all are lost if the database refuses one of them for good
TRIM_EVERY = 60.0
TRIM_SECONDS = 0.1  # for deletions between two flushes
PAUSES = (0.0, 0.0, 0.15, 0.15, 0.15)  # before each search for a prediction; in total longer than another's flush
ERRORS_KEPT = 20  # per refusal
CHARACTERS_KEPT = 200  # per text of a refusal
ID_DIGITS = 32  # of a request id; wines of a batch have a number appended


class UnknownRequestError(Exception):
    """The log has no prediction with this id: there never was one, or it was deleted as too old."""


class RepeatedFeedbackError(Exception):
    """The prediction already has feedback."""


class LoggedAnswer(NamedTuple):
    """The prediction for one wine, in plain Python values."""

    time: float
    request_id: str
    version: str
    run_id: str
    wine: tuple[float, ...]
    prediction: int
    probabilities: str
    expected_quality: float
    latency_ms: float


class LoggedRefusal(NamedTuple):
    """One refused request: the wrong fields with their reasons, and its number of wines."""

    time: float
    request_id: str
    route: str
    status: int
    errors: tuple[tuple[str, str], ...]
    wines: int = 1


@dataclass(frozen=True)
class LogCounts:
    """The numbers of rows written, lost and waiting; `problem` is the last reason for a loss."""

    written: int
    lost: int
    waiting: int
    problem: str


class PredictionLog:
    """A log with one writer thread; several processes may share a database."""

    def __init__(self, url: str, days: float, rows: int, waiting: int = 50_000) -> None:
        """Configure a log at the SQLAlchemy address of a SQLite file or a PostgreSQL database, without opening it.

        The log keeps predictions and refusals for `days`, at most the newest `rows` of each; `rows` does not limit
        graded predictions. At most `waiting` rows wait to be written.
        """
        self._url, self._days, self._rows, self._capacity = url, days, rows, waiting
        self._queue: deque[LoggedAnswer | LoggedRefusal] = deque()
        self._batch: list[LoggedAnswer | LoggedRefusal] = []  # taken from the queue, not yet written
        self._written = self._lost = 0
        self._failure = self._problem = ""  # why the log cannot be written now; the last reason for a loss
        self._writing, self._counting, self._ending = threading.Lock(), threading.Lock(), threading.Event()
        self._writer: threading.Thread | None = None
        self._engine: Engine
        self._trim_at = 0.0

    def open(self) -> None:
        """Create missing parts of the database and start the writer. Errors as in make_engine and prepare_tables."""
        self._engine = make_engine(self._url)
        prepare_tables(self._engine)
        self._file = identify_file(self._engine)
        self._trimming: Iterator[None] = trim_tables(self._engine, self._days, self._rows)
        self._writer = threading.Thread(target=self._run_writer, name="prediction log", daemon=True)
        self._writer.start()

    def add_answer(self, answer: LoggedAnswer) -> None:
        """Queue a prediction; never blocks, never raises."""
        self._queue_row(answer)

    def add_refusal(self, refusal: LoggedRefusal) -> None:
        """Queue a refusal; never blocks, never raises."""
        self._queue_row(refusal)

    async def add_feedback(self, request_id: str, quality: int, threads: Executor | None = None) -> None:
        """Write a taster's grade for a prediction, on a thread; no thread waits the half second for an unknown id.

        Raises:
            UnknownRequestError: there is no such prediction, here or in another process with this database.
            RepeatedFeedbackError: it already has feedback.
            NotThereError: the database cannot be written now.
        """
        loop = asyncio.get_running_loop()
        for pause in PAUSES:
            await asyncio.sleep(pause)
            if await loop.run_in_executor(threads, self._try_feedback, request_id, quality):
                return
        raise UnknownRequestError(await loop.run_in_executor(threads, self._explain_unknown, request_id))

    def _try_feedback(self, request_id: str, quality: int) -> bool:
        """Write the feedback if its prediction is in the database, else flush the queue. Errors as in add_feedback."""
        if self._insert_feedback(clean_text(request_id), quality):
            return True
        self._flush()
        return False

    def close(self) -> None:
        """Write the queue and end the writer permanently; rows that cannot be written are lost and counted."""
        if self._writer is None:
            return
        self._capacity = 0
        self._ending.set()
        self._writer.join()
        self._writer = None
        if self._waiting:
            self._count_lost(self._waiting, f"the log was closed while {self._failure or 'rows came in'}")
        self._queue.clear()
        self._batch = []
        self._engine.dispose()

    def read_findings(self) -> Findings:
        """The findings of the last monitoring run."""
        return read_findings(self._engine)

    @property
    def counts(self) -> LogCounts:
        """The numbers of rows written, lost and waiting so far."""
        return LogCounts(self._written, self._lost, self._waiting, self._problem)

    @property
    def _waiting(self) -> int:
        return len(self._queue) + len(self._batch)

    def _queue_row(self, row: LoggedAnswer | LoggedRefusal) -> None:
        if self._waiting < self._capacity:
            self._queue.append(row)
            return
        full = f"{self._capacity:,} rows wait already" if self._capacity else "the log is closed"
        self._count_lost(1, f"{full} ({self._failure})" if self._failure else full)

    def _run_writer(self) -> None:
        if sys.platform == "linux":  # Linux has priorities per thread: responses come first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)
        while not self._ending.wait(FLUSH_SECONDS):
            self._flush()
            self._trim()
        self._flush()
        if self._batch:  # for a file that was deleted just now
            self._flush()

    def _flush(self) -> None:
        """Write the rows that wait now, in batches; one thread at a time."""
        with self._writing:
            if not self._follow_file():
                return
            left = self._waiting
            while left > 0:
                if not self._batch:
                    self._batch = [self._queue.popleft() for _ in range(min(BATCH_ROWS, len(self._queue)))]
                left -= len(self._batch)
                try:
                    if not self._write_batch():
                        return
                    self._report("")
                except Exception as error:  # no error may stop the API
                    self._report(explain_error(error))
                    self._engine.dispose()  # a connection that found the file read-only keeps treating it so
                    if may_pass(error):
                        return
                    self._count_lost(len(self._batch), self._failure)
                self._batch = []

    def _follow_file(self) -> bool:
        """Reopen the log if its file was deleted or replaced: SQLite would go on writing to the old file."""
        if identify_file(self._engine) == self._file:
            return True
        self._engine.dispose()
        try:
            prepare_tables(self._engine)
        except (BadInputError, NotThereError) as error:
            self._report(str(error))
            return False
        self._file = identify_file(self._engine)
        say(f"was deleted or replaced, and is opened anew: {find_file(self._engine)}")
        return True

    def _write_batch(self) -> bool:
        """Write the batch; False if the log's file is another by now, and the rows are to be written again."""
        answers = [row[:4] + row.wine + row[5:] for row in self._batch if isinstance(row, LoggedAnswer)]
        refusals = [line for row in self._batch if isinstance(row, LoggedRefusal) for line in lay_out_refusal(row)]
        with self._engine.begin() as connection:
            repeated = len(answers) - insert_rows(connection, PREDICTIONS, answers)
            insert_rows(connection, REFUSALS, refusals)
        if identify_file(self._engine) != self._file:
            return False
        if repeated:
            self._count_lost(repeated, "their request ids are in the log already")
        self._written += len(self._batch) - repeated
        return True

    def _insert_feedback(self, request_id: str, quality: int) -> bool:
        """Write feedback if its prediction is in the database, in one statement."""
        values = (PREDICTIONS.c.request_id, literal(time.time(), Float), literal(quality, Integer))
        answered = select(*values).where(PREDICTIONS.c.request_id == request_id)
        added = insert(FEEDBACK).from_select(["request_id", "time", TARGET], answered)
        try:
            with self._engine.begin() as connection:  # without the option psycopg's count is -1
                return connection.execute(added.execution_options(preserve_rowcount=True)).rowcount == 1
        except IntegrityError as error:
            raise RepeatedFeedbackError(f"the answer {request_id} has a grade already") from error
        except SQLAlchemyError as error:
            raise NotThereError(
                f"the prediction log cannot be written now ({explain_error(error)}): send the feedback again later"
            ) from error

    def _explain_unknown(self, request_id: str) -> str:
        """Explain whether the prediction with this id was deleted, or never existed."""
        answered, edge = find_time(request_id), time.time() - self._days * 86_400
        with suppress(SQLAlchemyError), self._engine.begin() as connection:
            edge = max(edge, find_edge(connection, PREDICTIONS, self._rows))
        if not 0 < answered < edge:
            return (
                f"No answer in the log has the request id {clean_text(request_id)}; wines of a batch have ids of their "
                "own, and those that python -m deployment.batch answers in files are not in the log"
            )
        when = f"{datetime.fromtimestamp(answered, UTC):%Y-%m-%d %H:%M} UTC"
        return (
            f"The answer {clean_text(request_id)} was deleted: it is from {when}, "
            f"and the log keeps {self._days:g} days (WINE_LOG_DAYS), the newest {self._rows:,} answers (WINE_LOG_ROWS)"
        )

    def _trim(self) -> None:
        """Delete rows that are too old or too many, for 0.1 s at a time; start again each minute."""
        if time.monotonic() < self._trim_at:
            return
        until = time.monotonic() + TRIM_SECONDS
        try:
            for _ in self._trimming:
                if time.monotonic() > until:
                    return
        except Exception as error:
            self._report(explain_error(error))
        self._trimming = trim_tables(self._engine, self._days, self._rows)
        self._trim_at = time.monotonic() + TRIM_EVERY

    def _count_lost(self, rows: int, reason: str) -> None:
        with self._counting:
            self._lost += rows
            self._problem = reason

    def _report(self, failure: str) -> None:
        """Print to stderr when writing starts to fail and when it works again, not at each flush in between."""
        if bool(failure) != bool(self._failure):
            say(f"cannot be written: {failure}" if failure else f"is written again; {self._lost:,} rows are lost")
        self._failure = failure


def say(news: str) -> None:
    """Print a message about the log to stderr."""
    with suppress(OSError, ValueError):  # stderr may be closed
        print(f"prediction log {news}", file=sys.stderr, flush=True)


def lay_out_refusal(refusal: LoggedRefusal) -> list[tuple[Any, ...]]:
    """Convert a refusal to rows of the table, one per error; the client's texts are shortened."""
    start = (refusal.time, clean_text(refusal.request_id), clean_text(refusal.route), refusal.status)
    errors = refusal.errors[:ERRORS_KEPT] or (("", ""),)  # a 503 names no field
    return [(*start, clean_text(field), clean_text(reason), refusal.wines) for field, reason in errors]


def find_time(request_id: str) -> float:
    """The time in a request id, which begins with milliseconds in 12 hexadecimal digits; 0 for a foreign id."""
    try:
        seconds = int(request_id[:12], 16) / 1000
    except ValueError:
        return 0.0
    return seconds if len(request_id) >= ID_DIGITS and seconds < time.time() else 0.0


def clean_text(text: str) -> str:
    """Shorten a text to 200 characters and replace what a database refuses: lone surrogates and NUL."""
    return text[:CHARACTERS_KEPT].replace("\0", "?").encode(errors="replace").decode()
