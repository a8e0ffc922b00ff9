"""One place that believes Stripe: an intent as it stands, and what that makes of our payment."""

from dataclasses import asdict
from datetime import datetime, timedelta
from uuid import UUID

from billing.dunning import next_attempt_at
from billing.errors import BrokenInvariant
from billing.payments import COLLECTABLE, AttemptState, PaymentKind, PaymentState
from billing.payments import payment_id as payment_id_of
from config.logging import logger
from db import payments as rows
from db.payments import AttemptRow, PaymentRow
from db.session import Connection
from payments.classify import DeclineClass, classify
from payments.gateway import Decline, IntentSnapshot
from services import catalogue

log = logger(__name__)

LOOK_AGAIN_AFTER = timedelta(hours=1)


def sync(
    connection: Connection,
    tenant_id: str,
    payment_id: UUID,
    intent: IntentSnapshot,
    now: datetime,
    *,
    answered_attempt: int | None = None,
) -> PaymentState | None:
    """Move a payment to where its intent is; its state after that. Locks the payment.

    `answered_attempt`: the intent came as the answer to that attempt's own confirm, so a decline in it is that
    attempt's; otherwise only a charge that is not the one from before the attempt can be. An answer to an
    attempt that has its outcome already changes nothing.
    """
    payment = rows.lock(connection, tenant_id, payment_id)
    if payment is None:
        return None
    check_identity(payment, intent)
    attempt = rows.open_attempt(connection, tenant_id, payment_id)
    if attempt is None or payment.state not in COLLECTABLE or answered_attempt not in (None, attempt.attempt):
        return PaymentState(payment.state)
    state = _apply(connection, payment, attempt, intent, now, is_answer=answered_attempt is not None)
    log.info(
        "payment synced",
        payment_id=str(payment_id),
        kind=payment.kind,
        tier=payment.tier,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        attempt=attempt.attempt,
        state=state,
    )
    return state


def check_identity(payment: PaymentRow, intent: IntentSnapshot) -> None:
    """Raises `BrokenInvariant` unless the intent names this payment and asks for its amount."""
    ours = (payment.payment_id, payment.amount_minor, payment.currency)
    theirs = (intent.payment_id, intent.amount_minor, intent.currency.upper())
    if ours != theirs:
        raise BrokenInvariant(
            "this PaymentIntent is not this payment's",
            ours=str(ours),
            theirs=str(theirs),
            intent=intent.stripe_payment_intent_id,
        )


def _apply(
    connection: Connection,
    payment: PaymentRow,
    attempt: AttemptRow,
    intent: IntentSnapshot,
    now: datetime,
    *,
    is_answer: bool,
) -> PaymentState:
    match intent.status:
        case "succeeded":
            _finish(connection, payment, attempt, AttemptState.SUCCEEDED, intent, now)
            return _settle(connection, payment, PaymentState.SUCCEEDED, None, now)
        case "processing":
            return _settle(connection, payment, PaymentState.PROCESSING, now + LOOK_AGAIN_AFTER, now)
        case "requires_action":
            _finish(connection, payment, attempt, AttemptState.DECLINED, intent, now)
            return _settle(connection, payment, PaymentState.NEEDS_AUTHENTICATION, None, now)
        case "canceled":
            _finish(connection, payment, attempt, AttemptState.ABANDONED, intent, now)
            _owe_again(connection, payment, now)
            return _settle(connection, payment, PaymentState.VOIDED, None, now)
        case "requires_payment_method" if intent.decline and (
            is_answer or intent.latest_charge_id != attempt.charge_before
        ):
            return _decline(connection, payment, attempt, intent, intent.decline, now)
        case _:
            return _settle(connection, payment, PaymentState.UNKNOWN, now + LOOK_AGAIN_AFTER, now)


def _owe_again(connection: Connection, payment: PaymentRow, now: datetime) -> None:
    """A canceled intent can never succeed; what it was for is owed all the same, as the next generation."""
    generation = payment.generation + 1
    natural = (payment.tenant_id, payment.customer_id, payment.period_start, PaymentKind(payment.kind), payment.tier)
    again = rows.NewPayment(
        payment.tenant_id,
        payment_id_of(catalogue.installation(connection), *natural, generation),
        payment.customer_id,
        payment.period_start,
        payment.kind,
        payment.tier,
        generation,
        payment.amount_minor,
        payment.currency,
    )
    rows.fall_due(connection, [again], now)


def _decline(
    connection: Connection,
    payment: PaymentRow,
    attempt: AttemptRow,
    intent: IntentSnapshot,
    decline: Decline,
    now: datetime,
) -> PaymentState:
    """A definite decline: what it means, and when the next attempt is made."""
    meaning = classify(decline)
    _finish(connection, payment, attempt, AttemptState.DECLINED, intent, now, meaning)
    state, due_at = after_decline(meaning, payment.first_attempt_at or now, attempt.attempt)
    code = decline.decline_code or decline.code
    return _settle(connection, payment, state, due_at, now, code=code, message=decline.message)


def after_decline(
    meaning: DeclineClass, first_attempt_at: datetime, attempts_made: int
) -> tuple[PaymentState, datetime | None]:
    """Where a payment goes after a decline, and when it is due again."""
    match meaning:
        case DeclineClass.CUSTOMER_NEEDED:
            return PaymentState.NEEDS_AUTHENTICATION, None
        case DeclineClass.HARD:
            return PaymentState.NEEDS_PAYMENT_METHOD, None
        case DeclineClass.UNKNOWN if attempts_made > 1:
            return PaymentState.NEEDS_PAYMENT_METHOD, None
        case _:
            due_at = next_attempt_at(first_attempt_at, attempts_made)
            return (PaymentState.RETRY_SCHEDULED, due_at) if due_at else (PaymentState.UNCOLLECTIBLE, None)


def _finish(
    connection: Connection,
    payment: PaymentRow,
    attempt: AttemptRow,
    state: AttemptState,
    intent: IntentSnapshot,
    now: datetime,
    meaning: DeclineClass | None = None,
) -> None:
    rows.finish_attempt(
        connection,
        payment,
        attempt.attempt,
        state,
        charge_id=intent.latest_charge_id,
        decline=asdict(intent.decline) if intent.decline else None,
        decline_class=meaning,
        now=now,
    )


def _settle(
    connection: Connection,
    payment: PaymentRow,
    state: PaymentState,
    due_at: datetime | None,
    now: datetime,
    *,
    code: str | None = None,
    message: str | None = None,
) -> PaymentState:
    rows.settle(connection, payment, state, due_at=due_at, now=now, decline_code=code, decline_message=message)
    return state
