"""Holds on wallets: value that is kept back before usage begins, so that it is there when it comes.

What captures a hold is the usage itself (`services.metering.capturing`). Here it is opened, and what is left of it
given back.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from billing.affordability import Affordability, Check, afford_value, check_buffer
from billing.credit_holds import HoldState, to_reserve
from billing.errors import HoldNotFound, IdempotencyConflict, InsufficientCredits, Rejected
from billing.money import COST_PLACES, written
from billing.payments import AlertKind
from billing.rating import TOKEN
from centavo import Item
from config.logging import logger
from config.settings import settings
from db import credit_holds as rows
from db import wallets as wallet_rows
from db.credit_holds import Captured, DueHold, HoldRow, NewHold
from db.session import LOCK_TRIES_OF_PARTS, Connection, Stale, in_transaction
from db.wallets import WalletRow
from services import alone
from services.books import catalogue
from services.desk import quotas, quoting, standing
from services.desk.standing import Standing
from services.desk.wallets import afford_rated, weighed

log = logger(__name__)

KEY_CHARACTERS_MAX = 255
LIST_MAX = 1000
#: Holds whose time is over that are closed in one transaction.
EXPIRED_AT_ONCE = 1000
ONE = Decimal(1)

#: What a hold may be for: facts of the usage that is to come.
_PURPOSE = ("user_id", "organization_id", "service_type", "feature")

Identity = tuple[str, str]
"""tenant, customer"""


@dataclass(frozen=True, slots=True)
class HoldWish:
    """What to reserve: an amount in a wallet's currency, or what these items would cost, with a buffer.

    Of several wallets, an amount says the currency. Without `buffer` and `seconds` the settings say them. What it is
    for decides which quotas are asked, besides those of the customer and the tenant.
    """

    tenant_id: str
    customer_id: str
    idempotency_key: str
    amount: Decimal | None = None
    currency: str | None = None
    items: Sequence[Item] | None = None
    buffer: Decimal | None = None
    seconds: int | None = None
    user_id: str | None = None
    organization_id: str | None = None
    service_type: str | None = None
    feature: str | None = None


@dataclass(frozen=True, slots=True)
class Reserved:
    """A hold as it was opened; not new when the same key had opened it before, whatever became of it."""

    hold_id: str
    customer_id: str
    amount: Decimal
    currency: str
    opened_at: datetime
    expires_at: datetime
    is_new: bool


def reserve(wish: HoldWish, now: datetime) -> Reserved:
    """Open a hold once per idempotency key, under the customer's lock: no two of them get the same value.

    Raises `InsufficientCredits` (what is available, and what is required; nothing is kept of it, so the same key may
    ask again), `QuotaExceeded` (a hard quota leaves no room), `IdempotencyConflict` (the key opened another hold),
    `TenantNotFound`, `CustomerNotFound`, `WalletNotFound`, `PriceNotFound`, `ItemsMalformed`, `Rejected` (no such
    amount, buffer, time or key; several wallets and no currency; items that the plan covers).
    """
    _check(wish)
    reserved = in_transaction(lambda connection: _reserve(connection, wish, now))
    if reserved.is_new:
        log.info(
            "hold opened",
            tenant_id=wish.tenant_id,
            customer_id=wish.customer_id,
            hold_id=reserved.hold_id,
            amount=written(reserved.amount),
            currency=reserved.currency,
        )
    return reserved


def _reserve(connection: Connection, wish: HoldWish, now: datetime) -> Reserved:
    locked = wallet_rows.lock_of_customer(connection, wish.tenant_id, wish.customer_id)
    before = rows.by_key(connection, wish.tenant_id, wish.idempotency_key)
    if before is not None:
        return _opened_before(before, wish)
    expire_of(connection, locked, now)
    found = standing.read(connection, wish.tenant_id, wish.customer_id, now, with_sources=False)

    needed = _needed(connection, found, wish, now)
    wallet = found.wallet(needed.unit)
    quotas.enforce(connection, _usage(wish, needed), now)

    seconds = min(settings().hold_seconds, settings().hold_seconds_max) if wish.seconds is None else wish.seconds
    hold = NewHold(
        wish.tenant_id,
        _hold_id(connection, wish),
        wish.customer_id,
        wallet.wallet_id,
        to_reserve(needed.required),
        now,
        now + timedelta(seconds=seconds),
        wish.idempotency_key,
        _asked(wish),
    )
    if not rows.reserve(connection, hold):
        raise Stale  # the key was used meanwhile, for another customer
    return Reserved(hold.hold_id, hold.customer_id, hold.amount, wallet.currency, now, hold.expires_at, is_new=True)


def _needed(connection: Connection, found: Standing, wish: HoldWish, now: datetime) -> Check:
    """What is needed of a wallet. Raises `InsufficientCredits`, `Rejected` (nothing is)."""
    if wish.items is not None:
        rated = quoting.rate_items(connection, found, wish.items, now)
        buffer = found.affordability_buffer if wish.buffer is None else wish.buffer
        asked = afford_rated(found, rated, buffer, now)
    else:
        assert wish.amount is not None
        wallet = found.wallet(wish.currency)
        available = weighed(wallet, now).available
        asked = Affordability((afford_value(available, wish.amount, wallet.currency, ONE, found.cover()),))
    if not asked.is_affordable:
        raise InsufficientCredits(
            available=written(asked.available),
            required=written(asked.required),
            unit=asked.unit,
            reason=str(asked.reason),
        )
    for check in asked.checks:
        if check.unit in found.currencies and check.required:
            return check
    raise Rejected("these items cost nothing in a wallet: there is nothing to reserve; ask whether they are affordable")


def _usage(wish: HoldWish, needed: Check) -> quotas.Usage:
    """What the hold is for, as quotas count it: one event, its tokens if told, all that is kept back."""
    used = [item.quantity for item in wish.items or () if item.unit == TOKEN]
    return quotas.Usage(
        wish.tenant_id,
        wish.customer_id,
        wish.user_id,
        wish.organization_id,
        wish.service_type,
        wish.feature,
        tokens=int(sum(used)),
        cost=to_reserve(needed.required),
        currency=needed.unit,
    )


def release(tenant_id: str, hold_id: str, now: datetime, *, customer_id: str | None = None) -> HoldRow:
    """Give back what a hold still reserves; what is closed already stays as it is. How the hold stands after it.

    Raises `HoldNotFound`, also where it is not the customer's who is named.
    """
    return in_transaction(lambda connection: _release(connection, (tenant_id, customer_id), hold_id, now))


def _release(connection: Connection, whose: tuple[str, str | None], hold_id: str, now: datetime) -> HoldRow:
    found = _find(connection, *whose, hold_id)
    wallet_rows.lock_of_customer(connection, found.tenant_id, found.customer_id)
    is_over = found.expires_at <= now
    closed = rows.close(
        connection, [(found.tenant_id, hold_id)], HoldState.EXPIRED if is_over else HoldState.RELEASED, now
    )
    if closed:
        log.info("hold closed", tenant_id=found.tenant_id, customer_id=found.customer_id, hold_id=hold_id)
    return _find(connection, *whose, hold_id)


def show(tenant_id: str, hold_id: str, *, customer_id: str | None = None) -> HoldRow:
    """A hold as it stands. Raises `HoldNotFound`, also where it is not the customer's who is named."""
    return in_transaction(lambda connection: _find(connection, tenant_id, customer_id, hold_id))


