"""Payments of tiers: which there are, and which are owed no longer. Whoever asks holds the customer's wallets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from db.payments import PaymentRow
from db.session import Connection


class TierPayment(NamedTuple):
    """The latest payment of a tier of a period."""

    tenant_id: str
    customer_id: str
    period_start: datetime
    tier: int
    generation: int
    is_unowed: bool


_STANDING_ABOVE = """
SELECT payment_id FROM payments
WHERE tenant_id = %s AND customer_id = %s AND period_start = %s AND kind = 'tier' AND tier > %s
    AND unowed_at IS NULL AND state <> 'voided'
ORDER BY payment_id
"""

_LATEST = """
SELECT DISTINCT ON (p.tenant_id, p.customer_id, p.period_start, p.tier)
    p.tenant_id, p.customer_id, p.period_start, p.tier, p.generation, p.unowed_at IS NOT NULL
FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::int[]) AS asked(tenant_id, customer_id, period_start, tiers)
JOIN payments p ON p.tenant_id = asked.tenant_id AND p.customer_id = asked.customer_id
    AND p.period_start = asked.period_start AND p.kind = 'tier' AND p.tier > asked.tiers
ORDER BY p.tenant_id, p.customer_id, p.period_start, p.tier, p.generation DESC
"""

_UNOWE = "UPDATE payments SET unowed_at = %s WHERE tenant_id = %s AND payment_id = %s"

_LOG = """
INSERT INTO payment_log (tenant_id, payment_id, at, source, from_state, to_state, attempt, why)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""


def standing_above(
    connection: Connection, tenant_id: str, customer_id: str, period_start: datetime, tiers: int
) -> list[UUID]:
    """The payments of a period's tiers above so many that are not voided, in the order in which they are locked."""
    rows = connection.execute(_STANDING_ABOVE, (tenant_id, customer_id, period_start, tiers))
    return [cast("UUID", payment_id) for (payment_id,) in rows]


def latest_above(
    connection: Connection, reached: Sequence[tuple[str, str, datetime, int]]
) -> dict[tuple[str, str, datetime, int], TierPayment]:
    """The latest payment of each tier above those reached, by (tenant, customer, start, tier); mostly there is none."""
    rows = connection.execute(_LATEST, [list(column) for column in zip(*reached, strict=True)])
    found = [TierPayment._make(cast("Any", row)) for row in rows]
    return {(one.tenant_id, one.customer_id, one.period_start, one.tier): one for one in found}


def unowe(connection: Connection, payment: PaymentRow, why: str, now: datetime, *, source: str) -> None:
    """Note that what a payment is for is owed no longer. The caller holds the payment."""
    connection.execute(_UNOWE, (now, payment.tenant_id, payment.payment_id))
    identity = (payment.tenant_id, payment.payment_id)
    connection.execute(_LOG, (*identity, now, source, payment.state, payment.state, payment.attempts_made, why))


def is_unowed(connection: Connection, payment: PaymentRow) -> bool:
    """Whether what a payment is for is owed no longer."""
    statement = "SELECT unowed_at IS NOT NULL FROM payments WHERE tenant_id = %s AND payment_id = %s"
    row = connection.execute(statement, (payment.tenant_id, payment.payment_id)).fetchone()
    return bool(row and row[0])
