"""Money to give back: what was asked for, and what became of it. A refund's payment is its lock."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID, uuid5

from billing.payments import RefundState
from db.payments import PaymentRow
from db.session import Connection


class RefundRow(NamedTuple):
    """A refund. Whoever works it now has moved `due_at` on."""

    tenant_id: str
    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    reason: str
    idempotency_key: str
    state: str
    stripe_refund_id: str | None
    failure: str | None
    due_at: datetime | None
    created_at: datetime


class Outcome(NamedTuple):
    """What became of a refund; `due_at` is when it is looked at next."""

    state: RefundState
    stripe_refund_id: str | None
    failure: str | None
    due_at: datetime | None


_COLUMNS = (
    "tenant_id, refund_id, payment_id, amount_minor, reason, idempotency_key, state, stripe_refund_id, failure, "
    "due_at, created_at"
)

_ADD = """
INSERT INTO refunds (tenant_id, refund_id, payment_id, amount_minor, reason, idempotency_key, state, due_at,
    created_at, updated_at)
VALUES (%(tenant_id)s, %(refund_id)s, %(payment_id)s, %(amount_minor)s, %(reason)s, %(key)s, 'submitting',
    %(now)s, %(now)s, %(now)s)
ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
"""

_OWE_WHOLE = """
INSERT INTO refunds (tenant_id, refund_id, payment_id, amount_minor, reason, idempotency_key, state, due_at,
    created_at, updated_at)
SELECT p.tenant_id, %(refund_id)s, p.payment_id, p.amount_minor - p.refunded_minor - coalesce(r.asked, 0),
    %(reason)s, %(key)s, 'submitting', %(now)s, %(now)s, %(now)s
FROM payments p LEFT JOIN LATERAL (
    SELECT sum(amount_minor)::bigint AS asked FROM refunds
    WHERE tenant_id = p.tenant_id AND payment_id = p.payment_id AND state = 'submitting'
) r ON true
WHERE p.tenant_id = %(tenant_id)s AND p.payment_id = %(payment_id)s
    AND p.amount_minor > p.refunded_minor + coalesce(r.asked, 0)
ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
"""

_BY_KEY = f"SELECT {_COLUMNS} FROM refunds WHERE tenant_id = %s AND idempotency_key = %s"  # noqa: S608

_FIND = f"SELECT {_COLUMNS} FROM refunds WHERE tenant_id = %s AND refund_id = %s"  # noqa: S608

_OF_PAYMENT = f"""
SELECT {_COLUMNS} FROM refunds WHERE tenant_id = %s AND payment_id = %s ORDER BY created_at, refund_id
"""  # noqa: S608 - column names of ours, no input

_ASKED = """
SELECT coalesce(sum(amount_minor), 0)::bigint FROM refunds
WHERE tenant_id = %s AND payment_id = %s AND state = 'submitting'
"""

_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT tenant_id, refund_id FROM refunds WHERE due_at <= %(now)s
    ORDER BY due_at, tenant_id, refund_id
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE refunds r SET due_at = %(leased_until)s
FROM due WHERE r.tenant_id = due.tenant_id AND r.refund_id = due.refund_id
RETURNING r.tenant_id, r.refund_id
"""

# What has failed stays so; what has succeeded may still fail, weeks later.
_NOTE = """
UPDATE refunds SET state = %(state)s, stripe_refund_id = coalesce(%(stripe_refund_id)s, stripe_refund_id),
    failure = %(failure)s, due_at = %(due_at)s, updated_at = %(now)s
WHERE tenant_id = %(tenant_id)s AND refund_id = %(refund_id)s
    AND array_position(%(order)s::text[], state) < array_position(%(order)s::text[], %(state)s)
"""
_ORDER = [state.value for state in RefundState]

_WAIT = """
UPDATE refunds SET due_at = %s, failure = %s, updated_at = %s
WHERE tenant_id = %s AND refund_id = %s AND state IN ('submitting', 'pending')
"""


def refund_id(payment_id: UUID, idempotency_key: str) -> UUID:
    """The id that follows from the payment and the caller's key: asked again, even of a restored database, the same."""
    return uuid5(payment_id, f"refund\0{idempotency_key}")


def add(
    connection: Connection, payment: PaymentRow, amount_minor: int, reason: str, idempotency_key: str, now: datetime
) -> bool:
    """Write a refund to be made; whether its key is new. The caller holds the payment's lock."""
    said = {
        "tenant_id": payment.tenant_id,
        "refund_id": refund_id(payment.payment_id, idempotency_key),
        "payment_id": payment.payment_id,
        "amount_minor": amount_minor,
        "reason": reason,
        "key": idempotency_key,
        "now": now,
    }
    return connection.execute(_ADD, said).rowcount == 1


def owe_whole(connection: Connection, payment: PaymentRow, cause: str, reason: str, now: datetime) -> int:
    """Write that all that is left of a payment goes back, once for each cause; how many refunds are new: none or one.

    For a payment that was collected although it was to be voided (`void`), and one of which a bank has given back what
    is not ours to keep (`won`). The caller holds the payment's lock.
    """
    key = f"{cause}:{payment.payment_id}"
    said = {
        "tenant_id": payment.tenant_id,
        "refund_id": refund_id(payment.payment_id, key),
        "payment_id": payment.payment_id,
        "reason": reason,
        "key": key,
        "now": now,
    }
    return connection.execute(_OWE_WHOLE, said).rowcount


def by_key(connection: Connection, tenant_id: str, idempotency_key: str) -> RefundRow | None:
    """The refund that was asked for under a caller's key, or None."""
    row = connection.execute(_BY_KEY, (tenant_id, idempotency_key)).fetchone()
    return RefundRow._make(cast("Any", row)) if row else None


def find(connection: Connection, tenant_id: str, wanted_id: UUID) -> RefundRow | None:
    """A refund, or None. Takes no lock."""
    row = connection.execute(_FIND, (tenant_id, wanted_id)).fetchone()
    return RefundRow._make(cast("Any", row)) if row else None


def of_payment(connection: Connection, tenant_id: str, payment_id: UUID) -> Sequence[RefundRow]:
    """Every refund of a payment that was asked for here, oldest first."""
    return [RefundRow._make(cast("Any", row)) for row in connection.execute(_OF_PAYMENT, (tenant_id, payment_id))]


def asked_minor(connection: Connection, tenant_id: str, payment_id: UUID) -> int:
    """How much of a payment is to go back that Stripe is not known to have seen."""
    row = connection.execute(_ASKED, (tenant_id, payment_id)).fetchone()
    assert row is not None
    return cast("int", row[0])


def claim(connection: Connection, now: datetime, leased_until: datetime, limit: int) -> list[tuple[str, UUID]]:
    """Lease the refunds that are due, oldest first, skipping what another sweep holds; (tenant, refund)."""
    said = {"now": now, "leased_until": leased_until, "limit": limit}
    return cast("list[tuple[str, UUID]]", connection.execute(_CLAIM, said).fetchall())


def note(connection: Connection, tenant_id: str, wanted_id: UUID, outcome: Outcome, now: datetime) -> bool:
    """Write what became of a refund; whether it went forward by that. The caller holds the payment's lock."""
    said = {"tenant_id": tenant_id, "refund_id": wanted_id, "now": now, "order": _ORDER, **outcome._asdict()}
    return connection.execute(_NOTE, said).rowcount == 1


def wait(connection: Connection, refund: RefundRow, due_at: datetime, why: str | None, now: datetime) -> None:
    """Look at a refund that is not final again, then."""
    connection.execute(_WAIT, (due_at, why, now, refund.tenant_id, refund.refund_id))
