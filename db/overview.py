"""Payments in a list, for people who look after them."""

from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from db.session import Connection


class ListedPayment(NamedTuple):
    """A payment in a list."""

    tenant_id: str
    payment_id: UUID
    customer_id: str
    kind: str
    tier: int
    amount_minor: int
    refunded_minor: int
    currency: str
    state: str
    due_at: datetime | None
    attempts_made: int
    last_decline_code: str | None
    created_at: datetime


_LIST = """
SELECT tenant_id, payment_id, customer_id, kind, tier, amount_minor, refunded_minor, currency, state, due_at,
    attempts_made, last_decline_code, created_at
FROM payments
WHERE (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
    AND (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)
    AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY created_at DESC, tenant_id, payment_id
LIMIT %(limit)s
"""


def payments(
    connection: Connection, tenant_id: str | None, customer_id: str | None, state: str | None, limit: int
) -> list[ListedPayment]:
    """Payments, newest first; of one tenant, customer or state if told."""
    said = {"tenant_id": tenant_id, "customer_id": customer_id, "state": state, "limit": limit}
    return [ListedPayment._make(cast("Any", row)) for row in connection.execute(_LIST, said)]
