"""The clock of a sandbox: `clock show`, `clock set`, `clock advance`."""

import re
from datetime import datetime, timedelta
from typing import Annotated

import typer

from billing.errors import Rejected
from cli.show import AsJson, a_table, as_json, console, plain
from config import clock
from config.settings import settings
from sandbox.clocks import double_offset, move_both

app = typer.Typer(help="Move a sandbox's clock, the Stripe double's along; never in production.", no_args_is_help=True)

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(?:\d{1,6}[wdhms])+")
_PART = re.compile(r"(\d+)([wdhms])")


@app.command()
def show(json: AsJson = False) -> None:
    """What time it is here, and whether the Stripe double agrees."""
    _show(_api_base(), json)


@app.command("set")
def set_(
    moment: Annotated[str, typer.Argument(help="2027-01-31T12:00, in UTC unless it names another zone.")],
    back: Annotated[bool, typer.Option("--back", help="Even if that is in the past.")] = False,
    json: AsJson = False,
) -> None:
    """Let it be this moment; time goes on from there."""
    api_base = _api_base()
    move_both(api_base, clock.offset_for(_moment(moment), is_back=back))
    _show(api_base, json)


@app.command()
def advance(
    by: Annotated[list[str], typer.Argument(help="3d 4h, or 90m, or 1d12h: weeks, days, hours, minutes, seconds.")],
    json: AsJson = False,
) -> None:
    """Move the clock on. By 0s it stays, and the Stripe double's clock is brought to it."""
    api_base = _api_base()
    move_both(api_base, clock.offset_after(_duration("".join(by))))
    _show(api_base, json)


def _api_base() -> str:
    """Where the double is whose clock moves along: without one a moved clock would be at odds with Stripe's."""
    clock.refuse_where_fixed()
    api_base = settings().stripe_api_base
    if api_base is None:
        raise Rejected("CENTAVO_STRIPE_API_BASE names no Stripe double, and the clock of Stripe itself can't be moved")
    return api_base


def _moment(text: str) -> datetime:
    try:
        return clock.in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise Rejected(f"{text!r} is no moment; write it like 2027-01-31T12:00 or 2027-01-31T09:00-03:00") from error


def _duration(text: str) -> timedelta:
    if not _DURATION.fullmatch(text):
        raise Rejected(f"{text!r} is no length of time; write it like 3d 4h, 90m or 1d12h")
    return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in _PART.findall(text)), timedelta())


def _show(api_base: str, json: bool) -> None:
    now, ours, doubles = clock.now(), clock.offset(), double_offset(api_base)
    if json:
        as_json(
            {
                "now": now,
                "offset_seconds": int(ours.total_seconds()),
                "stripe_double_offset_seconds": int(doubles.total_seconds()),
                "file": str(settings().clock_followed),
            }
        )
        return
    table = a_table("", "")
    table.show_header = False
    table.add_row("now", f"{now:%Y-%m-%d %H:%M:%S} UTC")
    table.add_row("moved by", str(ours))
    table.add_row("Stripe double", "moved along" if doubles == ours else f"moved by {doubles}")
    table.add_row("file", plain(str(settings().clock_followed)))
    console.print(table)
    if doubles != ours:
        console.print("the clocks differ: `centavo clock advance 0s` brings the Stripe double's to ours")
