"""A server in a thread of this process, for tests: hundreds of them begin one, and wait until it has ended."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import uvicorn

#: As uvicorn's own: it makes the date that answers bear anew once in ten.
TICK_SECONDS = 0.1


class QuickServer(uvicorn.Server):
    """Uvicorn, telling when it serves, and quick to end.

    `patience_seconds` is how long a request that is on its way when it shall end may take.
    """

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], patience_seconds: float) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._patience_seconds = patience_seconds
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        """Have it end; from another thread."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        """As uvicorn's, but it hears at once that it shall end."""
        ticks = count()
        while not await self.on_tick(next(ticks)):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but without a pause when no request is on its way."""
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=self._patience_seconds)
        for late in self.server_state.tasks:
            late.cancel()
        await self.lifespan.shutdown()
