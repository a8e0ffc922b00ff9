"""`centavo api`: the HTTP face, in this process."""

from typing import Annotated

import typer

from config import logging
from config.settings import settings

app = typer.Typer()

GRACE_SECONDS = 10
CONNECTIONS_MAX = 500


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to answer on. Default: 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port. Default: 8300")] = None,
) -> None:
    """Answer HTTP requests: applications under /v1, Stripe's webhooks at /webhooks/stripe, and /health."""
    chosen = settings()
    logging.configure(chosen.log_level)
    serve("api.app:create_app", host or chosen.api_host, chosen.api_port if port is None else port)


def serve(factory: str, host: str, port: int) -> None:
    """Serve an application until the process is told to end."""
    import uvicorn  # other commands do without

    uvicorn.run(
        factory,
        factory=True,
        host=host,
        port=port,
        # Logs are ours: JSON, and no addresses of who asked.
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
