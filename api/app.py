"""The HTTP application: `uvicorn --factory api.app:create_app` or, easier, `centavo api`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import webhooks
from api.errors import answer_errors
from api.handing_over import HandingOver
from db import session
from tasks.webhooks import hand_over


def create_app() -> FastAPI:
    """The app, ready to be served. It keeps no pages of documentation: those would load scripts from elsewhere."""
    app = FastAPI(title="Centavo", docs_url=None, redoc_url=None, lifespan=_lifespan)
    answer_errors(app)
    app.include_router(webhooks.router)
    app.add_api_route("/health", health)
    return app


async def health() -> dict[str, str]:
    """This process answers. It asks neither database nor broker: what is away is waited for, not restarted for."""
    return {"status": "ok"}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    handing_over = HandingOver(hand_over)
    handing_over.start()
    receiving = webhooks.Receiving(handing_over)
    app.state.receiving = receiving
    yield
    receiving.close()
    session.close()
