"""Payments and their attempts."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast
from uuid import UUID

from psycopg.types.json import Jsonb

from billing.payments import HARMLESS_DISPUTE, PAID, PaymentState
from db.schema.base import one_of
from db.session import Connection


class PaymentRow(NamedTuple):
    """A payment, with what collecting needs to know of its customer."""

    tenant_id: str
    payment_id: UUID
    customer_id: str
    period_start: datetime
    kind: str
    tier: int
    generation: int
    reference: str
    amount_minor: int
    currency: str
    state: str
    due_at: datetime | None
    stripe_payment_intent_id: str | None
    stripe_latest_charge_id: str | None
    attempts_made: int
    first_attempt_at: datetime | None
    approved_at: datetime | None
    void_wished_at: datetime | None
    void_reason: str | None
    refunded_minor: int
    wallet_id: int | None
    credit_amount: Decimal | None
    credit_given: Decimal
    created_at: datetime
    stripe_customer_id: str | None
    default_payment_method_id: str | None
    card_held_at: datetime | None
    time_zone: str
    dunning_days: list[int]
    dunning_hour: int
    day_payments_max: int | None
    day_minor_max: int | None
    declines: int
    """How many of its attempts were declined."""

    @property
    def is_wished_void(self) -> bool:
        return self.void_wished_at is not None


class AttemptRow(NamedTuple):
    """One try to collect a payment."""

    attempt: int
    state: str
    idempotency_key: str
    parameters: dict[str, Any]
    payment_method_id: str
    charge_before: str | None
    started_at: datetime


class Move(NamedTuple):
    """Where a payment goes, and why; `due_at` is when it is looked at next by itself."""

    state: PaymentState
    why: str
    due_at: datetime | None = None
    decline_code: str | None = None
    decline_message: str | None = None
    detail: Mapping[str, Any] | None = None


_LOCK = "SELECT FROM payments WHERE tenant_id = %s AND payment_id = %s FOR NO KEY UPDATE"

_PAYMENT = """
SELECT p.tenant_id, p.payment_id, p.customer_id, p.period_start, p.kind, p.tier, p.generation, p.reference,
    p.amount_minor, p.currency, p.state, p.due_at, p.stripe_payment_intent_id, p.stripe_latest_charge_id,
    p.attempts_made, p.first_attempt_at, p.approved_at, p.void_wished_at, p.void_reason, p.refunded_minor,
    p.wallet_id, p.credit_amount, p.credit_given, p.created_at,
    c.stripe_customer_id, c.default_payment_method_id,
    (SELECT m.held_at FROM payment_methods m
        WHERE m.tenant_id = c.tenant_id AND m.payment_method_id = c.default_payment_method_id),
    c.time_zone, l.dunning_days, l.dunning_hour, l.day_payments_max, l.day_minor_max,
    (SELECT count(*) FROM payment_attempts a
        WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.payment_id AND a.state = 'declined')
FROM payments p
JOIN customers c ON c.tenant_id = p.tenant_id AND c.customer_id = p.customer_id
JOIN plans l ON l.tenant_id = c.tenant_id AND l.plan_id = c.plan_id AND l.version = c.plan_version
WHERE p.tenant_id = %s AND p.payment_id = %s
"""

_OPEN_ATTEMPT = """
SELECT attempt, state, idempotency_key, parameters, payment_method_id, charge_before, started_at
FROM payment_attempts
WHERE tenant_id = %s AND payment_id = %s AND state IN ('submitting', 'processing')
"""

_ADD_ATTEMPT = """
INSERT INTO payment_attempts (tenant_id, payment_id, attempt, state, idempotency_key, parameters, payment_method_id,
    charge_before, started_at)
VALUES (%s, %s, %s, 'submitting', %s, %s, %s, %s, %s)
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
    last_decline_code = coalesce(%(decline_code)s, last_decline_code),
    last_decline_message = coalesce(%(decline_message)s, last_decline_message)
WHERE tenant_id = %(tenant_id)s AND payment_id = %(payment_id)s
"""

_SETTLE_PAID = """
UPDATE payments
SET state = %(state)s, due_at = NULL, leased_until = NULL, updated_at = %(now)s,
    succeeded_at = coalesce(succeeded_at, %(now)s), refunded_minor = %(refunded_minor)s,
    credit_given = %(credit_given)s
