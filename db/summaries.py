"""What a customer's payments of a period come to, and what the audit found of a tenant. Takes no lock."""

from datetime import datetime
from typing import Any, NamedTuple, cast

from billing.payments import PAID
from db.schema.base import one_of
from db.session import Connection


class PaymentSum(NamedTuple):
    """Payments of a kind that fell due in a period and were not voided."""

    kind: str
    currency: str
    payments: int
    amount_minor: int
    paid: int
    paid_minor: int
    """Less what was given back."""
    due_minor: int
    """What is still to be collected."""


class CustomerSum(NamedTuple):
    """A customer's period around now, in a list. Without a row of its own, nothing was used in it yet."""

    customer_id: str
    plan_id: str
    plan_version: int
    period_starts_at: datetime | None
    period_ends_at: datetime | None
    tokens: int
    included_tokens: int
    tier: int
    """How many tiers have begun; 0: all is within the fee."""
    payment_currency: str
    due_minor: int
    paid_minor: int


class Turn(NamedTuple):
    """When the audit ran, and runs again."""

    due_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class StandingDifference(NamedTuple):
    """What the audit found of a tenant, as long as it stands."""

    difference_id: int
    check_name: str
    subject: str
    expected: str
    actual: str
    times: int
    first_seen_at: datetime
    last_seen_at: datetime


_IS_PAID = one_of("state", PAID)
_PAID_MINOR = f"coalesce(sum(amount_minor - refunded_minor) FILTER (WHERE {_IS_PAID}), 0)::bigint"
_IS_OWED = f"NOT {_IS_PAID} AND void_wished_at IS NULL AND unowed_at IS NULL"
_DUE_MINOR = f"coalesce(sum(amount_minor) FILTER (WHERE {_IS_OWED}), 0)::bigint"

_SUMS = f"""
SELECT kind, currency, count(*), sum(amount_minor)::bigint, count(*) FILTER (WHERE {_IS_PAID}),
    {_PAID_MINOR}, {_DUE_MINOR}
FROM payments
WHERE tenant_id = %s AND customer_id = %s AND period_start = %s AND state <> 'voided'
GROUP BY kind, currency ORDER BY kind, currency
"""  # noqa: S608 - words of ours, no input

_CUSTOMERS = f"""
SELECT c.customer_id, l.plan_id, l.version, p.starts_at, p.ends_at, coalesce(p.tokens, 0), l.included_tokens,
    coalesce(p.tiers_reached, 0), l.payment_currency, s.due_minor, s.paid_minor
FROM customers c
LEFT JOIN LATERAL (
    SELECT * FROM periods p
    WHERE p.tenant_id = c.tenant_id AND p.customer_id = c.customer_id
        AND p.starts_at <= %(now)s AND p.ends_at > %(now)s
) p ON true
JOIN plans l ON l.tenant_id = c.tenant_id AND l.plan_id = coalesce(p.plan_id, c.plan_id)
    AND l.version = coalesce(p.plan_version, c.plan_version)
CROSS JOIN LATERAL (
    SELECT {_DUE_MINOR} AS due_minor, {_PAID_MINOR} AS paid_minor FROM payments
    WHERE tenant_id = c.tenant_id AND customer_id = c.customer_id AND period_start = p.starts_at
        AND kind <> 'top_up' AND state <> 'voided'
) s
WHERE c.tenant_id = %(tenant_id)s AND (%(after)s::text IS NULL OR c.customer_id > %(after)s)
ORDER BY c.customer_id LIMIT %(limit)s
"""  # noqa: S608 - words of ours, no input

_TURN = "SELECT due_at, started_at, finished_at FROM audit_turn"

_DIFFERENCES = """
SELECT difference_id, check_name, subject, expected, actual, times, first_seen_at, last_seen_at FROM audit_differences
WHERE tenant_id = %s AND resolved_at IS NULL ORDER BY difference_id LIMIT %s
"""


def payments_of_period(
    connection: Connection, tenant_id: str, customer_id: str, period_start: datetime
) -> list[PaymentSum]:
    """Payments of a customer's period by kind and currency."""
    rows = connection.execute(_SUMS.encode(), (tenant_id, customer_id, period_start))
    return [PaymentSum._make(cast("Any", row)) for row in rows]


def customers(
    connection: Connection, tenant_id: str, now: datetime, limit: int, after: str | None
) -> list[CustomerSum]:
    """A tenant's customers by name, each with the period around now; after one, if given."""
    said = {"tenant_id": tenant_id, "now": now, "limit": limit, "after": after}
    return [CustomerSum._make(cast("Any", row)) for row in connection.execute(_CUSTOMERS.encode(), said)]


def audit_turn(connection: Connection) -> Turn:
    """When the audit ran, and runs again."""
    row = connection.execute(_TURN).fetchone()
    assert row is not None
    return Turn._make(cast("Any", row))


def differences(connection: Connection, tenant_id: str, limit: int) -> list[StandingDifference]:
    """What the audit found of a tenant and stands, the oldest first."""
    return [StandingDifference._make(cast("Any", row)) for row in connection.execute(_DIFFERENCES, (tenant_id, limit))]
