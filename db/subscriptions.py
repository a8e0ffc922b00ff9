"""Subscriptions: what a customer agreed to, and what became of it. Whoever writes holds the customer's wallets."""

from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from psycopg.types.json import Jsonb

from db.months import SubscriptionRow
from db.session import Connection


class LogRow(NamedTuple):
    """One thing that a subscription went through."""

    at: datetime
    move: str
    effective_at: datetime
    detail: dict[str, Any]


class PeriodRow(NamedTuple):
    """A period of a customer, as people look at it."""

    starts_at: datetime
    ends_at: datetime
    plan_id: str
    plan_version: int
    time_zone: str
    tokens: int
    events: int
    tiers_reached: int
    opened_at: datetime | None
    closed_at: datetime | None
    statement_number: int | None


_PERIODS_OF = """
SELECT starts_at, ends_at, plan_id, plan_version, time_zone, tokens, events, tiers_reached, opened_at, closed_at,
    statement_number
FROM periods WHERE tenant_id = %s AND customer_id = %s ORDER BY starts_at
"""

_SAVE = """
UPDATE customers
SET plan_id = %(plan_id)s, plan_version = %(plan_version)s, next_plan_id = %(next_plan_id)s,
    next_plan_version = %(next_plan_version)s, next_plan_at = %(next_plan_at)s, time_zone = %(time_zone)s,
    anchor_day = %(anchor_day)s, billed_from = %(billed_from)s, paused_at = %(paused_at)s, ended_at = %(ended_at)s
WHERE tenant_id = %(tenant_id)s AND customer_id = %(customer_id)s
"""

_LOG = """
INSERT INTO subscription_log (tenant_id, customer_id, at, move, effective_at, detail) VALUES (%s, %s, %s, %s, %s, %s)
"""

_LOG_OF = """
SELECT at, move, effective_at, detail FROM subscription_log WHERE tenant_id = %s AND customer_id = %s ORDER BY entry_id
"""

#: Under which a change was asked for, in the detail of its entry.
KEY = "idempotency_key"

_CHANGED_UNDER = f"""
SELECT effective_at FROM subscription_log
WHERE tenant_id = %s AND customer_id = %s AND detail ->> '{KEY}' = %s ORDER BY entry_id LIMIT 1
"""  # noqa: S608 - a word of ours, no input

_CUT = """
UPDATE periods SET ends_at = %s WHERE tenant_id = %s AND customer_id = %s AND starts_at = %s
"""

_REOPEN = """
UPDATE periods SET opened_at = NULL WHERE tenant_id = %s AND customer_id = %s AND starts_at = %s AND closed_at IS NULL
"""

_IS_NEXT_BEGUN = """
SELECT EXISTS (
    SELECT FROM periods WHERE tenant_id = %s AND customer_id = %s AND starts_at > %s AND (opened_at IS NOT NULL OR %s)
)
"""

_FEE = """
SELECT payment_id FROM payments
WHERE tenant_id = %s AND customer_id = %s AND period_start = %s AND kind = 'subscription' AND state <> 'voided'
    AND void_wished_at IS NULL
ORDER BY generation DESC LIMIT 1
"""


def save(connection: Connection, subscription: SubscriptionRow) -> None:
    """Write a subscription as it is from now on."""
    connection.execute(_SAVE, subscription._asdict())


def log(
    connection: Connection,
    customer: tuple[str, str],
    move: str,
    effective_at: datetime,
    detail: dict[str, Any],
    now: datetime,
) -> None:
    """Write down what a subscription of (tenant, customer) went through."""
    connection.execute(_LOG, (*customer, now, move, effective_at, Jsonb(detail)))


def log_of(connection: Connection, tenant_id: str, customer_id: str) -> list[LogRow]:
    """All that a customer's subscription went through, in order."""
    return [LogRow._make(cast("Any", row)) for row in connection.execute(_LOG_OF, (tenant_id, customer_id))]


def changed_under(connection: Connection, customer: tuple[str, str], key: str) -> datetime | None:
    """When a change that was asked for under a key took effect for (tenant, customer); None if there was none."""
    row = connection.execute(_CHANGED_UNDER, (*customer, key)).fetchone()
    return cast("datetime", row[0]) if row else None


def periods_of(connection: Connection, tenant_id: str, customer_id: str) -> list[PeriodRow]:
    """A customer's periods, in order."""
    return [PeriodRow._make(cast("Any", row)) for row in connection.execute(_PERIODS_OF, (tenant_id, customer_id))]


def cut(connection: Connection, customer: tuple[str, str], starts_at: datetime, ends_at: datetime) -> None:
    """Let a period of (tenant, customer) end then; another one is to follow."""
    connection.execute(_CUT, (ends_at, *customer, starts_at))


def reopen(connection: Connection, customer: tuple[str, str], starts_at: datetime) -> None:
    """Let the month's tick decide anew what an open period of (tenant, customer) owes and gets."""
    connection.execute(_REOPEN, (*customer, starts_at))


def is_next_begun(connection: Connection, customer: tuple[str, str], now: datetime, *, by_anybody: bool) -> bool:
    """Whether the next period of (tenant, customer) is opened; or has begun at all, by an event ahead of its time."""
    row = connection.execute(_IS_NEXT_BEGUN, (*customer, now, by_anybody)).fetchone()
    assert row is not None
    return cast("bool", row[0])


def fee_of(connection: Connection, customer: tuple[str, str], period_start: datetime) -> UUID | None:
    """The payment that collects the fee of a period, or None."""
    row = connection.execute(_FEE, (*customer, period_start)).fetchone()
    return cast("UUID", row[0]) if row else None
