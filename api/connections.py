"""Connections of clients: how long one may take to say what it wants, and how much it may say."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: For the head of a request: from the connection, or from its first byte on one that is kept. uvicorn has no such
#: bound: some hundred clients that send a byte a second, or none, would be all that it has room for.
HEAD_SECONDS_MAX = 10.0
#: And for its bytes, more or less: what is read at once is looked at afterwards.
HEAD_BYTES_MAX = 65_536


class BoundedConnection(HttpToolsProtocol):
    """A connection that ends when a request's head does not come in time, or at all. For its body, see `api.bodies`."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._follow()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._follow(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    @property
    def _is_awaiting_head(self) -> bool:
        """A cycle begins when a head is whole; while nothing is awaited but the next one, the last is complete."""
        return self.cycle is None or self.cycle.response_complete

    def _follow(self, received: int = 0) -> None:
        if not self._is_awaiting_head:
            self._stop()
            return
        self._head_bytes += received
        if self._head_bytes > HEAD_BYTES_MAX:
            self._end()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._end)

    def _stop(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self) -> None:
        self._stop()
        # A request that came after all may be under way, read beside `data_received` when its predecessor was answered.
        if self._is_awaiting_head:
            self.transport.close()
