"""Connections of clients, and how long one may take to say what it wants."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

#: For the head of a request: from the connection, or from its first byte on one that is kept. uvicorn has no such
#: bound: some hundred clients that send a byte a second, or none, would be all that it has room for.
HEAD_SECONDS_MAX = 10.0


class BoundedConnection(H11Protocol):
    """A connection that ends when a request's head does not come in time. For its body, see `api.bodies`."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._follow()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._follow()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _follow(self) -> None:
        """Between two requests both sides are idle; a head that is begun leaves them so until it is whole."""
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._end)

    def _stop(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self) -> None:
        self._head_timer = None
        # A request that came after all may be under way, read beside `data_received` when its predecessor was answered.
        if self.conn.their_state is h11.IDLE:
            self.transport.close()
