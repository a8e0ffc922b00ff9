"""What a payment needs next, decided under its lock; when it is to be confirmed, the attempt is written here."""

from datetime import datetime
from enum import Enum
from uuid import UUID

from billing.payments import COLLECTABLE, FREEZES, WAITING, PaymentState
from db import collecting
from db import payments as rows
from db.payments import AttemptRow, Move, PaymentRow
from db.session import Connection
from payments.gateway import confirm_parameters
from services.collecting import guards, payment_alerts
from services.collecting.declining import free_again_at


class Step(Enum):
    """What is to be done at Stripe."""

    NOTHING = "nothing"
    CREATE = "create"
    CONFIRM = "confirm"
    RECOVER = "recover"
    """Find out what became of an attempt; send it again if nothing did."""
    LOOK = "look"
    """The same, and send nothing."""
    CANCEL = "cancel"


Next = tuple[PaymentRow | None, AttemptRow | None, Step]


def next_step(connection: Connection, tenant_id: str, payment_id: UUID, now: datetime) -> Next:
    """Look at the payment under its lock.

    What is not due yet needs nothing: a second message for a payment that was declined meanwhile must not
    charge the card again.
    """
    payment = rows.lock(connection, tenant_id, payment_id)
    if payment is None or payment.due_at is None or payment.due_at > now:
        return payment, None, Step.NOTHING
    is_paused = collecting.switch(connection).paused_at is not None
    attempt = rows.open_attempt(connection, tenant_id, payment_id)
    if attempt is not None:
        is_still = is_paused or payment.is_wished_void or bool(FREEZES & _holds(connection, payment))
        return payment, attempt, Step.LOOK if is_still else Step.RECOVER
    if payment.is_wished_void and PaymentState(payment.state) in WAITING:
        return _void(connection, payment, now)
    if PaymentState(payment.state) not in COLLECTABLE or is_paused or _is_held(connection, payment):
        return payment, None, Step.NOTHING
    return _forward(connection, payment, now)


def _forward(connection: Connection, payment: PaymentRow, now: datetime) -> Next:
    """A payment that nothing holds back: without a card it waits, without an intent it needs one."""
    if move := _obstacle(connection, payment, now):
        rows.settle(connection, payment, move, now, source="sweep")
        if move.state is PaymentState.NEEDS_PAYMENT_METHOD:
            payment_alerts.tell(connection, payment, move, now)
        return payment._replace(state=move.state), None, Step.NOTHING
    if payment.stripe_payment_intent_id is None:
        return payment, None, Step.CREATE
    return _begin(connection, payment, now)


def _void(connection: Connection, payment: PaymentRow, now: datetime) -> Next:
    if payment.stripe_payment_intent_id is not None:
        return payment, None, Step.CANCEL
    move = Move(PaymentState.VOIDED, f"voided: {payment.void_reason}")
    rows.settle(connection, payment, move, now, source="sweep")
    return payment._replace(state=move.state), None, Step.NOTHING


def _obstacle(connection: Connection, payment: PaymentRow, now: datetime) -> Move | None:
    """What keeps a payment from being tried with the card there is."""
    card = payment.default_payment_method_id
    if payment.stripe_customer_id is None or card is None:
        return Move(PaymentState.NEEDS_PAYMENT_METHOD, "the customer has no card")
    if payment.card_held_at is not None:
        return Move(PaymentState.NEEDS_PAYMENT_METHOD, f"{card} is never to be tried again; another card is needed")
    if free_at := free_again_at(connection, payment.tenant_id, card, now):
        state = PaymentState.RETRY_SCHEDULED if payment.attempts_made else PaymentState.DUE
        return Move(state, f"{card} was declined too often lately; it rests", free_at)
    return None


def _is_held(connection: Connection, payment: PaymentRow) -> bool:
    reasons = _holds(connection, payment)
    return bool(reasons & FREEZES if payment.attempts_made else reasons)


def _holds(connection: Connection, payment: PaymentRow) -> set[str]:
    return set(collecting.holds(connection, payment.tenant_id, payment.customer_id))


def _begin(connection: Connection, payment: PaymentRow, now: datetime) -> Next:
    """Write the next attempt; the first one of a payment counts against the caps."""
    if payment.attempts_made == 0 and payment.approved_at is None:
        why = guards.above_a_cap(connection, payment, now)
        if why is not None:
            guards.await_approval(connection, payment, why, now)
            return payment._replace(state=PaymentState.AWAITING_APPROVAL), None, Step.NOTHING
    assert payment.default_payment_method_id is not None
    number = payment.attempts_made + 1
    begun = AttemptRow(
        number,
        "submitting",
        f"pay:{payment.payment_id}:confirm:{number}",
        confirm_parameters(payment.default_payment_method_id),
        payment.default_payment_method_id,
        payment.stripe_latest_charge_id,
        now,
    )
    rows.begin_attempt(connection, payment, begun)
    return payment, begun, Step.CONFIRM
