"""Serving the API in a thread of this process."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from api.app import create_app
from sandbox.stripe_double.server import base_url, bind


class _Server(uvicorn.Server):
    def __init__(self, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(create_app(), log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=2)
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


@contextmanager
def served_api() -> Iterator[str]:
    """The API at a free port of loopback, by the settings of this process; ends with the block."""
    ready = threading.Event()
    listening = bind()
    server = _Server(ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="api")
    thread.start()
    try:
        assert ready.wait(timeout=15)
        yield base_url(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
