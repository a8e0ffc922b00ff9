"""Charging what was deferred, and putting right what was charged: `usage settle`, `usage void`, `usage rerate`."""

from typing import Annotated, Any

import typer
from rich.progress import Progress

from billing.money import written
from cli.catalogue import TenantId
from cli.show import NOTHING, AsJson, a_table, as_json, console, errors, moment, plain
from config import clock
from services.books.catalogue_files import read_prices
from services.desk import trail
from services.metering import pending, voiding_usage
from services.metering.rerating import Asked, CustomerResult, Span, Sum, rerate, totals
from services.metering.voiding_usage import VoidedEvent

app = typer.Typer(help="Usage that was recorded: its history, and putting it right.", no_args_is_help=True)


@app.command()
def void(
    tenant_id: TenantId,
    key: Annotated[str, typer.Argument(help="The event's key.")],
    *,
    reason: Annotated[str, typer.Option(help="Why.")],
    json: AsJson = False,
) -> None:
    """Take a usage event back, as if it had never been: its wallet, its period and its tiers."""
    voided = voiding_usage.void(tenant_id, key, reason, clock.now())
    if json:
        as_json(voided)
        return
    if not voided.is_new:
        at = moment(voided.voided_at)
        console.print(f"event {plain(key)} was voided before, at {at} UTC: {plain(voided.reason)}", soft_wrap=True)
        return
    said = [f"{voided.currency} {written(voided.cost)}"] if voided.cost else []
    said += [f"{voided.tokens:,} tokens"] if voided.tokens else []
    took = " and ".join(said) or "nothing"
    who = f"event {plain(key)} of customer {plain(voided.customer_id)}"
    console.print(f"{who} is voided: it took {took}", soft_wrap=True)
    for line in _of_tiers(voided):
        console.print(line)


@app.command()
def settle(
    tenant_id: TenantId,
    key: Annotated[str, typer.Argument(help="The event's key.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Into debt, where nothing covers it.")] = False,
    json: AsJson = False,
) -> None:
    """Charge a usage event that was deferred, once."""
    found = pending.settle(tenant_id, key, clock.now(), is_forced=force)
    if json:
        as_json(found)
        return
    what = f"{found.currency} {written(found.cost)}" if found.currency else f"{found.tokens:,} tokens"
    how = "is charged" if found.is_new else "was charged before"
    console.print(f"event {plain(key)} of customer {plain(found.customer_id)} {how}: {what}", soft_wrap=True)


@app.command()
def cancel(
    tenant_id: TenantId,
    key: Annotated[str, typer.Argument(help="The event's key.")],
    *,
    reason: Annotated[str, typer.Option(help="Why.")],
    json: AsJson = False,
) -> None:
    """Never charge a usage event that was deferred."""
    found = pending.cancel(tenant_id, key, reason, clock.now())
    if json:
        as_json(found)
        return
    how = "is cancelled" if found.is_new else "was cancelled or voided before"
    console.print(f"event {plain(key)} of customer {plain(found.customer_id)} {how}", soft_wrap=True)


@app.command("trail")
def show_trail(
    tenant_id: TenantId, key: Annotated[str, typer.Argument(help="The event's key.")], json: AsJson = False
) -> None:
    """What happened to a usage event, the oldest first."""
    found = trail.trail(tenant_id, key)
    if json:
        as_json(found)
        return
    table = a_table("at (UTC)", "step", "")
    for one in found:
        table.add_row(moment(one.at), one.step, plain(one.detail))
    console.print(table)


@app.command("rerate")
def rerate_(
    tenant_id: TenantId,
    *,
    month: Annotated[str, typer.Option(help="Which month, such as 2026-10; by the clock of each customer.")],
    prices: Annotated[
        str | None, typer.Option(help="A catalogue whose prices come before the book's, whenever they begin.")
    ] = None,
    customer: Annotated[list[str] | None, typer.Option(help="Of this customer alone; may be repeated.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the ledger.")] = "rerated",
    apply: Annotated[bool, typer.Option("--apply", help="Correct it; else it is only reckoned.")] = False,
    json: AsJson = False,
) -> None:
    """Rate a month again, at the prices that the book has now or at those of a file, and say what differs."""
    asked = Asked(
        tenant_id,
        Span.month(month),
        tuple(read_prices(prices, scope=tenant_id)) if prices else None,
        tuple(customer) if customer else None,
        reason,
    )
    results = _rerated(asked, is_applied=apply)
    if json:
        as_json(
            {
                "month": month,
                "is_applied": apply,
                "customers": [_as_document(one) for one in results],
                "totals": [_sum(one) for one in totals(results)],
            }
        )
        return
    _show(results)
    changed = sum(one.changed for one in results)
    if apply:
        console.print(f"{changed} events corrected")
    elif changed:
        would = f"{changed} events would be corrected by the same command with --apply"
        console.print(f"nothing is written yet: {would}", soft_wrap=True)
    else:
        console.print("nothing differs")


def _rerated(asked: Asked, *, is_applied: bool) -> list[CustomerResult]:
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("rating", total=None)
        return rerate(
            asked,
            clock.now(),
            is_applied=is_applied,
            on_period=lambda done, of: progress.update(task, completed=done, total=of),
        )


def _show(results: list[CustomerResult]) -> None:
    if not results:
        console.print("nothing was used in that month")
        return
    numbers = ("events", "old", "new", "difference")
    table = a_table("customer", "events", "", "old", "new", "difference", numbers=numbers)
    for one in results:
        for number, each in enumerate(one.sums or [None]):
            who = (plain(one.customer_id), f"{one.events:,}") if number == 0 else ("", "")
            table.add_row(*who, *_cells(each))
    for each in totals(results):
        table.add_row("all", f"{sum(one.events for one in results):,}", *_cells(each), style="bold")
    console.print(table)
    for one in results:
        for why, events in sorted(one.unrated.items()):
            console.print(f"{plain(one.customer_id)}: {events:,} events stay as they are ({why})", soft_wrap=True)


def _cells(one: Sum | None) -> tuple[str, str, str, str]:
    if one is None:
        return NOTHING, NOTHING, NOTHING, NOTHING
    return one.currency, written(one.old), written(one.new), written(one.difference)


def _sum(one: Sum) -> dict[str, Any]:
    return {"currency": one.currency, "old": one.old, "new": one.new, "difference": one.difference}


def _as_document(one: CustomerResult) -> dict[str, Any]:
    return {
        "customer_id": one.customer_id,
        "events": one.events,
        "changed": one.changed,
        "sums": [_sum(each) for each in one.sums],
        "unrated": dict(one.unrated),
    }


def _of_tiers(voided: VoidedEvent) -> list[str]:
    tiers = voided.tiers
    said = [
        (tiers.voided, "not collected any more"),
        (tiers.refunded, "given back"),
        (tiers.kept, "kept, as the plan says"),
    ]
    return [f"tiers that are owed no longer, {what}: {number}" for number, what in said if number]
