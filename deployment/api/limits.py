"""What a request may cost: how many at once, how large, how long it may take to arrive; and whose it is."""

import asyncio
import logging
import secrets
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployment.api.metrics import Metrics
from deployment.api.problems import FAILURE, ProblemError

logger = logging.getLogger("uvicorn.error")
OPEN = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json"})  # without a key, and however full
OPEN_FOLDER = "/static-offline-docs/"  # what /docs is drawn with


class Guard:
    """ASGI middleware: at most so many requests in flight, an optional key, and each request measured."""

    def __init__(self, app: ASGIApp, metrics: Metrics, in_flight: int, api_key: str) -> None:
        """Take the application behind it, and the limits; an empty key means that none is asked for."""
        self._app = app
        self._metrics = metrics
        self._most = in_flight
        self._wanted = f"Bearer {api_key}".encode() if api_key else b""
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._in_flight += 1
        try:
            problem = self._find_problem(scope)
            await (problem.response() if problem else self._app)(scope, receive, watch)
        except Exception:
            logger.exception("A request could not be answered")
            if not status:
                await FAILURE.response()(scope, receive, watch)
        finally:
            self._in_flight -= 1
            self._metrics.count_request(scope["path"], status or 500, perf_counter() - start)

    def _find_problem(self, scope: Scope) -> ProblemError | None:
        path: str = scope["path"]
        if path in OPEN or path.startswith(OPEN_FOLDER):
            return None
        if self._wanted and not self._has_key(scope):
            reason = "Send the key in the header Authorization: Bearer KEY"
            return ProblemError(401, reason, headers={"WWW-Authenticate": "Bearer"})
        if self._in_flight > self._most:
            return ProblemError(503, "Too many requests at once; come again", headers={"Retry-After": "1"})
        return None

    def _has_key(self, scope: Scope) -> bool:
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return secrets.compare_digest(sent, self._wanted)


async def read_body(receive: Receive, headers: dict[bytes, bytes], most_bytes: int, seconds: float) -> bytes:
    """Read the body of a request, with an end to its size and its time.

    Raises:
        ProblemError: 413 it is too large, 408 it took too long, 400 the sender went away.
    """
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > most_bytes:
        raise _too_large(most_bytes)
    try:
        async with asyncio.timeout(seconds):
            return await _read_chunks(receive, most_bytes)
    except TimeoutError as error:
        raise ProblemError(
            408, f"The body did not arrive within {seconds:g} s", headers={"Connection": "close"}
        ) from error


async def _read_chunks(receive: Receive, most_bytes: int) -> bytes:
    parts = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(400, "The request ended before its body did")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most_bytes:
            raise _too_large(most_bytes)
        if not message.get("more_body"):
            return b"".join(parts)


def _too_large(most_bytes: int) -> ProblemError:
    # Closed, because nobody will read the rest of the body that may still be on its way.
    return ProblemError(413, f"A body here may have {most_bytes:,} bytes", headers={"Connection": "close"})
