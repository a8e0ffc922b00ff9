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
from api.low_limits import LowLimits
from api.measuring import Measured
from api.metrics import Metrics, get_metrics
from api.routes import problems
from api.threads import Threads
from api.v1 import (
    balances,
    cards,
    customers,
    explanations,
    history,
    holds,
    low_balances,
    moving,
    payments,
    pending,
    plans,
    pricing,
    quotas,
    quotes,
    service,
    shadow_prices,
    statements,
    subscriptions,
    top_up_rules,
    usage,
)
from api.v1 import (
    settings as tenant_settings,
)
from api.waiting import Waiting
from config.settings import settings
from db import session
from db.scope import refuse_unscoped
from services.collecting import outcomes
from tasks.webhooks import hand_over

V1 = (
    balances,
    customers,
    subscriptions,
    plans,
    quotes,
    pricing,
    shadow_prices,
    history,
    usage,
    pending,
    holds,
    quotas,
    moving,
    top_up_rules,
    low_balances,
    cards,
    tenant_settings,
    payments,
    explanations,
    statements,
    service,
)


def create_app() -> FastAPI:
    """The app, ready to be served. It keeps no pages of documentation: those would load scripts from elsewhere."""
    app = FastAPI(title=openapi.TITLE, docs_url=None, redoc_url=None, openapi_url="/openapi.json", lifespan=_lifespan)
    answer_errors(app)
    app.state.metrics = Metrics()
    app.add_middleware(Bounds)
    app.add_middleware(Measured, requests=app.state.metrics.requests)
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
    # Not for applications, and for nobody else by a token of the issuer's: not in the document.
    app.add_api_route("/metrics", get_metrics, include_in_schema=False)
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
    # One more for webhooks, which have a thread of their own; looks for metrics take what is left over.
    session.allow(connections + 1)
    refuse_unscoped()
    # As many threads as connections: whoever has one need not wait for the other.
    anyio.to_thread.current_default_thread_limiter().total_tokens = connections
    app.state.asked = Threads(connections)
    app.state.keys_seen = KeysSeen()
    app.state.low_limits = LowLimits(settings().api_processes)
    app.state.limits = Limits(-(-settings().api_requests_per_second // settings().api_processes))
    handing_over = HandingOver(hand_over)
    handing_over.start()
    receiving = webhooks.Receiving(handing_over)
    app.state.receiving = receiving
    app.state.stripe = service.stripe_look()
    waiting = Waiting(outcomes.look)
    app.state.waiting = waiting
    yield
    await waiting.close()
    app.state.asked.close()
    app.state.metrics.close()
    app.state.stripe.close()
    receiving.close()
    refuse_unscoped(refused=False)
    session.allow(1)
