"""How the demo looks: progress while it runs, tables at its end, and the same as JSON."""

import os
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from billing.money import in_minor_units, written
from cli.show import NOTHING, a_table, console
from sandbox.demo import Report, Watch, balance_of
from sandbox.demo_plan import TIER_PLAN
from sandbox.postgres_files import installed_programs
from sandbox.stack import Stack
from services.desk.reports import CustomerSummary
from services.desk.reports import Progress as Done

CUSTOMERS_SHOWN_MAX = 20
#: A log that nobody watches gets a line so often, when something has moved.
LINE_SECONDS = 5.0


@contextmanager
def live(events: int) -> Iterator[Watch]:
    """Show how far the demo is: as bars on a terminal, as lines elsewhere."""
    if not console.is_terminal:
        yield Watch(_say_step, _Lines(events).on_progress)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        charged = progress.add_task("events charged", total=events, visible=False)
        tried = progress.add_task("payments tried", total=0, visible=False)

        def on_progress(done: Done) -> None:
            progress.update(charged, completed=done.charged, visible=True)
            progress.update(
                tried,
                completed=done.payments - done.payments_waiting,
                total=done.payments,
                visible=done.payments > 0,
            )

        yield Watch(_say_step, on_progress)


def _say_step(step: str) -> None:
    console.print(f"· {step}")


class _Lines:
    """Progress for a log: a line every few seconds, and none while nothing moves."""

    def __init__(self, events: int) -> None:
        self._events = events
        self._said_at = time.monotonic()
        self._said: str | None = None

    def on_progress(self, done: Done) -> None:
        if time.monotonic() - self._said_at < LINE_SECONDS:
            return
        tried = done.payments - done.payments_waiting
        line = f"{done.charged:,} of {self._events:,} events charged, {tried:,} of {done.payments:,} payments tried"
        self._said_at = time.monotonic()
        if line != self._said:
            console.print(f"  {line}")
            self._said = line


def show(report: Report) -> None:
    """The table of customers, the throughput and the verdict."""
    numbers = ("events", "tokens", "tiers", "wallet")
    table = a_table("customer", "events", "tokens", "tiers", "payments", "wallet", numbers=numbers)
    for one in report.customers[:CUSTOMERS_SHOWN_MAX]:
        table.add_row(*_row(report, one))
    console.print()
    console.print(table)
    console.print()
    if len(report.customers) > CUSTOMERS_SHOWN_MAX:
        console.print(f"… and {len(report.customers) - CUSTOMERS_SHOWN_MAX:,} customers more")
    console.print(f"{report.sent:,} sendings of {report.emitted:,} events")
    console.print(f"{report.events_per_second:,.0f} events/s from the first emit to the last commit")
    for difference in report.difference_list[:CUSTOMERS_SHOWN_MAX]:
        console.print(difference, style="red")
    console.print(
        f"{report.emitted:,} emitted, {report.charged:,} charged, {report.parked:,} parked, "
        f"{report.differences:,} differences",
        style="bold green" if report.holds else "bold red",
    )


def as_json(report: Report) -> bytes:
    """The report for programs. Decimals are strings, amounts of payments whole minor units."""
    payments: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    for one in report.customers:
        for (kind, state), (count, amount) in one.payments.items():
            group = payments[kind].setdefault(state, {"count": 0, "amount_minor": 0})
            group["count"] += count
            group["amount_minor"] += amount
    document = {
        "emitted": report.emitted,
        "sent": report.sent,
        "charged": report.charged,
        "parked": report.parked,
        "differences": report.differences,
        "difference_list": report.difference_list,
        "tokens": sum(one.tokens for one in report.customers),
        "seconds": round(report.seconds, 3),
        "events_per_second": round(report.events_per_second, 1),
        "payments": payments,
        "customers": {one.customer_id: _customer(report, one) for one in report.customers},
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def say_how_to_look(stack: Stack) -> None:
    """Where everything is, for somebody who wants to look around: commands to paste."""
    home = _as_typed(stack.home.path)
    ours = Path(sys.executable).with_name("centavo")
    centavo = f"CENTAVO_HOME={home} {_as_typed(ours)}"
    psql = _as_typed(installed_programs() / "bin" / "psql")
    console.print(
        f"\neverything is left up; logs are in {home}\n"
        f"  {centavo} status\n"
        f"  {centavo} audit\n"
        f"  {psql} {shlex.quote(stack.addresses.database_url)}\n"
        f"  curl {stack.addresses.stripe_api_base}/_double/captured\n"
        f"  {centavo} down        # ends it",
        soft_wrap=True,
    )


def _as_typed(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return shlex.quote(os.fspath(path.relative_to(here) if path.is_relative_to(here) else path))


def _customer(report: Report, one: CustomerSummary) -> dict[str, Any]:
    fees = {state: count for (kind, state), (count, _) in one.payments.items() if kind == "subscription"}
    tiers = {state: count for (kind, state), (count, _) in one.payments.items() if kind == "tier"}
    return {
        "plan": one.plan_id,
        "events": one.events,
        "tokens": one.tokens,
        "cost": written(one.cost),
        "fee_payments_by_state": fees,
        "tier_payments": sum(tiers.values()),
        "tier_payments_by_state": tiers,
        "balance_before": written(report.before[one.customer_id]),
        "balance_after": written(balance_of(one)),
        "currency": next(iter(one.balances), None),
    }


def _row(report: Report, one: CustomerSummary) -> list[str]:
    """A row of several lines, so that the table fits into 80 columns."""
    tiers = sum(count for (kind, _), (count, _) in one.payments.items() if kind == "tier")
    payments = [
        f"{_what(kind, count)} {state.replace('_', ' ')}\n{in_minor_units(amount, 'BRL')}"
        for (kind, state), (count, amount) in one.payments.items()
    ]
    return [
        f"{one.customer_id}\n{one.plan_id}",
        f"{one.events:,}",
        f"{one.tokens:,}",
        str(tiers) if one.plan_id == TIER_PLAN else NOTHING,
        "\n".join(payments) or NOTHING,
        "\n".join(_wallet(report.before[one.customer_id], one)),
    ]


def _what(kind: str, count: int) -> str:
    """What payments are for, in words."""
    if kind == "subscription":
        return "fee"
    return f"{count} {kind}{'' if count == 1 else 's'}"


def _wallet(before: Decimal, one: CustomerSummary) -> Iterator[str]:
    """What was in the wallet, less what was used, is what is left: a sum to check by eye."""
    amounts = {f"{next(iter(one.balances), '')} ": before, "- ": one.cost, "= ": balance_of(one)}
    places = max(len(written(amount).partition(".")[2]) for amount in amounts.values())
    for mark, amount in amounts.items():
        if amount or mark != "- ":
            yield f"{mark}{amount:.{places}f}"
