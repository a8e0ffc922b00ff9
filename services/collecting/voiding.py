"""Voiding: what is not to be collected any more."""

from datetime import datetime
from uuid import UUID

from billing.errors import PaymentNotFound, Rejected
from billing.payments import PAID, WAITING, PaymentState
from db import payments as rows
from db.payments import Move, PaymentRow
from db.session import Connection, in_transaction


def void(tenant_id: str, payment_id: UUID, reason: str, now: datetime, *, source: str = "person") -> PaymentState:
    """Collect a payment no more; its state after that. Asked again, nothing changes.

    While an attempt is open, or Stripe has an intent, it is a wish: the next look fulfils it, by canceling the
    intent or, should the money have moved by then, by giving it back. Raises `PaymentNotFound`, and `Rejected` for
    one that was paid before anybody asked.
    """
    return in_transaction(lambda connection: _void(connection, tenant_id, payment_id, reason, now, source))


def _void(
    connection: Connection, tenant_id: str, payment_id: UUID, reason: str, now: datetime, source: str
) -> PaymentState:
    payment = rows.lock(connection, tenant_id, payment_id)
    if payment is None:
        raise PaymentNotFound(tenant_id=tenant_id, payment_id=str(payment_id))
    if payment.state in PAID and not payment.is_wished_void:
        raise Rejected(f"payment {payment_id} is {payment.state}; refund it instead of voiding it")
    return void_locked(connection, payment, reason, now, source=source)


def void_locked(
    connection: Connection, payment: PaymentRow, reason: str, now: datetime, *, source: str
) -> PaymentState:
    """The same for a payment that is not paid, under its lock."""
    state = PaymentState(payment.state)
    if state is PaymentState.VOIDED or payment.is_wished_void:
        return state
    rows.wish_void(connection, payment, reason, now, source=source)
    if state not in WAITING or payment.stripe_payment_intent_id is not None:
        return state
    rows.settle(connection, payment, Move(PaymentState.VOIDED, f"voided: {reason}"), now, source=source)
    return PaymentState.VOIDED
