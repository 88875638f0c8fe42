"""Limits on a request: concurrency, body size, timeouts and API key; and the request id."""

import asyncio
import logging
import os
import time
import types
import zlib
from collections.abc import Generator
from functools import partial
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.api.callers import NO_KEYS, Callers
from deployment.api.metrics import Metrics
from deployment.api.origin import LOAD_TEST, ORIGIN
from deployment.api.problems import FAILURE, REQUEST_ID, SCOPE_ID, ProblemError, refuse_field
from deployment.prediction_log.log import PredictionLog

logger = logging.getLogger("uvicorn.error")
OPEN = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})  # need no key, and have no limit on concurrency
SEND_SECONDS = 10.0  # timeout for a client to read one part of a response
OPEN_FOLDER = "/static-offline-docs/"  # scripts and styles of /docs
PREDICT, PREDICT_BATCH = "/predict", "/predict/batch"
SENT_ID = REQUEST_ID.lower().encode()
FROM_LOAD_TEST = (ORIGIN.lower().encode(), LOAD_TEST.encode())
# The log gets at most this many of the guard's own refusals per minute and status. Anyone can be refused without a key:
# if all were logged, a stranger could fill the disk, or push the refusals that monitoring counts out of the log
# (WINE_LOG_ROWS). /metrics counts them all.
LOGGED_A_MINUTE = 10
CLOSE = {"Connection": "close"}  # the rest of the body may still be arriving, and is not read


def find_path(scope: Scope) -> str:
    """The path of a request as the routes name it, without uvicorn's --root-path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Guard:
    """ASGI middleware: limits requests in flight, checks the key, measures each request and gives it an id.

    The id is in a header of every response, and in `scope`, from which refusals and the log read it.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        in_flight: int,
        callers: Callers = NO_KEYS,
        log: PredictionLog | None = None,
    ) -> None:
        """Wrap an application; `log` receives the refused requests of the prediction routes."""
        self._app = app
        self._metrics = metrics
        self._most = in_flight
        self._callers, self._needs_key = callers, callers.need_key
        self._log = log
        self._minute, self._logged = 0, dict[int, int]()  # the guard's refusals in this minute, by status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it."""
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
                message["headers"].append((SENT_ID, request_id.encode()))  # this response's own list
            # The same as `async with timeout: await send(message)`, which costs 3.6 microseconds per send, with two
            # sends per response. Nearly always send() finishes without waiting, and the loop body never runs.
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
        """Log a refusal by a prediction route, unless it is the load test's or above the limit per minute."""
        if self._log is None or path not in (PREDICT, PREDICT_BATCH) or FROM_LOAD_TEST in scope["headers"]:
            return
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._logged = minute, {}
        self._logged[problem.status] = count = self._logged.get(problem.status, 0) + 1
        if count <= LOGGED_A_MINUTE:
            self._log.add_refusal(problem.log_entry(path, scope[SCOPE_ID]))


class SlowReaderError(Exception):
    """A client does not read the response."""


async def _finish_in_time(sending: Generator[Any, Any, None], awaited: object, send: Send) -> None:
    """Finish sending a part of a response within a timeout; only here, as a timer costs as much as all the rest."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await _go_on(sending, awaited)
    except TimeoutError as error:
        _close_connection(send)
        raise SlowReaderError from error


def _close_connection(send: Any) -> None:
    """Close a client's connection; ASGI has no message for it, so this uses uvicorn's attributes."""
    while isinstance(send, partial):  # CORSMiddleware's
        send = send.keywords["send"]
    request: Any = getattr(send, "__self__", None)
    if hasattr(request, "transport"):
        request.disconnected = True  # uvicorn then sends nothing more
        request.transport.abort()


@types.coroutine
def _go_on(begun: Generator[Any, Any, Any], awaited: object) -> Generator[Any, Any, Any]:
    """Continue a coroutine that was already started, from the object that it awaits."""
    yield awaited
    return (yield from begun)


def make_request_id() -> str:
    """32 hexadecimal digits: the time in milliseconds, then 80 random bits.

    Ids that increase with time cost the log a fifth of what random ones cost: its index grows at one end only.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


async def read_body(receive: Receive, headers: dict[bytes, bytes], most_bytes: int, seconds: float) -> bytes:
    """Read the body of a request, with a size limit and a timeout.

    Raises:
        ProblemError: 413 too large, 408 timeout, 400 the client disconnected.
    """
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > most_bytes:
        raise _too_large(most_bytes)
    reading = _join_parts(receive, most_bytes).__await__()
    try:
        awaited = next(reading)
    except StopIteration as whole:  # nearly always the body arrived with the head
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
    """Decompress a body by its Content-Encoding, with a size limit.

    Raises:
        ProblemError: 415 an encoding other than gzip, 413 too large, 422 it cannot be decompressed.
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
            body = unzip.unused_data  # another gzip member may follow
    except zlib.error as error:
        raise refuse_field("body", f"cannot be unpacked: {error}", "The body is not packed by gzip") from error
    return bytes(unpacked)


def _too_large(most_bytes: int) -> ProblemError:
    return ProblemError(413, f"A body here may have {most_bytes:,} bytes", headers=CLOSE)
