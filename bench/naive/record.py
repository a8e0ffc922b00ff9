"""Charging one usage event, in one transaction, a row at a time.

Core, with statements built once: measured against the same steps through the ORM, a quarter of the CPU.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection

from bench.naive.tables import customers, ledger_entries, payments, periods, prices, usage_events, wallets

TIER_TOKENS = 8_000_000
TIER_AMOUNT_MINOR = 40_000

_FIND_EVENT = select(usage_events.c.id).where(
    usage_events.c.tenant_id == bindparam("tenant_id"), usage_events.c.key == bindparam("key")
)
_FIND_CUSTOMER = select(customers.c.id).where(
    customers.c.tenant_id == bindparam("tenant_id"), customers.c.external_id == bindparam("external_id")
)
_FIND_PRICE = select(prices.c.id, prices.c.amount).where(
    prices.c.category == bindparam("category"),
    prices.c.provider == bindparam("provider"),
    prices.c.model == bindparam("model"),
    prices.c.unit == bindparam("unit"),
)
_LOCK_WALLET = (
    select(wallets.c.id, wallets.c.balance).where(wallets.c.customer_id == bindparam("customer_id")).with_for_update()
)
_INSERT_EVENT = insert(usage_events).returning(usage_events.c.id)
_INSERT_ENTRY = insert(ledger_entries).inline()
_UPDATE_WALLET = update(wallets).where(wallets.c.id == bindparam("wallet_id")).values(balance=bindparam("new"))
_INSERT_PERIOD = postgresql.insert(periods)
_COUNT_TOKENS = _INSERT_PERIOD.on_conflict_do_update(
    index_elements=[periods.c.customer_id, periods.c.start_at],
    set_={
        "tokens": periods.c.tokens + _INSERT_PERIOD.excluded.tokens,
        "events": periods.c.events + _INSERT_PERIOD.excluded.events,
    },
).returning(periods.c.tokens)
_INSERT_PAYMENT = insert(payments).inline()

PriceKey = tuple[str, str, str, str]
# Looked up once per child: nobody asks the database for the same price a thousand times a second.
_prices: dict[PriceKey, tuple[int, Decimal]] = {}


def record(connection: Connection, event: dict[str, Any]) -> None:
    """Charge `event` and commit; nothing happens if its key was charged before."""
    with connection.begin():
        if _is_known(connection, event):
            return
        customer_id = _find_customer(connection, event)
        lines, cost = _price_lines(connection, event["items"])
        wallet = connection.execute(_LOCK_WALLET, {"customer_id": customer_id}).one()
        event_id, tokens = _insert_event(connection, event, customer_id, lines, cost)
        _debit(connection, wallet.id, event_id, cost, wallet.balance - cost)
        _count_tokens(connection, customer_id, _month_of(event), tokens)


def _is_known(connection: Connection, event: dict[str, Any]) -> bool:
    found = connection.scalar(_FIND_EVENT, {"tenant_id": event["tenant_id"], "key": event["key"]})
    return found is not None


def _find_customer(connection: Connection, event: dict[str, Any]) -> int:
    wanted = {"tenant_id": event["tenant_id"], "external_id": event["customer_id"]}
    customer_id: int = connection.execute(_FIND_CUSTOMER, wanted).scalar_one()
    return customer_id


def _price_lines(connection: Connection, items: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Decimal]:
    """The items with price id and cost, and what they cost together."""
    lines, total = [], Decimal(0)
    for item in items:
        price_id, amount = _price(connection, item)
        cost = Decimal(item["quantity"]) * amount
        lines.append({**item, "price": price_id, "cost": str(cost)})
        total += cost
    return lines, total


def _price(connection: Connection, item: dict[str, Any]) -> tuple[int, Decimal]:
    wanted = (item["category"], item["provider"], item["model"], item["unit"])
    if wanted not in _prices:
        price = connection.execute(
            _FIND_PRICE, dict(zip(("category", "provider", "model", "unit"), wanted, strict=True))
        ).one()
        _prices[wanted] = (price.id, price.amount)
    return _prices[wanted]


def _insert_event(
    connection: Connection,
    event: dict[str, Any],
    customer_id: int,
    lines: list[dict[str, Any]],
    cost: Decimal,
) -> tuple[int, int]:
    """The new row's id, and the event's tokens."""
    tokens = sum(line["quantity"] for line in lines)
    row = {
        "tenant_id": event["tenant_id"],
        "key": event["key"],
        "customer_id": customer_id,
        "occurred_at": datetime.fromisoformat(event["occurred_at"]),
        "items": lines,
        "tokens": tokens,
        "cost": cost,
    }
    return connection.execute(_INSERT_EVENT, row).scalar_one(), tokens


def _debit(connection: Connection, wallet_id: int, event_id: int, cost: Decimal, balance: Decimal) -> None:
    entry = {
        "wallet_id": wallet_id,
        "usage_event_id": event_id,
        "amount": -cost,
        "balance_after": balance,
    }
    connection.execute(_INSERT_ENTRY, entry)
    connection.execute(_UPDATE_WALLET, {"wallet_id": wallet_id, "new": balance})


def _count_tokens(connection: Connection, customer_id: int, start_at: datetime, tokens: int) -> None:
    """Add the event to its month, and a payment for each tier that it opens."""
    counted = {"customer_id": customer_id, "start_at": start_at, "tokens": tokens, "events": 1}
    after = connection.execute(_COUNT_TOKENS, counted).scalar_one()
    for tier in range(_tiers(after - tokens) + 1, _tiers(after) + 1):
        payment = {
            "customer_id": customer_id,
            "period_start_at": start_at,
            "tier": tier,
            "amount_minor": TIER_AMOUNT_MINOR,
        }
        connection.execute(_INSERT_PAYMENT, payment)


def _month_of(event: dict[str, Any]) -> datetime:
    occurred_at = datetime.fromisoformat(event["occurred_at"])
    return occurred_at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _tiers(tokens: int) -> int:
    """Tiers owed: one for each 8M, full or begun, above the first 8M, which are included."""
    return max(0, -(-(tokens - TIER_TOKENS) // TIER_TOKENS))
