"""Holds on wallets: `holds open`, `release`, `show`, `list`. Those on customers and cards are `payments hold`."""

from typing import Annotated

import typer

from billing.money import written
from cli.catalogue import CustomerId, TenantId, a_decimal
from cli.desk import an_item
from cli.show import NOTHING, AsJson, a_table, as_json, console, moment, plain
from config import clock
from services.desk import credit_holds
from services.desk.credit_holds import HoldWish

app = typer.Typer(help="Value kept back for usage under way.", no_args_is_help=True)


@app.command("open")
def open_hold(
    tenant_id: TenantId,
    customer_id: CustomerId,
    key: Annotated[str, typer.Option(help="An idempotency key: the same key opens one hold.")],
    amount: Annotated[str | None, typer.Option(help="How much, such as 0.50.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of which wallet, if there are several.")] = None,
    item: Annotated[
        list[str] | None, typer.Option(help="Instead of an amount, such as llm_prompt/openai/gpt-4/token=1000.")
    ] = None,
    buffer: Annotated[str | None, typer.Option(help="With items: such as 1.2.")] = None,
    seconds: Annotated[int | None, typer.Option(help="How long it lasts.")] = None,
    user: Annotated[str | None, typer.Option(help="Whose usage it is for: quotas of users.")] = None,
    organization: Annotated[str | None, typer.Option(help="Quotas of organizations.")] = None,
    service_type: Annotated[str | None, typer.Option(help="Quotas of a type of service.")] = None,
    feature: Annotated[str | None, typer.Option(help="Quotas of a feature.")] = None,
    json: AsJson = False,
) -> None:
    """Keep value of a wallet back, for usage that names the hold."""
    wish = HoldWish(
        tenant_id,
        customer_id,
        key,
        None if amount is None else a_decimal(amount),
        currency,
        None if item is None else [an_item(one) for one in item],
        None if buffer is None else a_decimal(buffer),
        seconds,
        user,
        organization,
        service_type,
        feature,
    )
    found = credit_holds.reserve(wish, clock.now())
    if json:
        as_json(found)
        return
    how = "" if found.is_new else "; opened under this key before"
    console.print(
        f"hold {found.hold_id}: {plain(found.currency)} {written(found.amount)} until {moment(found.expires_at)}{how}"
    )


@app.command()
def release(
    tenant_id: TenantId, hold_id: Annotated[str, typer.Argument(help="The hold.")], json: AsJson = False
) -> None:
    """Give back what a hold still keeps back; harmless if it is closed."""
    found = credit_holds.release(tenant_id, hold_id, clock.now())
    if json:
        as_json(found._asdict())
        return
    console.print(f"hold {plain(hold_id)} is {found.state.replace('_', ' ')}, {written(found.captured)} were captured")


@app.command()
def show(tenant_id: TenantId, hold_id: Annotated[str, typer.Argument(help="The hold.")], json: AsJson = False) -> None:
    """A hold, and what usage took of it."""
    found = credit_holds.show(tenant_id, hold_id)
    captures = credit_holds.captures(tenant_id, hold_id)
    if json:
        as_json({**found._asdict(), "captures": [one._asdict() for one in captures]})
        return
    of_all = f"{written(found.captured)} of {found.currency} {written(found.amount)} captured"
    console.print(f"{found.state.replace('_', ' ')}, {of_all}, until {moment(found.closed_at or found.expires_at)}")
    table = a_table("at (UTC)", "event", "cost", "taken", "mark", numbers=("cost", "taken"))
    for one in captures:
        row = (moment(one.at), plain(one.event_key), written(one.cost), written(one.taken), one.mark or NOTHING)
        table.add_row(*row)
    console.print(table)


@app.command("list")
def list_holds(
    tenant_id: TenantId,
    customer_id: CustomerId,
    with_closed: Annotated[bool, typer.Option("--all", help="Those that are closed, too.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    json: AsJson = False,
) -> None:
    """A customer's holds, the newest first."""
    found = credit_holds.of_customer(tenant_id, customer_id, with_closed=with_closed, limit=limit)
    if json:
        as_json([one._asdict() for one in found])
        return
    if not found:
        console.print("there are no such holds; `centavo holds open` opens one")
        return
    table = a_table("hold", "state", "amount", "captured", "until (UTC)", numbers=("amount", "captured"))
    for one in found:
        amount = f"{one.currency} {written(one.amount)}"
        until = moment(one.closed_at or one.expires_at)
        table.add_row(plain(one.hold_id), one.state.value, amount, written(one.captured), until)
    console.print(table)
