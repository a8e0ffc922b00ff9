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


_SUMS = f"""
SELECT kind, currency, count(*), sum(amount_minor)::bigint, count(*) FILTER (WHERE {one_of("state", PAID)}),
    coalesce(sum(amount_minor - refunded_minor) FILTER (WHERE {one_of("state", PAID)}), 0)::bigint
FROM payments
WHERE tenant_id = %s AND customer_id = %s AND period_start = %s AND state <> 'voided'
GROUP BY kind, currency ORDER BY kind, currency
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


def audit_turn(connection: Connection) -> Turn:
    """When the audit ran, and runs again."""
    row = connection.execute(_TURN).fetchone()
    assert row is not None
    return Turn._make(cast("Any", row))


def differences(connection: Connection, tenant_id: str, limit: int) -> list[StandingDifference]:
    """What the audit found of a tenant and stands, the oldest first."""
    return [StandingDifference._make(cast("Any", row)) for row in connection.execute(_DIFFERENCES, (tenant_id, limit))]
