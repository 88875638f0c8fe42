"""Faults on purpose, as SQLite's own tests make them: the n-th step that touches a disk or a database does not happen.

A step is an open, a mkdir, a rename or a replace of a file under one folder, an fsync, or a commit of a database. They
are counted, and the n-th fails in one of three ways. A trial asks for the 1st, the 2nd, … until a run gets through
untouched. Each trial has a process of its own, forked from a server that has imported everything and opened nothing.
"""

import builtins
import io
import multiprocessing
import os
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sqlalchemy
from sqlalchemy.exc import OperationalError

ONCE, ALWAYS, EXIT = "once", "always", "exit"  # an OSError; one at this step and all after it; the process is gone
WAYS = (ONCE, ALWAYS, EXIT)
EXIT_CODE, SECONDS = 87, 120
PRELOADED = ["tests.test_faults", "experiment_tracking.registry.__main__", "wine_data.split"]
PRELOADED += ["experiment_tracking.runs.store", "wine_quality_training.bundle.compilation", "sklearn.ensemble"]
PRELOADED += ["deployment.batch.__main__", "deployment.batch.file", "deployment.prediction_log.log", "tests.running"]


class Faults:
    """Counts the steps, and makes the n-th one fail; `place` is the step that failed, "" as long as none has."""

    def __init__(self, folder: Path, fail_at: int, way: str) -> None:
        self._folder, self._fail_at, self._way = str(folder), fail_at, way
        self.steps, self.place = 0, ""

    def count(self, step: str, error: Exception) -> None:
        """Count a step; raise its error, or end the process, if it is the one."""
        self.steps += 1
        if self.steps != self._fail_at and not (self._way == ALWAYS and self.place):
            return
        self.place = self.place or step
        if self._way == EXIT:
            os._exit(EXIT_CODE)
        raise error

    def watch(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function of a file, with each call for one under the folder counted first."""

        def counted(file: Any, *arguments: Any, **named: Any) -> Any:
            inside = str(file).startswith(self._folder)
            if inside or name == "fsync":  # which has a number for a file
                self.count(
                    f"{name} {str(file).removeprefix(self._folder)}", OSError(5, "Input/output error", str(file))
                )
            return function(file, *arguments, **named)

        return counted

    def commit(self, _: sqlalchemy.Connection) -> None:
        """Count a commit; SQLAlchemy calls this just before it asks the database for one."""
        self.count("commit", OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error")))


@contextmanager
def make_faults(folder: Path, fail_at: int, way: str) -> Iterator[Faults]:
    """Let the n-th step under a folder fail while the block lasts."""
    faults = Faults(folder, fail_at, way)
    with ExitStack() as stack:
        opens = faults.watch(open, "open")
        for module, name in ((builtins, "open"), (io, "open")):  # one function, which pathlib finds in io
            stack.enter_context(patch.object(module, name, opens))
        for name in ("open", "mkdir", "fsync", "rename", "replace"):
            stack.enter_context(patch.object(os, name, faults.watch(getattr(os, name), name)))
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", faults.commit)
        stack.callback(sqlalchemy.event.remove, sqlalchemy.Engine, "commit", faults.commit)
        yield faults


def run_alone(function: Callable[..., Any], *arguments: object) -> Any:
    """What a function of a module comes to in a process of its own; None where that process ended itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        answered = receiver.poll(SECONDS)
        outcome, result = receiver.recv() if answered else ("failed", f"no end after {SECONDS} s")
    except EOFError:
        process.join()
        assert process.exitcode == EXIT_CODE, process.exitcode
        return None
    finally:
        process.kill()
        process.join()
    assert outcome == "done", result
    return result


def _send_result(sender: Connection, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    try:
        sender.send(("done", function(*arguments)))
    except BaseException:
        sender.send(("failed", traceback.format_exc()))