def captures(tenant_id: str, hold_id: str, *, customer_id: str | None = None, limit: int = 100) -> list[Captured]:
    """What usage took of a hold, the oldest first. Raises `HoldNotFound`, as `show` does."""
    limit = max(1, min(limit, LIST_MAX))
    return in_transaction(
        lambda connection: rows.captures(connection, _find(connection, tenant_id, customer_id, hold_id), limit)
    )


def of_customer(tenant_id: str, customer_id: str, *, with_closed: bool = False, limit: int = 100) -> list[HoldRow]:
    """A customer's open holds, or all of them, the newest first."""
    limit = max(1, min(limit, LIST_MAX))
    return in_transaction(
        lambda connection: rows.of_customer(connection, tenant_id, customer_id, with_closed=with_closed, limit=limit)
    )


def expire_due(now: datetime) -> int:
    """Close some of the holds whose time is over; how many, none when all is done.

    Lost or doubled looks do no harm: what is due stands in the rows.
    """
    due: dict[Identity, list[DueHold]] = {}
    customers: list[Identity] = []

    def together(connection: Connection) -> int:
        due.clear()
        for hold in rows.due(connection, now, EXPIRED_AT_ONCE):
            due.setdefault((hold.tenant_id, hold.customer_id), []).append(hold)
        customers[:] = sorted(due)
        return _expire(connection, due, customers, now)

    return alone.worked(
        lambda: in_transaction(together, lock_tries=LOCK_TRIES_OF_PARTS),
        lambda identity: in_transaction(
            lambda connection: _expire(connection, due, [identity], now), lock_tries=LOCK_TRIES_OF_PARTS
        ),
        customers,
        lambda identity, error: alone.tell(identity, AlertKind.MONTH_FAILS, "holds can't be expired", error, now),
    )


