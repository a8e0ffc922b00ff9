"""One place that believes Stripe: an intent as it stands, and what that makes of our payment.

The answer to a confirm, a webhook and the reconciler all come here; whichever is first moves the payment, and the
others find it there. Nothing here calls Stripe.
"""

from dataclasses import asdict
from datetime import datetime, timedelta
from uuid import UUID

from billing.affordability import FAILED
from billing.errors import BrokenInvariant
from billing.payments import PAID, WAITING, AlertKind, AttemptState, PaymentKind, PaymentState
from billing.payments import payment_id as payment_id_of
from config import faults
from config.logging import logger
from db import owed as owed_rows
from db import payments as rows
from db.alerts import raise_alert
from db.owed import NewPayment
from db.payments import AttemptRow, Move, PaymentRow
from db.session import Connection, in_transaction
from payments.gateway import IntentSnapshot
from services.books import catalogue
from services.collecting import payment_alerts
from services.collecting.declining import declined
from services.collecting.paid import lock_with_wallets, settle_paid

log = logger(__name__)

LOOK_AGAIN_AFTER = timedelta(hours=1)
#: Where a payment goes that was declined.
UNPAID = FAILED | {PaymentState.RETRY_SCHEDULED, PaymentState.NEEDS_AUTHENTICATION}


def sync(
    connection: Connection,
    tenant_id: str,
    payment_id: UUID,
    intent: IntentSnapshot,
    now: datetime,
    *,
    source: str,
    answered_attempt: int | None = None,
) -> PaymentState | None:
    """Move a payment to where its intent is; its state after that. Locks wallets and payment.

    `answered_attempt`: the intent came as the answer to that attempt's own confirm, so a decline in it is that
    attempt's; otherwise only a charge that is not the one from before the attempt can be. An answer to an
    attempt that has its outcome already changes nothing.
    """
    payment = lock_with_wallets(connection, tenant_id, payment_id)
    if payment is None:
        return None
    check_identity(payment, intent)
    if payment.stripe_payment_intent_id not in {None, intent.stripe_payment_intent_id}:
        return _stray(connection, payment, intent, now)
    attempt = rows.open_attempt(connection, tenant_id, payment_id)
    state = _moved(connection, payment, attempt, intent, now, source=source, answered_attempt=answered_attempt)
    log.info(
        "payment synced",
        payment_id=str(payment_id),
        kind=payment.kind,
        tier=payment.tier,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        attempt=payment.attempts_made,
        source=source,
        state=state,
    )
    return state


def believe(
    tenant_id: str,
    payment_id: UUID,
    intent: IntentSnapshot,
    now: datetime,
    *,
    source: str,
    answered_attempt: int | None = None,
) -> PaymentState | None:
    """`sync` in a transaction of its own."""
    state = in_transaction(
        lambda connection: sync(
            connection, tenant_id, payment_id, intent, now, source=source, answered_attempt=answered_attempt
        )
    )
    faults.reached("collect.after_sync")
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


def _stray(connection: Connection, payment: PaymentRow, intent: IntentSnapshot, now: datetime) -> PaymentState:
    """A second intent of a payment moves nothing; if it has collected, a person must give it back."""
    if intent.status == "succeeded":
        stray, ours = intent.stripe_payment_intent_id, payment.stripe_payment_intent_id
        detail = (
            f"{stray} has collected payment {payment.payment_id}, whose PaymentIntent is {ours}: refund one of them"
        )
        customer = payment.customer_id
        raise_alert(connection, payment.tenant_id, AlertKind.COLLECTED_TWICE, stray, detail, now, customer_id=customer)
    return PaymentState(payment.state)


def _moved(
    connection: Connection,
    payment: PaymentRow,
    attempt: AttemptRow | None,
    intent: IntentSnapshot,
    now: datetime,
    *,
    source: str,
    answered_attempt: int | None,
) -> PaymentState:
    state = PaymentState(payment.state)
    if intent.status == "succeeded":
        return _collected(connection, payment, attempt, intent, now, source=source)
    if state in PAID:
        return state  # an older look at the intent; money that has moved stays
    if intent.status == "canceled":
        return _canceled(connection, payment, attempt, intent, now, source=source)
    if attempt is None and intent.latest_charge_id:
        rows.remember_charge(connection, payment, intent.latest_charge_id)
    if attempt is None or answered_attempt not in {None, attempt.attempt}:
        return state
    return _attempted(connection, payment, attempt, intent, now, source=source, is_answer=answered_attempt is not None)


