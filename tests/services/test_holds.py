"""After a decline: what it means for the card, and for what else the customer owes."""

from datetime import UTC, datetime, timedelta

import pytest

from billing.payments import PaymentState
from config.settings import settings
from sandbox.stripe_double.control import SUCCEED, DoubleControl, decline
from services.collecting.collect import claim_due
from services.collecting.declining import CARD_DECLINES_MAX
from tests.factories import TENANT
from tests.looking import one, rows
from tests.services.collecting import (
    DAY,
    DECLINES,
    FEE,
    GOOD,
    attempts,
    captured,
    charges,
    due_again,
    owing,
    payment,
    pays_with,
    taken,
)

pytestmark = pytest.mark.usefixtures("billing_database")

LOST = "pm_card_chargeDeclinedLostCard"


def holds() -> list[str]:
    return [reason for (reason,) in rows("SELECT reason FROM customer_holds ORDER BY reason")]


def a_new_card(card: str = GOOD) -> int:
    """Attach it; how many payments wait no longer."""
    waiting = "SELECT count(*) FROM payments WHERE due_at IS NULL OR due_at > now()"
    before = one(waiting)[0]
    pays_with(card)
    return int(before - one(waiting)[0])


def test_a_card_that_is_lost_is_never_tried_again() -> None:
    """Not for this payment, and not for the customer's others."""
    first, second = owing(LOST, tiers=2)

    assert taken(first) is PaymentState.NEEDS_PAYMENT_METHOD

    assert holds() == ["hard_decline"]
    assert claim_due(datetime.now(UTC)) == []
    assert taken(second) is PaymentState.DUE
    assert charges() == 1


def test_a_new_card_reopens_at_once() -> None:
    first, second = owing(LOST, tiers=2)
    taken(first)

    assert a_new_card() == 1

    assert holds() == []
    assert [taken(first), taken(second)] == [PaymentState.SUCCEEDED] * 2
    assert captured() == {first: (FEE, 1), second: (FEE, 1)}
    assert attempts(first) == [(1, "declined", "hard"), (2, "succeeded", None)]


def test_after_two_payments_declined_in_a_row_the_others_wait() -> None:
    """Those that were begun go on by their schedule; when one comes in, the others may be tried."""
    first, second, third = owing(GOOD, tiers=3)
    (card,) = one("SELECT default_payment_method_id FROM customers")
    control = DoubleControl(settings().stripe_api_base or "")
    control.script_card(card, [decline("insufficient_funds")] * 2, then=SUCCEED)

    taken(first)
    assert holds() == []
    taken(second)

    assert holds() == ["declined_twice"]
    assert claim_due(datetime.now(UTC)) == []
    again = max(due_again(first), due_again(second))  # late in the evening they are not tried at the same moment
    assert {payment_id for _, payment_id in claim_due(again)} == {first, second}
    assert taken(first, again) is PaymentState.SUCCEEDED
    assert holds() == []
    assert taken(third, again) is PaymentState.SUCCEEDED


def test_a_payment_that_is_declined_twice_holds_nothing_else() -> None:
    first, second = owing(DECLINES, tiers=2)
    taken(first)
    taken(first, due_again(first))

    assert holds() == []
    assert claim_due(datetime.now(UTC)) == [(TENANT, second)]


def test_a_card_that_was_declined_too_often_rests_for_thirty_days() -> None:
    """Whatever it was to pay: networks count per card."""
    first, second = owing(DECLINES, tiers=2)
    while payment(first, "due_at") != (None,):
        taken(first, due_again(first))
    declined_at = [at for (at,) in rows("SELECT finished_at FROM payment_attempts ORDER BY finished_at")]
    now = declined_at[-1] + timedelta(minutes=1)
    for number in range(CARD_DECLINES_MAX - len(declined_at)):
        taken(second, now if number == 0 else due_again(second))

    late = due_again(second)
    assert charges() == CARD_DECLINES_MAX
    assert taken(second, late) is PaymentState.RETRY_SCHEDULED
    assert charges() == CARD_DECLINES_MAX
    assert due_again(second) == declined_at[0] + 30 * DAY
    assert payment(second, "attempts_made") == (CARD_DECLINES_MAX - len(declined_at),)


def test_a_payment_that_was_given_up_is_tried_with_a_new_card() -> None:
    (due,) = owing(DECLINES)
    while payment(due, "due_at") != (None,):
        taken(due, due_again(due))
    assert payment(due, "state") == ("uncollectible",)

    assert a_new_card() == 1

    assert taken(due) is PaymentState.SUCCEEDED


def test_what_a_person_holds_stays_held_with_a_new_card() -> None:
    owing()
    one("INSERT INTO customer_holds SELECT tenant_id, customer_id, 'by_hand', now(), 'x' FROM customers RETURNING 1")

    a_new_card()

    assert holds() == ["by_hand"]
    assert claim_due(datetime.now(UTC)) == []


def test_each_move_is_written_down_with_its_reason() -> None:
    (due,) = owing(DECLINES)
    taken(due)

    moves = rows("SELECT source, from_state, to_state, attempt, why FROM payment_log ORDER BY entry_id")
    card = one("SELECT payment_method_id FROM payment_attempts")[0]
    assert moves == [
        ("usage", None, "due", 0, "usage has begun this tier"),
        ("sweep", "due", "submitting", 1, f"attempt 1 begins, with {card}"),
        (
            "answer",
            "submitting",
            "retry_scheduled",
            1,
            "declined (generic_decline) for the 1. time: tried again later",
        ),
    ]
    (detail,) = one("SELECT detail FROM payment_log WHERE source = 'usage'")
    assert (detail["tokens_before"], detail["tokens_after"]) == (0, 8_000_001)