WHERE tenant_id = %(tenant_id)s AND payment_id = %(payment_id)s
"""

_DISPUTED = f"""
SELECT coalesce(sum(amount_minor), 0)::bigint FROM disputes
WHERE tenant_id = %s AND payment_id = %s AND NOT {one_of("status", HARMLESS_DISPUTE)}
"""  # noqa: S608 - words of ours, no input

_OPEN_AT_STRIPE = f"""
SELECT tenant_id, payment_id FROM payments
WHERE (tenant_id, payment_id) > (%s, %s) AND stripe_payment_intent_id IS NOT NULL
    AND NOT {one_of("state", (*PAID, PaymentState.VOIDED))}
ORDER BY tenant_id, payment_id LIMIT %s
"""  # noqa: S608 - words of ours, no input

_LOG = """
INSERT INTO payment_log (tenant_id, payment_id, at, source, from_state, to_state, attempt, why, detail)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

#: Under which somebody asked for a move, in the detail of its entry.
KEY = "idempotency_key"

_IS_ASKED_FOR = f"""
SELECT EXISTS (
    SELECT FROM payment_log
    WHERE tenant_id = %s AND payment_id = %s AND source = 'person' AND detail ->> '{KEY}' = %s
)
"""  # noqa: S608 - a word of ours, no input

_WISH_VOID = """
UPDATE payments SET void_wished_at = %(now)s, void_reason = %(reason)s, due_at = %(now)s, leased_until = NULL,
    updated_at = %(now)s
WHERE tenant_id = %(tenant_id)s AND payment_id = %(payment_id)s
"""


def lock(connection: Connection, tenant_id: str, payment_id: UUID) -> PaymentRow | None:
    """A payment, locked FOR NO KEY UPDATE, or None."""
    # Two statements: one that waited for the lock would see the tables beside the payment as they were before.
    connection.execute(_LOCK, (tenant_id, payment_id))
    row = connection.execute(_PAYMENT, (tenant_id, payment_id)).fetchone()
    return PaymentRow._make(cast("Any", row)) if row else None


def is_asked_for(connection: Connection, tenant_id: str, payment_id: UUID, idempotency_key: str) -> bool:
    """Whether somebody has moved this payment under this key."""
    row = connection.execute(_IS_ASKED_FOR, (tenant_id, payment_id, idempotency_key)).fetchone()
    assert row is not None
    return cast("bool", row[0])


def disputed_minor(connection: Connection, tenant_id: str, payment_id: UUID) -> int:
    """What banks have taken back of a payment: the disputes that are open or lost."""
    row = connection.execute(_DISPUTED, (tenant_id, payment_id)).fetchone()
    assert row is not None
    return cast("int", row[0])


def wallet_owner(connection: Connection, tenant_id: str, payment_id: UUID) -> str | None:
    """The customer whose wallets are to be locked before this payment, if it moves value at all."""
    statement = (
        "SELECT customer_id FROM payments WHERE tenant_id = %s AND payment_id = %s AND credit_amount IS NOT NULL"
    )
    row = connection.execute(statement, (tenant_id, payment_id)).fetchone()
    return cast("str", row[0]) if row else None


def find_by_id(connection: Connection, payment_id: UUID) -> str | None:
    """The tenant of a payment, or None; ids are unique over all tenants of an installation."""
    row = connection.execute("SELECT tenant_id FROM payments WHERE payment_id = %s", (payment_id,)).fetchone()
    return cast("str", row[0]) if row else None


def find_by_intent(connection: Connection, stripe_payment_intent_id: str) -> tuple[str, UUID] | None:
    """The (tenant, payment) of a PaymentIntent, or None."""
    statement = "SELECT tenant_id, payment_id FROM payments WHERE stripe_payment_intent_id = %s"
    return cast("tuple[str, UUID] | None", connection.execute(statement, (stripe_payment_intent_id,)).fetchone())


def open_at_stripe(connection: Connection, after: tuple[str, UUID] | None, limit: int) -> list[tuple[str, UUID]]:
    """A page of the payments that have an intent and are not final, after the last of the page before; in order."""
    tenant_id, payment_id = after or ("", UUID(int=0))
    rows = connection.execute(_OPEN_AT_STRIPE, (tenant_id, payment_id, limit))
    return cast("list[tuple[str, UUID]]", rows.fetchall())


def open_attempt(connection: Connection, tenant_id: str, payment_id: UUID) -> AttemptRow | None:
    """The attempt of a payment that has no outcome yet, if any; the partial unique index allows one."""
    row = connection.execute(_OPEN_ATTEMPT, (tenant_id, payment_id)).fetchone()
    return AttemptRow._make(cast("Any", row)) if row else None


