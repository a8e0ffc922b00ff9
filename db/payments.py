"""Payments and their attempts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from psycopg.types.json import Jsonb

from db.session import Connection


class NewPayment(NamedTuple):
    """A payment that falls due."""

    tenant_id: str
    payment_id: UUID
    customer_id: str
    period_start: datetime
    kind: str
    tier: int
    generation: int
    amount_minor: int
    currency: str


class PaymentRow(NamedTuple):
    """A payment, with what Stripe needs to know of its customer."""

    tenant_id: str
    payment_id: UUID
    customer_id: str
    period_start: datetime
    kind: str
    tier: int
    generation: int
    amount_minor: int
    currency: str
    state: str
    due_at: datetime | None
    stripe_payment_intent_id: str | None
    stripe_latest_charge_id: str | None
    attempts_made: int
    first_attempt_at: datetime | None
    created_at: datetime
    stripe_customer_id: str | None
    default_payment_method_id: str | None


class AttemptRow(NamedTuple):
    """One try to collect a payment."""

    attempt: int
    state: str
    idempotency_key: str
    parameters: dict[str, Any]
    charge_before: str | None
    started_at: datetime


_FALL_DUE = """
INSERT INTO payments (tenant_id, payment_id, customer_id, period_start, kind, tier, generation, amount_minor,
    currency, state, due_at, created_at, updated_at)
SELECT p.*, 'due', %(now)s, %(now)s, %(now)s
FROM unnest(%(tenant_id)s::text[], %(payment_id)s::uuid[], %(customer_id)s::text[], %(period_start)s::timestamptz[],
    %(kind)s::text[], %(tier)s::int[], %(generation)s::int[], %(amount_minor)s::bigint[], %(currency)s::text[])
    AS p(tenant_id, payment_id, customer_id, period_start, kind, tier, generation, amount_minor, currency)
ORDER BY p.tenant_id, p.payment_id
ON CONFLICT (tenant_id, customer_id, period_start, kind, tier, generation) DO NOTHING
"""

_CLAIM = """
UPDATE payments p
SET leased_until = %(leased_until)s
FROM (
    SELECT tenant_id, payment_id FROM payments
    WHERE due_at <= %(now)s AND (leased_until IS NULL OR leased_until <= %(now)s)
    ORDER BY due_at, tenant_id, payment_id
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
) AS due
WHERE p.tenant_id = due.tenant_id AND p.payment_id = due.payment_id
RETURNING p.tenant_id, p.payment_id
"""

_LOCK = """
SELECT p.tenant_id, p.payment_id, p.customer_id, p.period_start, p.kind, p.tier, p.generation, p.amount_minor,
    p.currency, p.state, p.due_at, p.stripe_payment_intent_id, p.stripe_latest_charge_id, p.attempts_made,
    p.first_attempt_at, p.created_at,
    c.stripe_customer_id, c.default_payment_method_id
FROM payments p JOIN customers c ON c.tenant_id = p.tenant_id AND c.customer_id = p.customer_id
WHERE p.tenant_id = %s AND p.payment_id = %s
FOR NO KEY UPDATE OF p
"""

_OPEN_ATTEMPT = """
SELECT attempt, state, idempotency_key, parameters, charge_before, started_at
FROM payment_attempts
WHERE tenant_id = %s AND payment_id = %s AND state IN ('submitting', 'processing')
"""

_ADD_ATTEMPT = """
INSERT INTO payment_attempts (tenant_id, payment_id, attempt, state, idempotency_key, parameters, charge_before,
    started_at)
VALUES (%s, %s, %s, 'submitting', %s, %s, %s, %s)
"""

_LATEST_CHARGE = """
UPDATE payments SET stripe_latest_charge_id = %s WHERE tenant_id = %s AND payment_id = %s
"""

_FINISH_ATTEMPT = """
UPDATE payment_attempts
SET state = %s, charge_id = %s, decline = %s, decline_class = %s, finished_at = %s
WHERE tenant_id = %s AND payment_id = %s AND attempt = %s
"""

_SUBMITTING = """
UPDATE payments
SET state = 'submitting', attempts_made = %(attempt)s, first_attempt_at = coalesce(first_attempt_at, %(now)s),
    due_at = %(now)s, updated_at = %(now)s