def expire_of(connection: Connection, locked: Sequence[WalletRow], now: datetime) -> None:
    """Close the holds of a customer whose time is over: they stand in nobody's way, whether or not the sweep has come.

    The caller has locked the customer's wallets, all of them.
    """
    reserving = [(row.tenant_id, row.wallet_id) for row in locked if row.reserved]
    if reserving and (due := rows.due_of_wallets(connection, reserving, now)):
        _close(connection, due, HoldState.EXPIRED, now)


def _expire(
    connection: Connection, due: dict[Identity, list[DueHold]], customers: Sequence[Identity], now: datetime
) -> int:
    if not customers:
        return 0
    wallet_rows.lock_of_customers(connection, customers)
    closed = _close(connection, [hold for one in customers for hold in due[one]], HoldState.EXPIRED, now)
    log.info("holds expired", customers=len(customers), holds=closed)
    return closed


def _close(connection: Connection, holds: Sequence[DueHold], state: HoldState, now: datetime) -> int:
    return rows.close(connection, [(hold.tenant_id, hold.hold_id) for hold in holds], state, now)


def _find(connection: Connection, tenant_id: str, customer_id: str | None, hold_id: str) -> HoldRow:
    found = rows.find(connection, tenant_id, hold_id)
    if found is None or customer_id not in {None, found.customer_id}:
        raise HoldNotFound(tenant_id=tenant_id, hold_id=hold_id)
    return found


def _opened_before(before: HoldRow, wish: HoldWish) -> Reserved:
    if before.asked != _asked(wish):
        raise IdempotencyConflict(idempotency_key=wish.idempotency_key, hold_id=before.hold_id)
    return Reserved(
        before.hold_id,
        before.customer_id,
        before.amount,
        before.currency,
        before.opened_at,
        before.expires_at,
        is_new=False,
    )


def _asked(wish: HoldWish) -> dict[str, Any]:
    """What a caller said, in a form in which the same is the same."""
    items: list[list[str]] | None = None
    if wish.items is not None:
        items = [[one.category, one.provider, one.model, one.unit, written(one.quantity)] for one in wish.items]
    return {
        "customer_id": wish.customer_id,
        "amount": None if wish.amount is None else written(wish.amount),
        "currency": wish.currency,
        "items": items,
        "buffer": None if wish.buffer is None else written(wish.buffer),
        "seconds": wish.seconds,
        **{name: said for name in _PURPOSE if (said := getattr(wish, name)) is not None},
    }


def _hold_id(connection: Connection, wish: HoldWish) -> str:
    """The same for the same key, in this installation."""
    named = f"hold\0{wish.tenant_id}\0{wish.idempotency_key}"
    return str(uuid.uuid5(catalogue.installation(connection), named))


def _check(wish: HoldWish) -> None:
    if (wish.amount is None) == (wish.items is None):
        raise Rejected("say either an amount or items")
    if not 1 <= len(wish.idempotency_key) <= KEY_CHARACTERS_MAX or "\0" in wish.idempotency_key:
        raise Rejected(f"an idempotency key has 1 to {KEY_CHARACTERS_MAX} characters", key=wish.idempotency_key[:40])
    most = settings().hold_seconds_max
    if wish.seconds is not None and not 1 <= wish.seconds <= most:
        raise Rejected(f"a hold lasts 1 to {most} seconds", seconds=wish.seconds)
    if wish.items is not None:
        if wish.currency is not None:
            raise Rejected("a currency goes with an amount; items are in that of their prices")
        quoting.check_items(wish.items)
        check_buffer(ONE if wish.buffer is None else wish.buffer)
        return
    if wish.buffer is not None:
        raise Rejected("a buffer goes with items; an amount is reserved as it is said")
    _check_amount(wish.amount)


def _check_amount(amount: Decimal | None) -> None:
    assert amount is not None
    standing.check_amount(amount)
    if not amount or amount != to_reserve(amount):
        raise Rejected(f"a hold is an amount above zero with {COST_PLACES} decimal places at most", amount=str(amount))
