"""Serving the API in a thread of this process.

The process then serves tenants, and refuses transactions for which nobody has said whose rows they are shown. A test
beside it is none of its requests: it looks at everybody's.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.connections import BoundedConnection
from db.scope import as_everybody
from sandbox.stripe_double.server import base_url, bind


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI, on_ready: Callable[[], None]) -> None:
        # As `centavo api` serves it.
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedConnection,
                ws="none",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


@contextmanager
def served_api(app: FastAPI | None = None) -> Iterator[str]:
    """The API (or this app) at a free port of loopback, by the settings of this process; ends with the block."""
    ready = threading.Event()
    listening = bind()
    server = _Server(app or create_app(), ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="api")
    thread.start()
    try:
        assert ready.wait(timeout=15)
        with as_everybody():
            yield base_url(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
