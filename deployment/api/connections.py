"""Limits on a connection, before there is a request: how long its head may take, and how large it may be.

uvicorn has neither for httptools: a caller could hold connections by sending no head, and memory by sending no end of
one. Trailers and the extensions of chunks, which follow the head, count as a head does.
"""

from asyncio import TimerHandle, Transport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 65_536  # in a row that are no body
HEAD_SECONDS = 10.0


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection, which ends at these limits."""

    _timer: TimerHandle | None = None
    _unread = 0  # bytes since the last head, or the last part of a body, was whole
    _heads = 0  # that are whole
    _awaited: int | None = 0  # how many were whole when the last check found an unfinished one; None: it found none

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._check_time)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless this is no end of a head."""
        self._unread += len(data)
        super().data_received(data)
        if self._unread > HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Take a head that is whole."""
        self._unread = 0
        self._heads += 1
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._unread = 0
        super().on_body(body)

    def _check_time(self) -> None:
        """End a connection whose head was unfinished at the last check too; the first head counts from the start.

        A timer a connection: one a request would cost a microsecond, and so would asking for the time.
        """
        unfinished = self._unread > 0 or not self._heads
        if unfinished and self._awaited == self._heads:
            self.transport.abort()
            return
        self._awaited = self._heads if unfinished else None
        self._timer = self.loop.call_later(HEAD_SECONDS, self._check_time)
