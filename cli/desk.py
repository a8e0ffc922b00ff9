"""What a customer has, what usage would cost, what has happened: `wallets`, `quote`, `usage history`."""

from datetime import datetime, timedelta
from typing import Annotated

import typer
from pydantic import ValidationError

from billing.errors import ItemsMalformed
from billing.money import written
from centavo import Item
from cli.catalogue import CustomerId, TenantId, a_decimal
from cli.show import NOTHING, AsJson, a_table, as_json, console, moment, plain
from config import clock
from services.desk import history, quotes
from services.desk import wallets as service
from services.desk.history import PAGE, Asked

app = typer.Typer()
wallets = typer.Typer(help="What customers have.", no_args_is_help=True)

LOOKS_BACK = timedelta(days=31)


@wallets.callback()
def _group() -> None:
    """What customers have."""


@wallets.command()
def show(tenant_id: TenantId, customer_id: CustomerId, json: AsJson = False) -> None:
    """A customer's wallets: what is available, from where, and until when."""
    found = service.balance(tenant_id, customer_id, clock.now())
    if json:
        as_json(found)
        return
    console.print(f"plan {plain(found.plan_id)} v{found.plan_version}, {found.status}")
    numbers = ("available", "reserved", "debt", "expiring soon")
    table = a_table("wallet", *numbers, "of", numbers=numbers)
    for wallet in found.wallets:
        has = wallet.balance
        of = ", ".join(f"{one.source} {written(one.remaining)}" for one in has.sources) or NOTHING
        figures = (has.available, has.reserved, has.debt, has.expiring_soon)
        name = f"{wallet.currency} (low)" if wallet.is_low else wallet.currency
        table.add_row(name, *(written(figure) for figure in figures), of)
    console.print(table)


@wallets.command()
def overdraft(
    tenant_id: TenantId,
    customer_id: CustomerId,
    amount: Annotated[str, typer.Argument(help="How far below zero holds and checks may go, such as 100; 0: not.")],
    currency: Annotated[str, typer.Option(help="Of which wallet.")] = "USD",
) -> None:
    """Say how far below zero a wallet may be asked; usage is debited in any case."""
    service.set_overdraft(tenant_id, customer_id, currency, a_decimal(amount))
    console.print(f"{plain(currency)} of {plain(customer_id)} may be asked {written(a_decimal(amount))} below zero")


@wallets.command("low-balance")
def low_balance(
    tenant_id: TenantId,
    customer_id: CustomerId,
    amount: Annotated[str | None, typer.Argument(help="Such as 5; left out, it is as set for all.")] = None,
    currency: Annotated[str, typer.Option(help="Of which wallet.")] = "USD",
) -> None:
    """Say below how much a wallet is low: an alert tells of it, once each time that it comes to be."""
    below = None if amount is None else a_decimal(amount)
    service.set_low_balance(tenant_id, customer_id, currency, below)
    said = "as the setting low_balance says" if below is None else f"below {written(below)}"
    console.print(f"{plain(currency)} of {plain(customer_id)} is low {said}")


@app.command()
def quote(
    tenant_id: TenantId,
    items: Annotated[list[str], typer.Argument(help="Such as llm_prompt/openai/gpt-4/token=1000.")],
    customer: Annotated[str | None, typer.Option(help="For this customer; else for anybody.")] = None,
    json: AsJson = False,
) -> None:
    """What usage would cost now."""
    found = quotes.quote(tenant_id, customer, [an_item(one) for one in items], clock.now())
    if json:
        as_json(
            {
                "cost": found.cost,
                "currency": found.currency,
                "suggested": found.suggested.value,
                "possible": [method.value for method in found.possible],
                "lines": [
                    {"model": one.item.model, "price_id": one.price and one.price.price_id, "cost": one.cost}
                    for one in found.lines
                ],
            }
        )
        return
    table = a_table("product", "quantity", "cost", numbers=("quantity", "cost"))
    for line in found.lines:
        item = line.item
        product = f"{item.category}/{item.provider}/{item.model}/{item.unit}"
        table.add_row(plain(product), written(item.quantity), written(line.cost) if line.price else "covered")
    console.print(table)
    console.print(f"{found.currency or ''} {written(found.cost)}, {found.suggested}".strip())


def show_history(
    tenant_id: TenantId,
    customer_id: CustomerId,
    since: Annotated[datetime | None, typer.Option(help="From then on, UTC; 31 days ago if not told.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this, UTC.")] = None,
    status: Annotated[str | None, typer.Option(help="charged, parked, pending or voided.")] = None,
    feature: Annotated[str | None, typer.Option(help="Of this feature alone.")] = None,
    limit: Annotated[int, typer.Option(help="Rows of a page.")] = PAGE,
    cursor: Annotated[str | None, typer.Option(help="Where the last page ended.")] = None,
    json: AsJson = False,
) -> None:
    """What a customer has used, the newest first."""
    # To a whole minute, so that a cursor meets the same question for a while.
    end = clock.in_utc(until) if until else clock.now().replace(second=0, microsecond=0) + timedelta(hours=2)
    begin = clock.in_utc(since) if since else end - LOOKS_BACK
    asked = Asked(tenant_id, customer_id, begin, end, status, feature)
    page = history.usage(asked, limit=limit, at=cursor)
    if json:
        as_json({"events": [row._asdict() for row in page.rows], "next": page.next})
        return
    table = a_table("at (UTC)", "key", "status", "tokens", "cost", numbers=("tokens", "cost"))
    for row in page.rows:
        cost = f"{row.currency} {written(row.cost)}" if row.currency else NOTHING
        table.add_row(moment(row.occurred_at), plain(row.key), row.status, f"{row.tokens:,}", cost)
    console.print(table)
    if page.next:
        span = f"--since {begin:%Y-%m-%dT%H:%M:%S} --until {end:%Y-%m-%dT%H:%M:%S}"
        console.print(f"more: the same command with {span} --cursor {page.next}", soft_wrap=True)


def an_item(text: str) -> Item:
    """The item that somebody wrote. Raises `ItemsMalformed`."""
    product, _, quantity = text.rpartition("=")
    # Names of models may have a stroke in them.
    category, _, rest = product.partition("/")
    provider, _, rest = rest.partition("/")
    model, _, unit = rest.rpartition("/")
    try:
        return Item(category=category, provider=provider, model=model, unit=unit, quantity=quantity)
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False)[0]
        raise ItemsMalformed(
            f"{text!r} is no item ({said['loc'][0]}: {said['msg']}); write it as category/provider/model/unit=quantity"
        ) from None
