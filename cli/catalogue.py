"""Who is billed, and what for: tenants, plans, prices, customers, credits."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from billing.errors import Rejected
from billing.money import in_minor_units, written
from billing.prices import EVERYBODY, Price
from billing.reasons import Reason
from cli.show import NOTHING, AsJson, a_table, as_json, console, plain
from config import clock
from services.books import customers as customer_service
from services.books import tenants as tenant_service
from services.books.adjusting import Adjustment, adjust
from services.books.catalogue_files import read_plans, read_prices, shipped
from services.books.credits import Grant, grant
from services.collecting import cards
from services.collecting.gateways import gateway
from services.desk import prices as price_service

tenants = typer.Typer(help="Who runs applications.", no_args_is_help=True)
plans = typer.Typer(help="What customers agree to pay.", no_args_is_help=True)
prices = typer.Typer(help="The price book.", no_args_is_help=True)
customers = typer.Typer(help="Who is billed.", no_args_is_help=True)
credits_ = typer.Typer(help="Value given to customers.", no_args_is_help=True)


def _named(longest: int) -> Callable[[str], str]:
    """Refuses a name that no usage event could say."""

    def check(name: str) -> str:
        if not 0 < len(name) <= longest or "\0" in name:
            raise typer.BadParameter(f"a name has 1 to {longest} characters, not {len(name)}")
        return name

    return check


TenantId = Annotated[str, typer.Argument(help="The tenant.", callback=_named(64))]
CustomerId = Annotated[str, typer.Argument(help="The customer.", callback=_named(128))]


@tenants.command("create")
def create_tenant(tenant_id: TenantId, name: Annotated[str, typer.Option(help="A name for people.")] = "") -> None:
    """Make a tenant; harmless if it is there."""
    is_new = tenant_service.create_tenant(tenant_id, name or tenant_id, clock.now())
    console.print(f"tenant {plain(tenant_id)} {'created' if is_new else 'was there already'}")


@plans.command("load")
def load_plans(
    tenant_id: TenantId,
    source: Annotated[str, typer.Argument(help="A file, or a shipped catalogue.")] = "default",
) -> None:
    """Offer the plans of a catalogue; one that has changed becomes the next version."""
    added = tenant_service.load_plans(tenant_id, read_plans(source), clock.now())
    console.print(f"{len(added)} plan versions added" + "".join(f"\n  {p.plan_id} v{p.version}" for p in added))


@plans.command("list")
def list_plans(tenant_id: TenantId, json: AsJson = False) -> None:
    """Every version of a tenant's plans."""
    found = tenant_service.plans_of(tenant_id)
    if json:
        as_json(found)
        return
    if not found:
        raise Rejected(f"tenant {tenant_id!r} offers no plans; load some with `centavo plans load`")
    table = a_table("plan", "version", "monthly fee", "tokens included", "each further tier", numbers=("version",))
    for plan in found:
        fee, tier_fee = (in_minor_units(m, plan.payment_currency) for m in (plan.fixed_fee_minor, plan.tier_fee_minor))
        tier = f"{tier_fee} for {plan.tier_size:,}" if plan.tier_size else NOTHING
        included = f"{plan.included_tokens:,}" if plan.tier_size else NOTHING
        table.add_row(plain(plan.plan_id), str(plan.version), fee, included, tier)
    console.print(table)


@prices.command("load")
def load_prices(
    source: Annotated[str, typer.Argument(help=f"A file, or one of: {', '.join(shipped('prices'))}.")],
    tenant: Annotated[str, typer.Option(help="For this tenant alone; else for everybody.")] = EVERYBODY,
    effective_from: Annotated[datetime | None, typer.Option(help="Start of these prices, in UTC.")] = None,
    correct: Annotated[bool, typer.Option(help="Correct prices of the same start.")] = False,
) -> None:
    """Add the prices of a catalogue to the book, all or none."""
    starts = clock.in_utc(effective_from) if effective_from else None
    added = price_service.load_prices(
        read_prices(source, scope=tenant, effective_from=starts), clock.now(), is_correction=correct
    )
    console.print(f"{added} prices added")


@prices.command("list")
def list_prices(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    provider: Annotated[str | None, typer.Option(help="Of this provider alone.")] = None,
    json: AsJson = False,
) -> None:
    """The price book."""
    found = price_service.listed(tenant, provider)
    if json:
        as_json(found)
        return
    if not found:
        console.print("there are no such prices; `centavo prices load` adds some")
        return
    table = a_table("id", "for", "product", "price", "from", numbers=("id",), whole=("id", "price", "from"))
    for price in found:
        product = f"{price.category}/{price.provider}/{price.model}"
        cost = "\n".join([_amount(price), *_remarks(price)])
        starts = price.effective_from.date().isoformat()
        table.add_row(str(price.price_id), plain(price.scope or "everybody"), plain(product), cost, starts)
    console.print(table)


