"""Limits on a connection before there is a request: time and size of the request head (request line and headers).

uvicorn has neither limit with httptools: a client could hold connections by sending no head, and memory by sending an
endless one. Trailers and chunk extensions, which follow the head, count in the same way. What is not HTTP is refused
here, in the form of every refusal.
"""

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from deployment.api.limits import SENT_ID, make_request_id
from deployment.api.problems import ProblemError

HEAD_BYTES = 65_536  # received in a row without a part of a body
HEAD_SECONDS = 10.0


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection, closed when it exceeds these limits."""

    _timer: TimerHandle | None = None
    _unread = 0  # bytes since the last complete head or part of a body
    _heads = 0  # complete heads so far
    _awaited: int | None = 0  # `_heads` when the last check found an incomplete head; None: it found none

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._check_time)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read data; close the connection if the head is too large."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Handle a complete head."""
        self._unread = 0
        self._heads += 1
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Handle a part of a body."""
        self._unread = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's message names no reason either)
        """Refuse what is not HTTP. It has no route, so it is neither logged nor counted."""
        request_id = make_request_id()
        refusal = ProblemError(400, "This is not an HTTP request: send HTTP/1.1").response(request_id)
        headers = [*refusal.raw_headers, (SENT_ID, request_id.encode()), (b"connection", b"close")]
        head = STATUS_LINE[400] + b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(head + b"\r\n" + bytes(refusal.body))
        self.transport.close()

    def _check_time(self) -> None:
        """Close a connection whose head was incomplete at the last check too; the first head counts from the start.

        One timer per connection: one per request would cost a microsecond, and so would reading the clock.
        """
        unfinished = self._unread > 0 or not self._heads
        if unfinished and self._awaited == self._heads:
            self.transport.abort()
            return
        self._awaited = self._heads if unfinished else None
        self._timer = self.loop.call_later(HEAD_SECONDS, self._check_time)
