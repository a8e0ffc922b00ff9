"""Serving the API: in a thread of this process, or in processes of its own.

In a thread, the process serves tenants, and refuses transactions for which nobody has said whose rows they are shown.
A test beside it is none of its requests: it looks at everybody's.
"""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import requests
import uvicorn
from fastapi import FastAPI
from starlette.routing import BaseRoute

from api.app import create_app
from api.connections import BoundedConnection
from config.settings import process_environment
from db.scope import as_everybody
from sandbox.processes import ManagedProcess
from sandbox.serving import QuickServer
from sandbox.stack import ROOT
from sandbox.stripe_double.server import base_url, bind
from tests.api.asking import Asker
from tests.ports import free_port

#: Of a request that is on its way when the server shall end.
PATIENCE_SECONDS = 2


def _server(app: FastAPI, on_ready: Callable[[], None]) -> QuickServer:
    # As `centavo api` serves it.
    config = uvicorn.Config(app, http=BoundedConnection, ws="none", log_config=None, access_log=False)
    return QuickServer(config, on_ready, PATIENCE_SECONDS)


@cache
def _routes() -> list[BaseRoute]:
    """FastAPI prepares them when it is asked first, which takes longer than most tests; here it does so once."""
    return create_app().router.routes


def _fresh_app() -> FastAPI:
    """An app that nobody has asked yet."""
    app = create_app()
    app.router.routes = _routes()
    return app


@contextmanager
def served_api(app: FastAPI | None = None) -> Iterator[str]:
    """The API (or this app) at a free port of loopback, by the settings of this process; ends with the block."""
    ready = threading.Event()
    listening = bind()
    server = _server(app or _fresh_app(), ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="api")
    thread.start()
    try:
        assert ready.wait(timeout=15)
        with as_everybody():
            yield base_url(listening)
    finally:
        server.end()
        thread.join()
        listening.close()


class Server(NamedTuple):
    """`centavo api`, as it is deployed: a process of its own."""

    url: str
    process: ManagedProcess

    def log(self) -> str:
        return self.process.log_file.read_text()


@contextmanager
def api_process(folder: Path, **said: str) -> Iterator[Server]:
    """The API in a process of its own, by the settings of this one and these; ends with the block."""
    port = free_port()
    env = process_environment() | {f"CENTAVO_{name}": value for name, value in said.items()}
    command = [sys.executable, "-m", "cli", "api", "--port", str(port)]
    process = ManagedProcess.start("api", command, folder / "api.log", env=env, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        process.wait_ready(lambda: _is_there(url), 30)
        yield Server(url, process)
    finally:
        process.stop(grace_seconds=15)


def _is_there(url: str) -> bool:
    try:
        return Asker(url, None).get("/health").status == 200
    except requests.ConnectionError:
        return False
