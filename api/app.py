"""The HTTP application: `uvicorn --factory api.app:create_app` or, easier, `centavo api`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio.to_thread
from fastapi import FastAPI

from api import openapi, webhooks
from api.access import KeysSeen, Limits
from api.bounds import Bounds
from api.errors import answer_errors
from api.handing_over import HandingOver
from api.routes import problems
from api.v1 import customers, explanations, history, holds, moving, pending, quotes, service, statements, usage
from config.settings import settings
from db import session
from tasks.webhooks import hand_over

V1 = (customers, quotes, history, usage, pending, holds, moving, explanations, statements, service)


def create_app() -> FastAPI:
    """The app, ready to be served. It keeps no pages of documentation: those would load scripts from elsewhere."""
    app = FastAPI(title=openapi.TITLE, docs_url=None, redoc_url=None, openapi_url="/openapi.json", lifespan=_lifespan)
    answer_errors(app)
    app.add_middleware(Bounds)
    app.include_router(webhooks.router, include_in_schema=False)
    app.add_api_route("/health", health, operation_id="get_health", summary="Whether it answers", tags=["service"])
    app.add_api_route(
        "/health/detailed",
        service.detailed_health,
        operation_id="get_detailed_health",
        summary="Whether all is well",
        tags=["service"],
        responses=problems(but={503: {"description": "Something is away.", "model": service.Health}}),
    )
    for module in V1:
        app.include_router(module.routes)
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]
    return app


async def health() -> dict[str, str]:
    """This process answers. It asks neither database nor broker: what is away is waited for, not restarted for."""
    return {"status": "ok"}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    connections = settings().api_connections
    session.allow(connections)
    # As many threads as connections: whoever has one need not wait for the other.
    anyio.to_thread.current_default_thread_limiter().total_tokens = connections
    app.state.keys_seen = KeysSeen()
    app.state.limits = Limits(settings().api_requests_per_second)
    handing_over = HandingOver(hand_over)
    handing_over.start()
    receiving = webhooks.Receiving(handing_over)
    app.state.receiving = receiving
    yield
    receiving.close()
    session.allow(1)