def _collected(
    connection: Connection,
    payment: PaymentRow,
    attempt: AttemptRow | None,
    intent: IntentSnapshot,
    now: datetime,
    *,
    source: str,
) -> PaymentState:
    if attempt is not None:
        finish(connection, payment, attempt, AttemptState.SUCCEEDED, intent, now)
    if payment.stripe_payment_intent_id is None:
        # Stripe told us before our own commit did.
        intent_id, charge_id = intent.stripe_payment_intent_id, intent.latest_charge_id
        rows.set_intent(connection, payment.tenant_id, payment.payment_id, intent_id, charge_id, now)
    # A look at the intent that was overtaken knows less of what was given back than we do. That less is given back
    # than was, a refund that failed, is seen by `services.collecting.refunds` alone, which makes sure that nothing
    # overtook it.
    known = 0 if source == "refund" else payment.refunded_minor
    refunded_minor = max(known, intent.refunded_minor)
    why = f"the PaymentIntent succeeded ({intent.latest_charge_id})"
    return settle_paid(connection, payment, refunded_minor, now, source=source, why=why)


def _canceled(
    connection: Connection,
    payment: PaymentRow,
    attempt: AttemptRow | None,
    intent: IntentSnapshot,
    now: datetime,
    *,
    source: str,
) -> PaymentState:
    """A canceled intent can never succeed; unless we wished so, what was used is owed all the same."""
    if payment.state == PaymentState.VOIDED:
        return PaymentState.VOIDED
    if attempt is not None:
        finish(connection, payment, attempt, AttemptState.ABANDONED, intent, now)
    why = f"voided: {payment.void_reason}" if payment.is_wished_void else "its PaymentIntent was canceled at Stripe"
    rows.settle(connection, payment, Move(PaymentState.VOIDED, why), now, source=source)
    if not payment.is_wished_void and payment.kind != PaymentKind.TOP_UP:
        owe_again(connection, payment, now, "its PaymentIntent was canceled at Stripe; it is owed all the same")
    return PaymentState.VOIDED


def _attempted(
    connection: Connection,
    payment: PaymentRow,
    attempt: AttemptRow,
    intent: IntentSnapshot,
    now: datetime,
    *,
    source: str,
    is_answer: bool,
) -> PaymentState:
    """The intent after an attempt that was neither collected nor canceled."""
    match intent.status:
        case "processing":
            rows.await_outcome(connection, payment, attempt.attempt)
            move = Move(PaymentState.PROCESSING, "Stripe is still at it", now + LOOK_AGAIN_AFTER)
        case "requires_action":
            finish(connection, payment, attempt, AttemptState.DECLINED, intent, now)
            move = Move(PaymentState.NEEDS_AUTHENTICATION, "the customer is to confirm it with their bank")
        case "requires_payment_method" if intent.decline and (
            is_answer or intent.latest_charge_id != attempt.charge_before
        ):
            move, meaning = declined(connection, payment, attempt, intent.decline, now)
            finish(connection, payment, attempt, AttemptState.DECLINED, intent, now, meaning)
        case _:
            why = f"the PaymentIntent is {intent.status}, and nothing tells of this attempt"
            move = Move(PaymentState.UNKNOWN, why, now + LOOK_AGAIN_AFTER)
    if payment.is_wished_void and move.state in WAITING:
        move = move._replace(due_at=now)
    if move.state is PaymentState(payment.state) is PaymentState.PROCESSING and move.due_at:
        rows.look_again(connection, payment, move.due_at)
    else:
        rows.settle(connection, payment, move, now, source=source)
    if move.state in UNPAID:
        payment_alerts.tell(connection, payment, move, now)
    return move.state


def finish(
    connection: Connection,
    payment: PaymentRow,
    attempt: AttemptRow,
    state: AttemptState,
    intent: IntentSnapshot,
    now: datetime,
    meaning: str | None = None,
) -> None:
    """Write the outcome of an attempt."""
    rows.finish_attempt(
        connection,
        payment,
        attempt.attempt,
        state,
        charge_id=intent.latest_charge_id,
        decline=asdict(intent.decline) if intent.decline and state is AttemptState.DECLINED else None,
        decline_class=meaning,
        now=now,
    )


def owe_again(connection: Connection, payment: PaymentRow, now: datetime, why: str) -> UUID:
    """What a payment was for falls due once more, as the next generation; its id."""
    generation = payment.generation + 1
    kind = PaymentKind(payment.kind)
    natural = (payment.tenant_id, payment.customer_id, payment.period_start, kind, payment.tier)
    again = NewPayment(
        payment.tenant_id,
        payment_id_of(catalogue.installation(connection), *natural, generation, payment.reference),
        payment.customer_id,
        payment.period_start,
        payment.kind,
        payment.tier,
        generation,
        payment.amount_minor,
        payment.currency,
        payment.reference,
        payment.wallet_id,
        payment.credit_amount,
    )
    owed_rows.fall_due(connection, [again], now, source="sync", why=why)
    return again.payment_id
