"""Limits on a request: how many at once, how large, how long it may take to arrive and be read; the key, and its id."""

import asyncio
import logging
import os
import time
import types
import zlib
from collections.abc import Generator
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.api.callers import NO_KEYS, Callers
from deployment.api.metrics import Metrics
from deployment.api.origin import LOAD_TEST, ORIGIN
from deployment.api.problems import FAILURE, REQUEST_ID, SCOPE_ID, ProblemError, refuse_field
from deployment.prediction_log.log import PredictionLog

logger = logging.getLogger("uvicorn.error")
OPEN = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})  # without a key, and however full
SEND_SECONDS = 10.0  # that a caller may take to read a part of an answer
OPEN_FOLDER = "/static-offline-docs/"  # what /docs is drawn with
PREDICT, PREDICT_BATCH = "/predict", "/predict/batch"
SENT_ID = REQUEST_ID.lower().encode()
FROM_LOAD_TEST = (ORIGIN.lower().encode(), LOAD_TEST.encode())
# Of the guard's own refusals the log gets so many a minute, of each status: it needs no key to be refused, and to log
# each would let a stranger fill the disk, or push the refusals that monitoring counts out of a log of WINE_LOG_ROWS.
# /metrics counts them all.
LOGGED_A_MINUTE = 10
CLOSE = {"Connection": "close"}  # nobody will read the rest of a body that may still be on its way


def find_path(scope: Scope) -> str:
    """The path of a request as routes name it: below uvicorn's --root-path, if it has one."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Guard:
    """ASGI middleware: at most so many requests in flight, an optional key, and each request measured and given an id.

    The id is in the header of every answer, and in `scope`, where refusals and the log take it from.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        in_flight: int,
        callers: Callers = NO_KEYS,
        log: PredictionLog | None = None,
    ) -> None:
        """Take the application, the limits, and who may call; `log` gets what is refused of the routes that predict."""
        self._app = app
        self._metrics = metrics
        self._most = in_flight
        self._callers, self._needs_key = callers, callers.need_key
        self._log = log
        self._minute, self._logged = 0, dict[int, int]()  # of the guard's refusals in this minute, by status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        path = find_path(scope)
        status = 0
        scope[SCOPE_ID] = request_id = make_request_id()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((SENT_ID, request_id.encode()))  # a list made for this answer alone
            # By hand what `async with timeout: await send(message)` would do, for that costs 3.6 microseconds a send,
            # and there are two to an answer. Nearly always the loop ends at once: the part went out without waiting.
            for awaited in (sending := send(message).__await__()):
                await _finish_in_time(sending, awaited, send)
                return

        is_open = path in OPEN or path.startswith(OPEN_FOLDER)
        problem = None if is_open else self._find_problem(path, scope)
        takes_place = not (is_open or problem)
        self._metrics.in_flight += takes_place
        try:
            if problem:
                self._log_refusal(scope, path, problem)
            await (problem.response(request_id) if problem else self._app)(scope, receive, watch)
        except SlowReaderError:
            logger.warning("The answer %s of %s was not read within %g s", request_id, path, SEND_SECONDS)
        except Exception:
            logger.exception("The request %s could not be answered", request_id)
            if not status:
                await FAILURE.response(request_id)(scope, receive, watch)
        finally:
            self._metrics.in_flight -= takes_place
            self._metrics.count_request(path, status or 500, perf_counter() - start)

    def _find_problem(self, path: str, scope: Scope) -> ProblemError | None:
        try:
            if self._needs_key:
                self._callers.require_key(path, scope["headers"])
            else:
                self._callers.require_host((scope.get("server") or ("",))[0], scope["headers"])
        except ProblemError as problem:
            return problem
        if self._metrics.in_flight >= self._most:
            return ProblemError(503, "Too many requests at once; try again", headers={"Retry-After": "1"})
        return None

    def _log_refusal(self, scope: Scope, path: str, problem: ProblemError) -> None:
        """Log a refusal of a route that predicts, unless the load test was refused or the minute has had its share."""
        if self._log is None or path not in (PREDICT, PREDICT_BATCH) or FROM_LOAD_TEST in scope["headers"]:
            return
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._logged = minute, {}
        self._logged[problem.status] = count = self._logged.get(problem.status, 0) + 1
        if count <= LOGGED_A_MINUTE:
            self._log.add_refusal(problem.log_entry(path, scope[SCOPE_ID]))


class SlowReaderError(Exception):
    """A caller does not read the answer."""


async def _finish_in_time(sending: Generator[Any, Any, None], awaited: object, send: Send) -> None:
    """Await the rest of sending a part of an answer; only here is a timer, as one costs as much as all the rest."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await _go_on(sending, awaited)
    except TimeoutError as error:
        # ASGI has no word for closing a connection. These are uvicorn's, which then sends nothing more.
        request: Any = getattr(send, "__self__", None)
        if hasattr(request, "transport"):
            request.disconnected = True
            request.transport.abort()
        raise SlowReaderError from error


@types.coroutine
def _go_on(begun: Generator[Any, Any, Any], awaited: object) -> Generator[Any, Any, Any]:
    """Await what was begun, from the first thing on that it waits for."""
    yield awaited
    return (yield from begun)


def make_request_id() -> str:
    """32 hexadecimal digits: the time in milliseconds, then 80 random bits.

    Ids that grow with time cost the log a fifth of what random ones do: its index grows at one end.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


async def read_body(receive: Receive, headers: dict[bytes, bytes], most_bytes: int, seconds: float) -> bytes:
    """Read the body of a request within a size and a time.

    Raises:
        ProblemError: 413 it is too large, 408 it took too long, 400 the sender went away.
    """
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > most_bytes:
        raise _too_large(most_bytes)
    reading = _join_parts(receive, most_bytes).__await__()
    try:
        awaited = next(reading)
    except StopIteration as whole:  # nearly always the body came with the head
        return bytes(whole.value)
    try:
        async with asyncio.timeout(seconds):
            return bytes(await _go_on(reading, awaited))
    except TimeoutError as error:
        raise ProblemError(408, f"The body did not arrive within {seconds:g} s", headers=CLOSE) from error


async def _join_parts(receive: Receive, most_bytes: int) -> bytearray:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(400, "The request ended before its body did")
        body += message.get("body", b"")
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
        more = message.get("more_body", False)
    return body


def unpack_body(body: bytes, headers: dict[bytes, bytes], most_bytes: int) -> bytes:
    """A body without its Content-Encoding, within a size.

    Raises:
        ProblemError: 415 it is packed otherwise than by gzip, 413 it is too large, 422 it cannot be unpacked.
    """
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"x-gzip"):
        name = encoding.decode("latin-1")[:40]
        raise ProblemError(
            415,
            f"Content-Encoding: {name} is not supported; send gzip, or no encoding",
            headers={"Accept-Encoding": "gzip"},
        )
    unpacked = bytearray()
    try:
        while body:
            unzip = zlib.decompressobj(wbits=31)
            unpacked += unzip.decompress(body, most_bytes + 1 - len(unpacked))
            if len(unpacked) > most_bytes:
                raise _too_large(most_bytes)
            if not unzip.eof:
                raise zlib.error("it ends in the middle")
            body = unzip.unused_data  # another file may be joined on
    except zlib.error as error:
        raise refuse_field("body", f"cannot be unpacked: {error}", "The body is not packed by gzip") from error
    return bytes(unpacked)


def _too_large(most_bytes: int) -> ProblemError:
    return ProblemError(413, f"A body here may have {most_bytes:,} bytes", headers=CLOSE)
