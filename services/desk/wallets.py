"""What a customer has, and whether it is enough. Asked before every model call: one statement, no lock, no cache."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal

from billing.affordability import Affordability, afford_quotas, afford_tokens, afford_value, check_buffer, with_buffer
from billing.balances import Balance, weigh
from billing.errors import Rejected, WalletNotFound
from billing.grants import Source
from billing.money import COST_PLACES, as_cost
from billing.rating import TOKEN, Rated
from centavo import Item
from config.settings import settings
from db import wallets as wallet_rows
from db.desk import WalletStanding
from db.grants import opened
from db.session import Connection, ask, in_transaction
from services.books import catalogue, rates
from services.books.rates import Estimate
from services.desk import quoting, standing
from services.desk.standing import Standing


@dataclass(frozen=True, slots=True)
class Refill:
    """The last grant that a wallet was given."""

    at: datetime
    amount: Decimal
    source: Source


@dataclass(frozen=True, slots=True)
class Reset:
    """When free credits come next, for which period and how many."""

    at: datetime
    amount: Decimal


@dataclass(frozen=True, slots=True)
class WalletBalance:
    """A wallet, in its currency."""

    currency: str
    balance: Balance
    is_low: bool
    low_below: Decimal | None
    used_total: Decimal
    purchased_total: Decimal
    """What was bought, less what was taken back of it."""
    received_total: Decimal
    """Everything that came in and is not usage, less what went out."""
    last_refill: Refill | None
    next_reset: Reset | None
    worth: Estimate | None
    """What is available without the overdraft, in US dollars, where a rate is known."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """For whom and what something is to be used: which quotas are asked beside the customer's and the tenant's.

    What is not known is left out.
    """

    user_id: str | None = None
    organization_id: str | None = None
    service_type: str | None = None
    feature: str | None = None

    def said(self) -> dict[str, str | None]:
        """Each by its name, as `db.desk.standing` wants it."""
        return {name: getattr(self, name) for name in _PURPOSES}


_PURPOSES = tuple(one.name for one in fields(Purpose))
NOTHING_IN_PARTICULAR = Purpose()


@dataclass(frozen=True, slots=True)
class CustomerBalance:
    """A customer's wallets at a moment, by currency, and the plan of the period around it."""

    tenant_id: str
    customer_id: str
    at: datetime
    plan_id: str
    plan_version: int
    plan_name: str
    status: str
    """`active`, `paused` or `ended`: the subscription's."""
    period_ends_at: datetime
    wallets: tuple[WalletBalance, ...]


def balance(tenant_id: str, customer_id: str, now: datetime, currency: str | None = None) -> CustomerBalance:
    """What a customer has in all wallets, or in one. Takes no lock.

    Raises `TenantNotFound`, `CustomerNotFound`, `WalletNotFound` (in this currency, or none at all).
    """

    def work(connection: Connection) -> CustomerBalance:
        found = standing.read(connection, tenant_id, customer_id, now, with_past=True)
        wallets = [found.wallet(currency)] if currency is not None or not found.wallets else found.wallets
        reset = _next_reset(connection, found)
        return CustomerBalance(
            tenant_id,
            customer_id,
            now,
            found.plan.plan_id,
            found.plan.version,
            found.plan.name,
            _status(found, now),
            found.period.ends_at,
            tuple(_wallet(found, wallet, reset, now) for wallet in wallets),
        )

    return ask(work)


def is_low(tenant_id: str, customer_id: str, now: datetime) -> bool:
    """Whether a wallet of a customer has less than its threshold; one without grants and debt is not in use.

    One statement; takes no lock. Raises `TenantNotFound`, `CustomerNotFound`.
    """

    def work(connection: Connection) -> bool:
        found = standing.read(connection, tenant_id, customer_id, now, with_sources=False)
        used = [wallet for wallet in found.wallets if wallet.received_total > 0 or wallet.balance < 0]
        return any(_is_below(weighed(wallet, now), found.low_below(wallet)) for wallet in used)

    return ask(work)


def can_afford(
    tenant_id: str,
    customer_id: str,
    now: datetime,
    *,
    cost: Decimal | None = None,
    currency: str | None = None,
    items: Sequence[Item] | None = None,
    buffer: Decimal | None = None,
    purpose: Purpose = NOTHING_IN_PARTICULAR,
) -> Affordability:
    """Whether a customer may use what costs so much, or these items; with a buffer (1.2, or as is set).

    Items are rated as their usage would be. Tokens that a plan with tiers covers are measured against the period,
    everything else against the wallet in its currency; a cost against the wallet told, or the only one. Hard quotas,
    and a customer's own cap, must leave room for it as well. Takes no lock: what others use meanwhile may come before
    it, which is what the buffer is for.

    Raises `TenantNotFound`, `CustomerNotFound`, `WalletNotFound`, `PriceNotFound`, `ItemsMalformed`, `Rejected` (no
    such cost or buffer, neither or both of cost and items, several wallets and no currency).
    """
    if (cost is None) == (items is None):
        raise Rejected("say either a cost or items")
    if buffer is not None:
        check_buffer(buffer)
    if cost is not None:
        standing.check_amount(cost)
    if items is not None:
        quoting.check_items(items)

    def work(connection: Connection) -> Affordability:
        found = standing.read(connection, tenant_id, customer_id, now, with_sources=False, purpose=purpose.said())
        factor = found.affordability_buffer if buffer is None else buffer
        if items is not None:
            return afford_rated(found, quoting.rate_items(connection, found, items, now), factor, now)
        wallet = found.wallet(currency)
        available = weighed(wallet, now).available
        check = afford_value(available, cost or Decimal(0), wallet.currency, factor, found.cover())
        return Affordability((check, *afford_quotas(found.row.quotas, Decimal(0), check.required, wallet.currency)))

    return ask(work)


