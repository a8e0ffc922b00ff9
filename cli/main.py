"""The commands, put together."""

import sys

import typer

from billing.errors import CentavoError, Unavailable
from cli import catalogue, operate, processes, sandbox

UNAVAILABLE = 75  # EX_TEMPFAIL of sysexits.h: try again later

app = typer.Typer(
    help="Prices and charges LLM usage exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (sandbox.app, processes.app, operate.app):
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