@customers.command("create")
def create_customer(
    tenant_id: TenantId,
    customer_id: CustomerId,
    plan: Annotated[str, typer.Option(help="The plan.")],
    time_zone: Annotated[str, typer.Option(help="Where the customer's months begin.")] = "America/Sao_Paulo",
    currency: Annotated[list[str] | None, typer.Option(help="A wallet; may be repeated.")] = None,
    card: Annotated[str | None, typer.Option(help="Stripe's payment method id.")] = None,
) -> None:
    """Make a customer with wallets, and a card if given."""
    new = customer_service.NewCustomer(tenant_id, customer_id, plan, time_zone, tuple(currency or ()))
    created = customer_service.create_customers([new], clock.now())
    if card:
        cards.attach(tenant_id, customer_id, card, gateway(), clock.now())
    console.print(f"customer {plain(customer_id)} {'created' if created else 'was there already'}")


@credits_.command("grant")
def grant_credits(
    tenant_id: TenantId,
    customer_id: CustomerId,
    amount: Annotated[str, typer.Argument(help="How much, such as 100 or 0.05.")],
    key: Annotated[str, typer.Option(help="An idempotency key: the same key gives once.", callback=_named(255))],
    currency: Annotated[str, typer.Option(help="Of which wallet.")] = "USD",
    source: Annotated[str, typer.Option(help="free, promo, purchase, adjustment, …")] = "promo",
    reason: Annotated[str, typer.Option(help="Why.")] = "manual_adjustment",
    valid_from: Annotated[datetime | None, typer.Option(help="It pays for what occurs from then on; UTC.")] = None,
    expires_at: Annotated[datetime | None, typer.Option(help="And before this; UTC.")] = None,
    priority: Annotated[int | None, typer.Option(help="The smaller is burned first.")] = None,
) -> None:
    """Give a customer credits, once per key."""
    validity = (valid_from and clock.in_utc(valid_from), expires_at and clock.in_utc(expires_at))
    asked = Grant(tenant_id, customer_id, currency, a_decimal(amount), source, reason, key, *validity, priority)
    given = grant(asked, clock.now())
    how = "granted" if given.is_new else "had been granted under this key before"
    console.print(f"{currency} {written(given.amount)} {how}; balance after it {written(given.balance_after)}")


@credits_.command("adjust")
def adjust_credits(
    tenant_id: TenantId,
    customer_id: CustomerId,
    by: Annotated[str, typer.Option(help="How much more, or below zero less, such as -5.")],
    key: Annotated[str, typer.Option(help="An idempotency key: the same key adjusts once.", callback=_named(255))],
    currency: Annotated[str, typer.Option(help="Of which wallet.")] = "USD",
    reason: Annotated[str, typer.Option(help="Why.")] = Reason.MANUAL_ADJUSTMENT.value,
    into_debt: Annotated[bool, typer.Option("--into-debt", help="Take more than is available.")] = False,
) -> None:
    """Put a wallet right, once per key."""
    asked = Adjustment(tenant_id, customer_id, currency, a_decimal(by), reason, key, into_debt)
    done = adjust(asked, clock.now())
    how = "adjusted" if done.is_new else "had been adjusted under this key before"
    console.print(f"{currency} {written(done.amount)} {how}; balance after it {written(done.balance_after)}")


def a_decimal(text: str) -> Decimal:
    """The number that somebody wrote. Raises `Rejected`."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise Rejected(f"{text!r} is not an amount; write it like 100 or 0.05") from None


def _amount(price: Price) -> str:
    per = price.unit if price.per == 1 else f"{written(price.per)} {price.unit}s"
    if not price.ladder:
        return f"{price.currency} {written(price.unit_price)} per {plain(per)}"
    rungs = (
        f"{'above' if r.up_to is None else f'to {written(r.up_to)}'}: {written(r.unit_price)}" for r in price.ladder
    )
    return "\n".join([f"{price.currency} per {plain(per)}", *rungs])


def _remarks(price: Price) -> list[str]:
    said = [
        ("ended", price.is_ended),
        ("also for models not listed", price.is_provider_default),
        ("adds up over the month", price.adds_up_over_period),
        (f"revision {price.revision}", price.revision > 0),
    ]
    return [f"({remark})" for remark, holds in said if holds]