def set_overdraft(tenant_id: str, customer_id: str, currency: str, overdraft: Decimal) -> None:
    """How far below zero a wallet may be asked for holds and checks, from now on. Usage is debited in any case.

    What is reserved already stays so. Raises `WalletNotFound`, `Rejected` (no such amount).
    """
    _check_places(overdraft)

    def work(connection: Connection) -> None:
        if not wallet_rows.set_overdraft(connection, tenant_id, customer_id, currency, overdraft):
            raise WalletNotFound(tenant_id=tenant_id, customer_id=customer_id, currency=currency)

    in_transaction(work)


def set_low_balance(tenant_id: str, customer_id: str, currency: str, low_below: Decimal | None) -> None:
    """Below how much a wallet is low, from now on; None: as the tenant, or the installation, has it.

    Raises `WalletNotFound`, `Rejected` (no such amount).
    """
    if low_below is not None:
        _check_places(low_below)

    def work(connection: Connection) -> None:
        if not wallet_rows.set_low_below(connection, tenant_id, customer_id, currency, low_below):
            raise WalletNotFound(tenant_id=tenant_id, customer_id=customer_id, currency=currency)

    in_transaction(work)


def _check_places(amount: Decimal) -> None:
    standing.check_amount(amount)
    if amount != as_cost(amount):
        raise Rejected(f"such an amount has at most {COST_PLACES} decimal places", amount=str(amount))


def weighed(wallet: WalletStanding, now: datetime) -> Balance:
    """What a wallet has now, by source where sources were read."""
    grants = opened(wallet.open_grants)
    sources = {one.grant_id: Source(wallet.sources.get(one.grant_id, Source.PROMO)) for one in grants}
    soon = timedelta(days=settings().expiring_soon_days)
    return weigh(grants, sources, wallet.debt, wallet.reserved, now, soon, wallet.overdraft)


def afford_rated(found: Standing, rated: Rated, factor: Decimal, now: datetime) -> Affordability:
    """The period is asked for tokens that it covers, the wallet for what has a price; for nothing, whether all goes.

    Then the hard quotas that were read with it.
    """
    cover = found.cover()
    covered = sum(int(line.item.quantity) for line in rated.lines if line.price is None and line.item.unit == TOKEN)
    checks = [afford_tokens(covered, factor, cover)] if covered else []
    if rated.currency is not None:
        available = weighed(found.wallet(rated.currency), now).available
        checks.append(afford_value(available, rated.cost, rated.currency, factor, cover))
    if not checks:
        checks.append(afford_tokens(0, factor, cover))
    checks += afford_quotas(found.row.quotas, with_buffer(rated.tokens, factor), rated.cost * factor, rated.currency)
    return Affordability(tuple(checks))


def _wallet(found: Standing, wallet: WalletStanding, reset: tuple[str, Reset] | None, now: datetime) -> WalletBalance:
    has = weighed(wallet, now)
    low_below = found.low_below(wallet)
    refill = None
    if wallet.refilled_at is not None and wallet.refill_amount is not None and wallet.refill_source is not None:
        refill = Refill(wallet.refilled_at, wallet.refill_amount, Source(wallet.refill_source))
    return WalletBalance(
        wallet.currency,
        has,
        _is_below(has, low_below),
        low_below,
        wallet.used_total,
        wallet.purchased_total or Decimal(0),
        wallet.received_total,
        refill,
        reset[1] if reset and reset[0] == wallet.currency else None,
        rates.estimate(has.own, wallet.currency, now),
    )


def _is_below(has: Balance, low_below: Decimal | None) -> bool:
    return low_below is not None and has.own < low_below


def _next_reset(connection: Connection, found: Standing) -> tuple[str, Reset] | None:
    """Free credits come with the next period, on the plan that it will be on, unless nothing goes on by then."""
    at = found.period.ends_at
    row = found.row
    if row.paused_at is not None or (row.ended_at is not None and row.ended_at <= at):
        return None
    key = (found.tenant_id, *found.terms.plan_at(at))
    plan = catalogue.plans(connection, [key])[key]
    amount = found.free_credits(plan)
    return (plan.free_credits_currency, Reset(at, amount)) if amount else None


def _status(found: Standing, now: datetime) -> str:
    row = found.row
    if row.ended_at is not None and row.ended_at <= now:
        return "ended"
    return "paused" if row.paused_at is not None and row.paused_at <= now else "active"
