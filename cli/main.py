"""The commands, put together."""

import sys

import typer

from billing.errors import CentavoError
from cli import processes

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(processes.app)


def main() -> None:
    """Run a command; an error that Centavo raises on purpose is a sentence, not a traceback."""
    try:
        app()
    except CentavoError as error:
        sys.stderr.write(f"centavo: {error}\n")
        sys.exit(1)
