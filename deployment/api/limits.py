"""Limits on a request: how many at once, how large, how long it may take to arrive; and the key."""

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
CLOSE = {"Connection": "close"}  # nobody will read the rest of a body that may still be on its way


def find_path(scope: Scope) -> str:
    """The path of a request as routes name it: below uvicorn's --root-path, if it has one."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class Guard:
    """ASGI middleware: at most so many requests in flight, an optional key, and each request measured."""

    def __init__(self, app: ASGIApp, metrics: Metrics, in_flight: int, api_key: str) -> None:
        """Take the application behind it, and the limits; an empty key means that none is asked for."""
        self._app = app
        self._metrics = metrics
        self._most = in_flight
        self._authorization = f"Bearer {api_key}".encode() if api_key else b""
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = perf_counter()
        path = find_path(scope)
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._in_flight += 1
        try:
            problem = self._find_problem(path, scope)
            await (problem.response() if problem else self._app)(scope, receive, watch)
        except Exception:
            logger.exception("A request could not be answered")
            if not status:
                await FAILURE.response()(scope, receive, watch)
        finally:
            self._in_flight -= 1
            self._metrics.count_request(path, status or 500, perf_counter() - start)

    def _find_problem(self, path: str, scope: Scope) -> ProblemError | None:
        if path in OPEN or path.startswith(OPEN_FOLDER):
            return None
        if self._authorization:
            sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not secrets.compare_digest(sent, self._authorization):
                reason = "Send the key in the header Authorization: Bearer KEY"
                return ProblemError(401, reason, headers={"WWW-Authenticate": "Bearer"})
        if self._in_flight > self._most:
            return ProblemError(503, "Too many requests at once; try again", headers={"Retry-After": "1"})
        return None


async def read_body(receive: Receive, headers: dict[bytes, bytes], most_bytes: int, seconds: float) -> bytes:
    """Read the body of a request within a size and a time.

    Raises:
        ProblemError: 413 it is too large, 408 it took too long, 400 the sender went away.
    """
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > most_bytes:
        raise _too_large(most_bytes)
    body, more = bytearray(), True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ProblemError(400, "The request ended before its body did")
                body += message.get("body", b"")
                if len(body) > most_bytes:
                    raise _too_large(most_bytes)
                more = message.get("more_body", False)
    except TimeoutError as error:
        raise ProblemError(408, f"The body did not arrive within {seconds:g} s", headers=CLOSE) from error
    return bytes(body)


def _too_large(most_bytes: int) -> ProblemError:
    return ProblemError(413, f"A body here may have {most_bytes:,} bytes", headers=CLOSE)
