"""Disputes: payments that a customer's bank wants back. A dispute's payment is its lock."""

from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from billing.payments import OPEN_DISPUTE
from db.schema.base import one_of
from db.session import Connection


class DisputeRow(NamedTuple):
    """A dispute as it was last seen."""

    tenant_id: str
    stripe_dispute_id: str
    payment_id: UUID
    amount_minor: int
    status: str
    reason: str | None
    opened_at: datetime
    updated_at: datetime


_COLUMNS = "tenant_id, stripe_dispute_id, payment_id, amount_minor, status, reason, opened_at, updated_at"

_FIND = f"SELECT {_COLUMNS} FROM disputes WHERE tenant_id = %s AND stripe_dispute_id = %s"  # noqa: S608

_OF_PAYMENT = f"""
SELECT {_COLUMNS} FROM disputes WHERE tenant_id = %s AND payment_id = %s ORDER BY opened_at, stripe_dispute_id
"""  # noqa: S608 - column names of ours, no input

_KEEP = """
INSERT INTO disputes (tenant_id, stripe_dispute_id, payment_id, amount_minor, status, reason, opened_at, updated_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, stripe_dispute_id) DO UPDATE
    SET amount_minor = excluded.amount_minor, status = excluded.status, reason = excluded.reason,
        updated_at = excluded.updated_at
"""

_STANDING = """
SELECT count(*) FROM disputes d
JOIN payments p ON p.tenant_id = d.tenant_id AND p.payment_id = d.payment_id
WHERE p.tenant_id = %s AND p.customer_id = %s AND d.status <> ALL(%s)
"""


_IS_OPEN = f"""
SELECT EXISTS (SELECT FROM disputes WHERE tenant_id = %s AND payment_id = %s AND {one_of("status", OPEN_DISPUTE)})
"""  # noqa: S608 - words of ours, no input


def find(connection: Connection, tenant_id: str, stripe_dispute_id: str) -> DisputeRow | None:
    """A dispute as it was last seen, or None."""
    row = connection.execute(_FIND, (tenant_id, stripe_dispute_id)).fetchone()
    return DisputeRow._make(cast("Any", row)) if row else None


def of_payment(connection: Connection, tenant_id: str, payment_id: UUID) -> list[DisputeRow]:
    """Every dispute of a payment, oldest first."""
    return [DisputeRow._make(cast("Any", row)) for row in connection.execute(_OF_PAYMENT, (tenant_id, payment_id))]


def is_open(connection: Connection, tenant_id: str, payment_id: UUID) -> bool:
    """Whether a bank has money of a payment that it may still give back."""
    row = connection.execute(_IS_OPEN, (tenant_id, payment_id)).fetchone()
    assert row is not None
    return cast("bool", row[0])


def keep(connection: Connection, dispute: DisputeRow) -> None:
    """Write a dispute as it is now. The caller holds the payment's lock, and knows that this is no older look."""
    connection.execute(_KEEP, dispute)


def standing(connection: Connection, tenant_id: str, customer_id: str, over: list[str]) -> int:
    """How many disputes of a customer's payments have a status that is none of these."""
    row = connection.execute(_STANDING, (tenant_id, customer_id, over)).fetchone()
    assert row is not None
    return cast("int", row[0])
