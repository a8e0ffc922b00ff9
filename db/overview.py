"""Payments in a list, for people who look after them."""

from collections.abc import Mapping
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


_COLUMNS = ", ".join(ListedPayment._fields)

_LIST = f"""
SELECT {_COLUMNS} FROM payments
WHERE (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
    AND (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)
    AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY created_at DESC, tenant_id, payment_id
LIMIT %(limit)s
"""  # noqa: S608 - column names of ours, no input


_PAGE = f"""
SELECT {_COLUMNS} FROM payments
WHERE tenant_id = %(tenant_id)s AND (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)
    AND (%(state)s::text IS NULL OR state = %(state)s) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
    AND (%(at)s::timestamptz IS NULL OR (created_at, payment_id) < (%(at)s, %(payment_id)s::uuid))
ORDER BY created_at DESC, payment_id DESC LIMIT %(limit)s
"""  # noqa: S608 - column names of ours, no input

_ONE = f"SELECT {_COLUMNS} FROM payments WHERE tenant_id = %s AND payment_id = %s"  # noqa: S608 - the same


def payments(
    connection: Connection, tenant_id: str | None, customer_id: str | None, state: str | None, limit: int
) -> list[ListedPayment]:
    """Payments, newest first; of one tenant, customer or state if told."""
    said = {"tenant_id": tenant_id, "customer_id": customer_id, "state": state, "limit": limit}
    return [ListedPayment._make(cast("Any", row)) for row in connection.execute(_LIST, said)]


def page(
    connection: Connection, filters: Mapping[str, str | None], limit: int, after: tuple[datetime, UUID] | None
) -> list[ListedPayment]:
    """A tenant's payments, newest first, by `tenant_id`, `customer_id`, `state` and `kind`; after one, if given."""
    at, payment_id = after or (None, None)
    said = {**filters, "limit": limit, "at": at, "payment_id": payment_id}
    return [ListedPayment._make(cast("Any", row)) for row in connection.execute(_PAGE, said)]


def payment(connection: Connection, tenant_id: str, payment_id: UUID) -> ListedPayment | None:
    """One payment of a tenant, or None. Takes no lock."""
    row = connection.execute(_ONE, (tenant_id, payment_id)).fetchone()
    return ListedPayment._make(cast("Any", row)) if row else None
