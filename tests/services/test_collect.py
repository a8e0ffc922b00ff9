"""Money out: Stripe's real library against the double, each payment once and each decline by its meaning."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from celery import Celery

from billing.dunning import Schedule
from billing.payments import PaymentState
from config.settings import settings
from db import collecting
from sandbox.processes import await_condition
from services.collecting.collect import claim_due
from tests.conftest import WorkerStarter
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows
from tests.services.collecting import (
    DAY,
    DECLINES,
    FEE,
    GOOD,
    at_stripe,
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


def test_a_good_card_is_charged_once() -> None:
    """However often the payment is handed out."""
    (due,) = owing()

    assert [taken(due) for _ in range(3)] == [PaymentState.SUCCEEDED] * 3

    assert captured() == {due: (FEE, 1)}
    assert payment(due) == ("succeeded", 1, None)
    assert attempts(due) == [(1, "succeeded", None)]
    assert payment(due, "succeeded_at IS NOT NULL, leased_until") == (True, None)


def test_every_tier_is_a_payment_of_its_own() -> None:
    due = owing(tiers=3)

    assert [taken(payment_id) for payment_id in due] == [PaymentState.SUCCEEDED] * 3

    assert captured() == dict.fromkeys(due, (FEE, 1))


def test_a_decline_is_tried_again_the_next_day() -> None:
    (due,) = owing(DECLINES)
    now = datetime.now(UTC)

    assert taken(due, now) is PaymentState.RETRY_SCHEDULED

    assert captured() == {}
    tomorrow = Schedule().next_attempt_at(now, 1, "America/Sao_Paulo", now)
    assert payment(due) == ("retry_scheduled", 1, tomorrow)
    assert attempts(due) == [(1, "declined", "soft")]
    assert payment(due, "last_decline_code, last_decline_message") == ("generic_decline", "Your card was declined.")


def test_a_second_message_for_a_declined_payment_does_not_try_the_card_again() -> None:
    """The queue may deliver twice, and a lease may run out while a message waits: the schedule stands."""
    (due,) = owing(DECLINES)
    now = datetime.now(UTC)
    taken(due, now)
    before = payment(due)

    assert taken(due, now + timedelta(minutes=5)) is PaymentState.RETRY_SCHEDULED

    assert charges() == 1
    assert payment(due) == before


def test_a_card_that_goes_on_declining_is_tried_five_times_in_a_week() -> None:
    """At once, after one, three, five and seven days, each a new attempt; then the payment is given up."""
    (due,) = owing(DECLINES)
    began = datetime.now(UTC)

    states = [taken(due, began), *(taken(due, due_again(due)) for _ in range(4))]
    states.append(taken(due, began + 30 * DAY))

    assert states == [PaymentState.RETRY_SCHEDULED] * 4 + [PaymentState.UNCOLLECTIBLE] * 2
    assert charges() == 5
    assert attempts(due) == [(number, "declined", "soft") for number in (1, 2, 3, 4, 5)]
    assert len(rows("SELECT DISTINCT idempotency_key FROM payment_attempts")) == 5


def test_a_new_card_pays_at_the_next_attempt() -> None:
    (due,) = owing(DECLINES)
    taken(due)
    pays_with(GOOD)

    assert taken(due, due_again(due)) is PaymentState.SUCCEEDED

    assert captured() == {due: (FEE, 1)}
    assert attempts(due) == [(1, "declined", "soft"), (2, "succeeded", None)]


@pytest.mark.parametrize(
    ("card", "state", "meaning", "is_scheduled"),
    [
        ("pm_card_chargeDeclinedInsufficientFunds", PaymentState.RETRY_SCHEDULED, "soft", True),
        ("pm_card_chargeDeclinedLostCard", PaymentState.NEEDS_PAYMENT_METHOD, "hard", False),
        ("pm_card_authenticationRequired", PaymentState.NEEDS_AUTHENTICATION, "customer_needed", False),
    ],
)
def test_what_a_decline_means_decides_what_follows(
    card: str, state: PaymentState, meaning: str, is_scheduled: bool
) -> None:
    (due,) = owing(card)

    assert taken(due) is state

    assert captured() == {}
    assert attempts(due) == [(1, "declined", meaning)]
    assert payment(due, "due_at IS NOT NULL") == (is_scheduled,)


def test_without_a_card_nobody_is_called() -> None:
    (due,) = owing(None)

    assert taken(due) is PaymentState.NEEDS_PAYMENT_METHOD

    assert payment(due) == ("needs_payment_method", 0, None)
    assert at_stripe("/_double/requests")["total"] == 0


def test_a_payment_that_is_not_there_is_nothing() -> None:
    assert taken(UUID(int=1)) is None


def test_a_sweep_hands_out_as_much_as_the_pace_allows_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    due = owing(tiers=7)
    for number, payment_id in enumerate(due):
        one(
            "UPDATE payments SET due_at = due_at - %s WHERE payment_id = %s RETURNING 1",
            timedelta(minutes=number),
            payment_id,
        )
    monkeypatch.setenv("CENTAVO_PAYMENTS_PER_SECOND", "2")
    monkeypatch.setenv("CENTAVO_SWEEP_SECONDS", "1.5")
    settings.cache_clear()
    now = datetime.now(UTC)

    sweeps = [{payment_id for _, payment_id in claim_due(now)} for _ in range(4)]

    assert sweeps == [set(due[4:]), set(due[1:4]), set(due[:1]), set()]


def test_two_sweeps_at_once_hand_out_different_payments() -> None:
    """The second does not wait for the first, and takes nothing that the first has."""
    due = owing(tiers=4)
    now = datetime.now(UTC)

    with psycopg.connect(settings().required("database_url")) as other:
        first = collecting.claim(other, now, now + timedelta(minutes=2), 3, is_paused=False)
        second = claim_due(now)

    assert len(first) == 3
    assert {payment_id for _, payment_id in first + second} == set(due)
    assert len(second) == 1
    assert claim_due(now) == []


def test_what_is_not_due_is_not_handed_out() -> None:
    due = owing(DECLINES, tiers=2)
    now = datetime.now(UTC)
    taken(due[0], now)

    again = due_again(due[0])
    assert claim_due(now) == [(TENANT, due[1])]
    assert claim_due(again - timedelta(seconds=1)) == [(TENANT, due[1])]
    assert set(claim_due(again + DAY)) == {(TENANT, due[0]), (TENANT, due[1])}


@pytest.mark.faults
def test_usage_that_crosses_a_tier_ends_in_captured_money(start_a_worker: WorkerStarter) -> None:
    """End to end: an envelope in the broker, a real worker, a sweep, and the card is charged."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", plan="tiers-8m", currencies=("BRL",))
    pays_with(GOOD)
    start_a_worker()
    envelope = an_envelope(an_event("ana", [tokens(16_000_001)])).decode()

    with Celery(broker=settings().required("broker_url"), set_as_current=False) as app:
        app.send_task("centavo.record_usage", args=(envelope,), queue="usage")
        await_condition(lambda: rows("SELECT 1 FROM payments") != [], 30, "the payments to fall due")
        app.send_task("centavo.sweep_payments", queue="ticks")
        app.send_task("centavo.sweep_payments", queue="ticks")
        paid = "SELECT count(*) FROM payments WHERE state = 'succeeded'"
        await_condition(lambda: one(paid) == (2,), 30, "both payments to succeed")

    due = [payment_id for (payment_id,) in rows("SELECT payment_id FROM payments")]
    assert captured() == dict.fromkeys(due, (FEE, 1))
    assert rows("SELECT attempts_made FROM payments") == [(1,), (1,)]
