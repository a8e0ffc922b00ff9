"""How the demo looks: progress while it runs, tables at its end, and the same as JSON."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from billing.money import in_minor_units, written
from cli.show import console
from sandbox.demo import DEFAULT_EVENTS, Options, Report, Watch
from sandbox.demo_plan import TIER_PLAN
from sandbox.stack import Stack
from services.reports import CustomerSummary
from services.reports import Progress as Done

CUSTOMERS_SHOWN_MAX = 20


@contextmanager
def live(options: Options) -> Iterator[Watch]:
    """Show how far the demo is."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        total = options.events or (None if options.trace else DEFAULT_EVENTS)
        charged = progress.add_task("events charged", total=total, visible=False)
        waiting = progress.add_task("payments waiting", total=None, visible=False)

        def on_progress(done: Done) -> None:
            progress.update(charged, completed=done.charged, visible=True)
            progress.update(waiting, completed=done.payments_waiting, visible=True)

        yield Watch(lambda step: console.print(f"[bold]·[/] {step}"), on_progress)


def show(report: Report) -> None:
    """The table of customers, the throughput and the verdict."""
    table = Table("customer", "plan", "events", "tokens", "cost", "tiers", "payments", "wallet before", "wallet after")
    for one in report.customers[:CUSTOMERS_SHOWN_MAX]:
        table.add_row(*_row(report, one))
    console.print(table)
    if len(report.customers) > CUSTOMERS_SHOWN_MAX:
        console.print(f"… and {len(report.customers) - CUSTOMERS_SHOWN_MAX} customers more")
    console.print(
        f"{report.events_per_second:,.0f} events/s from the first emit to the last commit, "
        f"{report.sent:,} sendings of {report.emitted:,} events"
    )
    for difference in report.differences[:CUSTOMERS_SHOWN_MAX]:
        console.print(f"[red]{difference}", highlight=False)
    color = "green" if report.holds else "red"
    console.print(
        f"[bold {color}]{report.emitted:,} emitted, {report.charged:,} charged, {report.parked:,} parked, "
        f"{len(report.differences):,} differences",
        highlight=False,
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
        "differences": len(report.differences),
        "difference_list": report.differences,
        "tokens": sum(one.tokens for one in report.customers),
        "seconds": round(report.seconds, 3),
        "events_per_second": round(report.events_per_second, 1),
        "payments": payments,
        "customers": {one.customer_id: _customer(report, one) for one in report.customers},
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def say_how_to_look(stack: Stack) -> None:
    """Where everything is, for somebody who wants to look around."""
    console.print(
        f"everything is left up; logs are in {stack.home.path}\n"
        f"  CENTAVO_HOME={stack.home.path} centavo status\n"
        f"  CENTAVO_HOME={stack.home.path} centavo audit\n"
        f'  psql "{stack.addresses.database_url}"\n'
        f"  curl {stack.addresses.stripe_api_base}/_double/captured\n"
        "  centavo down        # ends it",
        highlight=False,
        soft_wrap=True,
    )


def _customer(report: Report, one: CustomerSummary) -> dict[str, Any]:
    tiers = {state: count for (kind, state), (count, _) in one.payments.items() if kind == "tier"}
    return {
        "plan": one.plan_id,
        "events": one.events,
        "tokens": one.tokens,
        "cost": written(one.cost),
        "tier_payments": sum(tiers.values()),
        "tier_payments_by_state": tiers,
        "balance_before": written(report.before[one.customer_id]),
        "balance_after": written(_balance(one)),
        "currency": next(iter(one.balances), None),
    }


def _row(report: Report, one: CustomerSummary) -> list[str]:
    currency = next(iter(one.balances), "")
    tiers = sum(count for (kind, _), (count, _) in one.payments.items() if kind == "tier")
    payments = ", ".join(
        f"{count} {state.replace('_', ' ')} ({in_minor_units(amount, 'BRL')})"
        for (_, state), (count, amount) in one.payments.items()
    )
    return [
        one.customer_id,
        one.plan_id,
        f"{one.events:,}",
        f"{one.tokens:,}",
        f"{currency} {written(one.cost)}" if one.cost else "covered",
        str(tiers) if one.plan_id == TIER_PLAN else "–",
        payments or "–",
        f"{currency} {written(report.before[one.customer_id])}",
        f"{currency} {written(_balance(one))}",
    ]


def _balance(one: CustomerSummary) -> Decimal:
    return sum(one.balances.values(), Decimal(0))
