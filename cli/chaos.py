"""The proof, from the command line: `chaos`. What it takes is what `scripts/chaos` takes."""

import typer

from billing.errors import Rejected

app = typer.Typer()


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def chaos(context: typer.Context) -> None:
    """Kill real processes at the worst moments, and let an oracle judge what came of it; see `chaos --help`."""
    try:
        # Late: it brings servers, a broker's client and Celery, which no other command needs.
        from chaos.__main__ import app as of_chaos
    except ModuleNotFoundError as missing:
        raise Rejected(f"chaos needs the extra `sandbox` ({missing.name} is not installed)") from missing
    of_chaos(context.args, prog_name="centavo chaos")
