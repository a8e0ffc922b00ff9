"""A server in a thread of this process, for tests: hundreds of them begin one, and wait until it has ended."""

import asyncio
import socket
from collections.abc import Callable
from itertools import count

import uvicorn

TICK_SECONDS = 0.02


class QuickServer(uvicorn.Server):
    """Uvicorn, telling when it serves, and quick to end.

    `patience_seconds` is how long a request that is on its way when it shall end may take.
    """

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], patience_seconds: float) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._patience_seconds = patience_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def main_loop(self) -> None:
        """As uvicorn's, but quick to see that it shall end."""
        ticks = count()
        while not await self.on_tick(next(ticks)):  # noqa: ASYNC110 - a signal handler sets uvicorn's flag
            await asyncio.sleep(TICK_SECONDS)

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
