"""Trying a payment again because somebody says so: at once, and outside its schedule."""

from datetime import datetime
from uuid import UUID

from billing.errors import PaymentNotFound, Rejected
from billing.payments import WAITS_FOR_CARD, PaymentState
from config.logging import logger
from db import payments as rows
from db.payments import Move, PaymentRow
from db.session import Connection, in_transaction

log = logger(__name__)


def retry(tenant_id: str, payment_id: UUID, idempotency_key: str, now: datetime) -> PaymentState:
    """Let a payment that waits be collected now, once per key; its state after that. The sweep takes it up.

    What was declined for good, or waits for a card, is tried with the card that there is. The limits of cards, caps
    and holds are kept. Raises `PaymentNotFound`, `Rejected` (it is under way, over, or awaits a person).
    """

    def work(connection: Connection) -> PaymentState:
        payment = rows.lock(connection, tenant_id, payment_id)
        if payment is None:
            raise PaymentNotFound(payment_id=str(payment_id))
        if rows.is_asked_for(connection, tenant_id, payment_id, idempotency_key):
            return PaymentState(payment.state)
        _check(payment)
        is_begun = payment.state != PaymentState.DUE
        state = PaymentState.RETRY_SCHEDULED if is_begun else PaymentState.DUE
        detail = {rows.KEY: idempotency_key}
        move = Move(state, "it was asked for to be tried again", now, detail=detail)
        rows.settle(connection, payment, move, now, source="person")
        return state

    state = in_transaction(work)
    log.info("payment is to be tried again", tenant_id=tenant_id, payment_id=str(payment_id), state=state)
    return state


def _check(payment: PaymentRow) -> None:
    """Raises `Rejected` for what there is nothing to try of."""
    state = PaymentState(payment.state)
    if payment.is_wished_void:
        raise Rejected(f"payment {payment.payment_id} is to be voided")
    if state is PaymentState.AWAITING_APPROVAL:
        raise Rejected(f"payment {payment.payment_id} is above a cap; approve it instead")
    if state is not PaymentState.DUE and state not in WAITS_FOR_CARD:
        raise Rejected(f"payment {payment.payment_id} is {state}; there is nothing to try again")