WHERE tenant_id = %(tenant_id)s AND payment_id = %(payment_id)s
"""

_SETTLE = """
UPDATE payments
SET state = %(state)s, due_at = %(due_at)s, leased_until = NULL, updated_at = %(now)s,
    succeeded_at = CASE WHEN %(state)s = 'succeeded' THEN %(now)s ELSE succeeded_at END,
    last_decline_code = coalesce(%(decline_code)s, last_decline_code),
    last_decline_message = coalesce(%(decline_message)s, last_decline_message)
WHERE tenant_id = %(tenant_id)s AND payment_id = %(payment_id)s
"""


def fall_due(connection: Connection, payments: Sequence[NewPayment], now: datetime) -> int:
    """Insert payments that are owed from now; how many are new. Guarded by the natural key."""
    columns: dict[str, Any] = {
        name: list(values) for name, values in zip(NewPayment._fields, zip(*payments, strict=True), strict=True)
    }
    return connection.execute(_FALL_DUE, columns | {"now": now}).rowcount


def claim(connection: Connection, now: datetime, leased_until: datetime, limit: int) -> list[tuple[str, UUID]]:
    """Lease what is due, oldest first, skipping what another sweep holds; (tenant, payment) of each."""
    rows = connection.execute(_CLAIM, {"now": now, "leased_until": leased_until, "limit": limit})
    return cast("list[tuple[str, UUID]]", rows.fetchall())


def lock(connection: Connection, tenant_id: str, payment_id: UUID) -> PaymentRow | None:
    """A payment, locked FOR NO KEY UPDATE, or None."""
    row = connection.execute(_LOCK, (tenant_id, payment_id)).fetchone()
    return PaymentRow._make(cast("Any", row)) if row else None


def open_attempt(connection: Connection, tenant_id: str, payment_id: UUID) -> AttemptRow | None:
    """The attempt of a payment that has no outcome yet, if any; the partial unique index allows one."""
    row = connection.execute(_OPEN_ATTEMPT, (tenant_id, payment_id)).fetchone()
    return AttemptRow._make(cast("Any", row)) if row else None


def set_intent(connection: Connection, tenant_id: str, payment_id: UUID, intent_id: str, now: datetime) -> None:
    """Remember the PaymentIntent of a payment; never replaces one."""
    connection.execute(
        "UPDATE payments SET stripe_payment_intent_id = %s, updated_at = %s "
        "WHERE tenant_id = %s AND payment_id = %s AND stripe_payment_intent_id IS NULL",
        (intent_id, now, tenant_id, payment_id),
    )


def begin_attempt(
    connection: Connection,
    payment: PaymentRow,
    attempt: int,
    idempotency_key: str,
    parameters: dict[str, Any],
    charge_before: str | None,
    now: datetime,
) -> None:
    """Write an attempt, with the exact parameters of its call, before the call is made."""
    identity = (payment.tenant_id, payment.payment_id)
    values = (*identity, attempt, idempotency_key, Jsonb(parameters), charge_before, now)
    connection.execute(_ADD_ATTEMPT, values)
    connection.execute(
        _SUBMITTING,
        {"attempt": attempt, "now": now, "tenant_id": payment.tenant_id, "payment_id": payment.payment_id},
    )


def finish_attempt(
    connection: Connection,
    payment: PaymentRow,
    attempt: int,
    state: str,
    *,
    charge_id: str | None,
    decline: dict[str, Any] | None,
    decline_class: str | None,
    now: datetime,
) -> None:
    """Write the outcome of an attempt, and the charge it left on the intent."""
    if charge_id is not None:
        connection.execute(_LATEST_CHARGE, (charge_id, payment.tenant_id, payment.payment_id))
    outcome = (state, charge_id, Jsonb(decline) if decline else None, decline_class, now)
    connection.execute(_FINISH_ATTEMPT, (*outcome, payment.tenant_id, payment.payment_id, attempt))


def settle(
    connection: Connection,
    payment: PaymentRow,
    state: str,
    *,
    due_at: datetime | None,
    now: datetime,
    decline_code: str | None = None,
    decline_message: str | None = None,
) -> None:
    """Move a payment to a state, and give its lease back."""
    connection.execute(
        _SETTLE,
        {
            "state": state,
            "due_at": due_at,
            "now": now,
            "decline_code": decline_code,
            "decline_message": decline_message,
            "tenant_id": payment.tenant_id,
            "payment_id": payment.payment_id,
        },
    )
