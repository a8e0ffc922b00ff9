"""The least that a question over HTTP costs here: FastAPI, a thread, the same pool and server, one row by its key."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import FastAPI

from api.serving import serve as by_uvicorn
from bench import workload
from config.settings import settings
from db import session
from db.session import Connection

_ROW = "SELECT balance FROM wallets WHERE tenant_id = %s AND customer_id = %s AND currency = 'USD'"


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    connections = settings().api_connections
    session.allow(connections)
    anyio.to_thread.current_default_thread_limiter().total_tokens = connections
    yield
    session.allow(1)


def create_app() -> FastAPI:
    """The app; it answers `/health` too, so that it is known to be up."""
    app = FastAPI(openapi_url=None, lifespan=_lifespan)
    app.add_api_route("/health", lambda: {"status": "ok"})
    app.add_api_route("/rows/{customer_id}", row)
    return app


def row(customer_id: str) -> dict[str, str]:
    """What a customer has."""

    def work(connection: Connection) -> Any:
        return connection.execute(_ROW, (workload.TENANT, customer_id)).fetchone()

    (balance,) = session.in_transaction(work)
    return {"balance": str(balance)}


def serve(host: str, port: int) -> None:
    """Serve it as `centavo api` serves its own."""
    by_uvicorn("bench.bare:create_app", host, port)