def set_intent(
    connection: Connection, tenant_id: str, payment_id: UUID, intent_id: str, charge_id: str | None, now: datetime
) -> None:
    """Remember the PaymentIntent of a payment, and the charge that it has already; never replaces one."""
    connection.execute(
        "UPDATE payments SET stripe_payment_intent_id = %s, stripe_latest_charge_id = %s, updated_at = %s "
        "WHERE tenant_id = %s AND payment_id = %s AND stripe_payment_intent_id IS NULL",
        (intent_id, charge_id, now, tenant_id, payment_id),
    )


def remember_charge(connection: Connection, payment: PaymentRow, charge_id: str) -> None:
    """Note a charge that no attempt of ours has made: it is not the outcome of the next."""
    connection.execute(_LATEST_CHARGE, (charge_id, payment.tenant_id, payment.payment_id))


def look_again(connection: Connection, payment: PaymentRow, due_at: datetime) -> None:
    """Nothing has changed; look again then."""
    connection.execute(
        "UPDATE payments SET due_at = %s, leased_until = NULL WHERE tenant_id = %s AND payment_id = %s",
        (due_at, payment.tenant_id, payment.payment_id),
    )


def begin_attempt(connection: Connection, payment: PaymentRow, attempt: AttemptRow) -> None:
    """Write an attempt, with the exact parameters of its call, before the call is made."""
    identity = (payment.tenant_id, payment.payment_id)
    number, _, key, parameters, card, charge_before, now = attempt
    connection.execute(_ADD_ATTEMPT, (*identity, number, key, Jsonb(parameters), card, charge_before, now))
    connection.execute(
        _SUBMITTING, {"attempt": number, "now": now, "tenant_id": identity[0], "payment_id": identity[1]}
    )
    why = f"attempt {number} begins, with {card}"
    _log(connection, payment, "sweep", PaymentState.SUBMITTING, number, why, {"idempotency_key": key}, now)


def await_outcome(connection: Connection, payment: PaymentRow, attempt: int) -> None:
    """Stripe has taken the attempt and is still at it."""
    connection.execute(
        "UPDATE payment_attempts SET state = 'processing' WHERE tenant_id = %s AND payment_id = %s AND attempt = %s",
        (payment.tenant_id, payment.payment_id, attempt),
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


def settle(connection: Connection, payment: PaymentRow, move: Move, now: datetime, *, source: str) -> None:
    """Move a payment, give its lease back, and write down why. Postgres refuses to move it backwards."""
    values = {
        "state": move.state,
        "due_at": move.due_at,
        "now": now,
        "decline_code": move.decline_code,
        "decline_message": move.decline_message,
        "tenant_id": payment.tenant_id,
        "payment_id": payment.payment_id,
    }
    connection.execute(_SETTLE, values)
    _log(connection, payment, source, move.state, payment.attempts_made, move.why, move.detail, now)


def settle_paid(
    connection: Connection,
    payment: PaymentRow,
    move: Move,
    refunded_minor: int,
    credit_given: Decimal,
    now: datetime,
    *,
    source: str,
) -> None:
    """Move a payment that was collected, with what of it was given back and what the wallet has of it."""
    values = {
        "state": move.state,
        "now": now,
        "refunded_minor": refunded_minor,
        "credit_given": credit_given,
        "tenant_id": payment.tenant_id,
        "payment_id": payment.payment_id,
    }
    connection.execute(_SETTLE_PAID, values)
    _log(connection, payment, source, move.state, payment.attempts_made, move.why, move.detail, now)


def approve(connection: Connection, payment: PaymentRow, now: datetime) -> None:
    """A person lets it through above the caps."""
    connection.execute(
        "UPDATE payments SET approved_at = %s WHERE tenant_id = %s AND payment_id = %s",
        (now, payment.tenant_id, payment.payment_id),
    )


def wish_void(connection: Connection, payment: PaymentRow, reason: str, now: datetime, *, source: str) -> None:
    """Write that a payment is to be canceled as soon as it can be."""
    identity = {"tenant_id": payment.tenant_id, "payment_id": payment.payment_id}
    connection.execute(_WISH_VOID, identity | {"now": now, "reason": reason})
    state = PaymentState(payment.state)
    _log(connection, payment, source, state, payment.attempts_made, f"to be voided: {reason}", None, now)


def _log(
    connection: Connection,
    payment: PaymentRow,
    source: str,
    state: PaymentState,
    attempt: int,
    why: str,
    detail: Mapping[str, Any] | None,
    now: datetime,
) -> None:
    told = Jsonb(dict(detail)) if detail else None
    identity = (payment.tenant_id, payment.payment_id)
    connection.execute(_LOG, (*identity, now, source, payment.state, state, attempt, why, told))
