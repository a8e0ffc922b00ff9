"""Charging an event that has its row already: parked, or deferred by its caller."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from billing.charging import Charge
from centavo import UsageEvent
from db import parked as rows
from db.session import Connection
from db.usage import CONTEXT_COLUMNS
from services.metering.posting import lock_wallets, post
from services.metering.preparing import items_as_json

EventRow = dict[str, Any]
"""A row of `usage_events` as a JSON object; fractions are `Decimal`."""


def charge_waiting(
    connection: Connection, charge: Charge, status: str, now: datetime, guard: Callable[[], None] = lambda: None
) -> bool:
    """Charge an event that waits, once; False when somebody else was first. The guard may refuse it, under the lock.

    Locks the customer's wallets, then what `services.metering.posting` locks, then the event's row.
    """
    tenant_id, key = charge.event.tenant_id, charge.event.key
    lock_wallets(connection, [charge])
    if not rows.lock_event(connection, tenant_id, key, status):
        return False

    guard()

    rows.charge(connection, _charged(charge, now))
    post(connection, [charge], now)
    return True


def defer_waiting(connection: Connection, charge: Charge, now: datetime) -> bool:
    """Let an event that is parked, and that its caller deferred, wait to be settled; False when somebody was first.

    Priced as it is now, counted and debited nowhere. Locks the event's row alone.
    """
    if not rows.lock_event(connection, charge.event.tenant_id, charge.event.key, "parked"):
        return False
    rows.defer(connection, _charged(charge, now))
    return True


def event_of(row: EventRow) -> UsageEvent:
    """The event that a row of `usage_events` was made from.

    Its metadata is as it is kept: there were rows before there were bounds on it, and nothing is charged by it.
    """
    items = [
        {name: item[name] for name in ("category", "provider", "model", "unit", "quantity")} for item in row["items"]
    ]
    context = {name: row[name] for name in CONTEXT_COLUMNS if row.get(name) is not None}
    identity = {name: row[name] for name in ("tenant_id", "customer_id", "key", "occurred_at")}
    event = UsageEvent.from_wire({**identity, **context, "items": items})
    return event.model_copy(update={"metadata": row.get("metadata")})


def _charged(charge: Charge, now: datetime) -> dict[str, Any]:
    return {
        "tenant_id": charge.event.tenant_id,
        "key": charge.event.key,
        "now": now,
        "period_start": charge.tally.period.starts_at,
        "is_late": charge.is_late,
        "tokens": charge.rated.tokens,
        "cost": charge.rated.cost,
        "currency": charge.rated.currency,
        "items": items_as_json(charge.rated.lines),
        "quota_ids": [quota.quota_id for quota, _ in charge.quotas] or None,
    }
