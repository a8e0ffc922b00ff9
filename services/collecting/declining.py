"""A definite decline: what it means for this payment, for the card, and for what else the customer owes."""

from datetime import datetime, timedelta

from billing.dunning import Schedule
from billing.payments import HoldReason, PaymentState
from db import collecting
from db.payments import AttemptRow, Move, PaymentRow
from db.session import Connection
from payments.classify import CUSTOMER_CODES, DeclineClass, classify
from payments.gateway import Decline

#: Networks count what is declined per card and amount, and all tiers cost the same.
CARD_DECLINES_MAX = 7
CARD_WINDOW = timedelta(days=30)
IN_A_ROW = 2


def declined(
    connection: Connection, payment: PaymentRow, attempt: AttemptRow, decline: Decline, now: datetime
) -> tuple[Move, DeclineClass]:
    """Where the payment goes, and the class of the decline; holds the card and the customer where that is due.

    The caller holds the payment, and writes both down.
    """
    meaning = classify(decline)
    code = decline.decline_code or decline.code or "declined"
    declines = payment.declines + 1
    if meaning is DeclineClass.UNKNOWN and declines > 1:
        meaning = DeclineClass.HARD
    card, identity = attempt.payment_method_id, (payment.tenant_id, payment.customer_id)
    if meaning is DeclineClass.HARD:
        collecting.hold_card(connection, *identity, card, code, now)
    detail = {"class": meaning.value}
    if has_another_card(payment, card):
        why = f"{card} was declined ({code}); the customer has another card by now"
        return Move(PaymentState.RETRY_SCHEDULED, why, now, code, decline.message, detail), meaning
    if meaning is DeclineClass.HARD:
        collecting.hold(connection, *identity, HoldReason.HARD_DECLINE, f"{card}: {code}", now)
    else:
        _hold_after_two(connection, payment, now)
    state, due_at, why = _next(payment, meaning, code, declines, now)
    return Move(state, why, due_at, code, decline.message, detail), meaning


def has_another_card(payment: PaymentRow, card: str) -> bool:
    """Whether the customer pays with another card than this by now, one that may be tried."""
    return payment.default_payment_method_id not in {None, card} and payment.card_held_at is None


def free_again_at(connection: Connection, tenant_id: str, payment_method_id: str, now: datetime) -> datetime | None:
    """When a card may be tried again that was declined too often lately, or None if it may be now."""
    times = collecting.declines_of_card(connection, tenant_id, payment_method_id, now - CARD_WINDOW)
    return times[-CARD_DECLINES_MAX] + CARD_WINDOW if len(times) >= CARD_DECLINES_MAX else None


def _next(
    payment: PaymentRow, meaning: DeclineClass, code: str, declines: int, now: datetime
) -> tuple[PaymentState, datetime | None, str]:
    match meaning:
        case DeclineClass.CUSTOMER_NEEDED if code in CUSTOMER_CODES:
            return PaymentState.NEEDS_AUTHENTICATION, None, f"declined ({code}): the customer is needed"
        case DeclineClass.CUSTOMER_NEEDED:
            return PaymentState.NEEDS_PAYMENT_METHOD, None, f"declined ({code}): the card's data are to be confirmed"
        case DeclineClass.HARD:
            return PaymentState.NEEDS_PAYMENT_METHOD, None, f"declined for good ({code}): another card is needed"
    schedule = Schedule(tuple(payment.dunning_days), payment.dunning_hour)
    due_at = schedule.next_attempt_at(payment.first_attempt_at or now, declines, payment.time_zone, now)
    if due_at is None:
        return PaymentState.UNCOLLECTIBLE, None, f"declined ({code}) {declines} times: the schedule is used up"
    return PaymentState.RETRY_SCHEDULED, due_at, f"declined ({code}) for the {declines}. time: tried again later"


def _hold_after_two(connection: Connection, payment: PaymentRow, now: datetime) -> None:
    """Two payments declined in a row: what has not been tried yet waits until one comes in."""
    identity = (payment.tenant_id, payment.customer_id)
    others = collecting.others_declined_since_success(connection, *identity, payment.payment_id)
    if others + 1 >= IN_A_ROW:
        collecting.hold(connection, *identity, HoldReason.DECLINED_TWICE, "two payments were declined in a row", now)
