"""`centavo api`: the HTTP face, in this process."""

from typing import Annotated

import typer

from config.settings import settings

app = typer.Typer()


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to answer on. Default: 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port. Default: 8300")] = None,
) -> None:
    """Answer HTTP requests: applications under /v1, Stripe's webhooks at /webhooks/stripe, and /health."""
    from api.serving import serve  # other commands do without

    chosen = settings()
    serve("api.app:create_app", host or chosen.api_host, chosen.api_port if port is None else port)
