"""Price lists beside the live one: `prices shadow start`, `show`, `list`, `stop`."""

from typing import Annotated

import typer

from billing.money import written
from cli.catalogue import TenantId
from cli.show import NOTHING, AsJson, a_table, as_json, console, moment, plain
from config import clock
from db.shadowing import DaySum
from services.books.catalogue_files import read_prices
from services.desk.history import PAGE
from services.metering import shadowing as service

app = typer.Typer(help="Prices that are tried beside the live ones.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The list's name.")]
NUMBERS = ("events", "live", "shadow", "difference")


@app.command()
def start(
    tenant_id: TenantId,
    name: Name,
    source: Annotated[str, typer.Argument(help="A catalogue whose prices come before the book's.")],
) -> None:
    """Rate what is charged from now on by these prices, too; nothing is charged by them."""
    begun = service.start(tenant_id, name, read_prices(source, scope=tenant_id), clock.now())
    console.print(f"{begun.prices} prices of {plain(name)} are tried since {moment(begun.started_at)} UTC")


@app.command()
def stop(tenant_id: TenantId, name: Name) -> None:
    """Try a list no more; what it came to stays to be seen."""
    stopped = service.stop(tenant_id, name, clock.now())
    until = moment(stopped.stopped_at) if stopped.stopped_at else NOTHING
    console.print(f"{plain(name)} was tried from {moment(stopped.started_at)} to {until} UTC")


@app.command("list")
def list_(tenant_id: TenantId, json: AsJson = False) -> None:
    """A tenant's lists beside the live one."""
    found = service.lists_of(tenant_id)
    if json:
        as_json(found)
        return
    if not found:
        console.print("there are none; try one with `centavo prices shadow start`")
        return
    table = a_table("list", "prices", "from (UTC)", "to (UTC)", numbers=("prices",))
    for one in found:
        until = moment(one.stopped_at) if one.stopped_at else NOTHING
        table.add_row(plain(one.name), str(one.prices), moment(one.started_at), until)
    console.print(table)


@app.command()
def show(
    tenant_id: TenantId,
    name: Name,
    customer: Annotated[str | None, typer.Option(help="Of this customer alone.")] = None,
    limit: Annotated[int, typer.Option(help="Rows of a page.")] = PAGE,
    cursor: Annotated[str | None, typer.Option(help="Where the last page ended.")] = None,
    json: AsJson = False,
) -> None:
    """What usage has cost, and would have cost by the list, by customer and day; as far as it was rated."""
    found = service.show(tenant_id, name, customer, limit=limit, at=cursor)
    if json:
        as_json(
            {
                "list": found.shadow,
                "totals": [_as_document(one) for one in found.totals],
                "days": [_as_document(one) for one in found.page.rows],
                "next": found.page.next,
            }
        )
        return
    if not found.totals:
        console.print("nothing was rated by it yet")
        return
    table = a_table("customer", "day (UTC)", "", *NUMBERS, numbers=NUMBERS)
    for one in found.page.rows:
        table.add_row(plain(one.customer_id), one.day.isoformat(), one.currency or NOTHING, *_figures(one))
    for one in found.totals:
        table.add_row("all", "", one.currency or NOTHING, *_figures(one), style="bold")
    console.print(table)
    if unrated := sum(one.unrated for one in found.totals):
        console.print(f"{unrated:,} events can't be rated by it, and count as they were charged", soft_wrap=True)
    if found.page.next:
        console.print(f"there are more: --cursor {found.page.next}", soft_wrap=True)


def _figures(one: DaySum) -> tuple[str, ...]:
    return (f"{one.events:,}", written(one.live), written(one.shadow), written(one.difference))


def _as_document(one: DaySum) -> dict[str, object]:
    return {**one._asdict(), "day": one.day.isoformat(), "difference": one.difference}
