"""Connections among processes that share an address: each takes one at a time, so that none takes them all.

uvloop takes whatever waits when it looks. Of sixteen connections that come at once, one of two processes had ten at the
median, and all sixteen now and then: half of the machine then answers everybody, and callers wait twice as long.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvloop

from config.logging import logger

log = logger(__name__)

#: Whoever has many connections leaves a new one to others for so long, per connection, and for so long at most.
LEAVE_SECONDS = 0.00025
LEAVE_SECONDS_MAX = 0.002
#: After an error that is the machine's (no more descriptors), as asyncio has it.
PAUSE_SECONDS = 1.0


class Listening:
    """A socket that listens, from which this process takes a connection, and then leaves it to others for a moment."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, made: Callable[[], asyncio.Protocol], at: socket.socket
    ) -> None:
        self._loop = loop
        self._made = made
        self._at = at
        self._open: set[asyncio.Transport] = set()
        self._beginning: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._look()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return () if self._is_closed else (self._at,)

    def close(self) -> None:
        """Take no more. Those that were taken stay."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._at)
            if self._again is not None:
                self._again.cancel()

    async def wait_closed(self) -> None:
        """There is nothing to wait for: whoever serves knows its connections."""

    def _look(self) -> None:
        self._again = None
        self._loop.add_reader(self._at, self._take)

    def _take(self) -> None:
        try:
            connection, _ = self._at.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another has it
        except OSError as error:
            log.warning("no connection can be taken", error=str(error))
            self._leave(PAUSE_SECONDS)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._begin(connection))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)
        self._open = {one for one in self._open if not one.is_closing()}
        self._leave(min(LEAVE_SECONDS_MAX, LEAVE_SECONDS * (1 + len(self._open))))

    def _leave(self, seconds: float) -> None:
        self._loop.remove_reader(self._at)
        self._again = self._loop.call_later(seconds, self._look)

    async def _begin(self, connection: socket.socket) -> None:
        try:
            transport, _ = await self._loop.connect_accepted_socket(self._made, connection)
        except OSError:  # it has gone already
            connection.close()
        else:
            self._open.add(transport)


class Loop(uvloop.Loop):
    """uvloop's, but for how connections are taken of a socket that others listen at as well."""

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *, sock: socket.socket, backlog: int, **_: Any
    ) -> Listening:
        """A server at a socket that is bound."""
        sock.setblocking(False)
        sock.listen(backlog)
        return Listening(self, protocol_factory, sock)
