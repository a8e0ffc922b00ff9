"""What comes beside collecting: refunds, disputes, setups, cards, and events that nobody took."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import stripe.params

from payments.gateway import (
    EVENT_TYPES,
    CardSnapshot,
    DisputeSnapshot,
    GatewayKeyReused,
    GatewayRejected,
    IntentRequest,
    PaymentGateway,
    RefundSnapshot,
    refund_parameters,
    setup_parameters,
)
from sandbox.stripe_double.control import DoubleControl
from sandbox.stripe_double.wishes import Delivery

IntentRequests = Callable[..., IntentRequest]
Look = Callable[[str], Any]


@pytest.fixture
def control(url: str) -> DoubleControl:
    return DoubleControl(url)


@pytest.fixture
def paid(gateway: PaymentGateway, requested: IntentRequests) -> str:
    """An intent of 400.00 BRL that has collected."""
    intent_id = gateway.create_intent(requested(), "create").stripe_payment_intent_id
    assert gateway.confirm_intent(intent_id, "pm_card_visa", "confirm").status == "succeeded"
    return intent_id


def test_money_goes_back_once_for_one_key(gateway: PaymentGateway, paid: str) -> None:
    refund_id = uuid4()
    metadata = {"refund_id": str(refund_id)}

    first, again = (gateway.create_refund(paid, 1_000, metadata, "refund") for _ in range(2))

    assert first == again == RefundSnapshot(first.stripe_refund_id, "succeeded", 1_000, None, refund_id)
    assert gateway.find_refunds(paid) == [first]
    intent = gateway.retrieve_intent(paid)
    assert (intent.status, intent.refunded_minor, intent.is_disputed) == ("succeeded", 1_000, False)


def test_a_refund_made_by_hand_is_found_and_is_none_of_ours(gateway: PaymentGateway, paid: str) -> None:
    ours = gateway.create_refund(paid, 1_000, {"refund_id": str(uuid4())}, "ours")
    by_hand = gateway.create_refund(paid, 2_000, {"refund_id": "a person's"}, "by hand")

    assert by_hand.refund_id is None
    assert {one.stripe_refund_id for one in gateway.find_refunds(paid)} == {
        ours.stripe_refund_id,
        by_hand.stripe_refund_id,
    }
    assert gateway.retrieve_intent(paid).refunded_minor == 3_000


def test_more_than_is_left_is_not_given_back(gateway: PaymentGateway, paid: str) -> None:
    gateway.create_refund(paid, 39_000, {}, "first")

    with pytest.raises(GatewayRejected):
        gateway.create_refund(paid, 1_001, {}, "second")
    with pytest.raises(GatewayKeyReused):
        gateway.create_refund(paid, 1_000, {}, "first")

    assert gateway.retrieve_intent(paid).refunded_minor == 39_000


def test_a_dispute_is_seen_on_its_intent(gateway: PaymentGateway, paid: str, control: DoubleControl) -> None:
    dispute_id = control.open_dispute(paid, reason="fraudulent")

    dispute = gateway.retrieve_dispute(dispute_id)

    assert dispute == DisputeSnapshot(dispute_id, "needs_response", 40_000, "fraudulent", paid, dispute.opened_at)
    assert abs(dispute.opened_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert gateway.find_disputes(paid) == [dispute]
    assert gateway.retrieve_intent(paid).is_disputed


def test_a_setup_is_for_cards_while_the_customer_is_away(gateway: PaymentGateway, customer: str, look: Look) -> None:
    first, again = (gateway.create_setup_intent(customer, {"customer_id": "ana"}, "setup") for _ in range(2))

    assert first == again == gateway.retrieve_setup_intent(first.setup_intent_id)
    assert (first.status, first.payment_method_id, first.stripe_customer_id) == (
        "requires_payment_method",
        None,
        customer,
    )
    shown = look(f"/v1/setup_intents/{first.setup_intent_id}")
    assert (shown["usage"], shown["payment_method_types"], shown["metadata"]) == (
        "off_session",
        ["card"],
        {"customer_id": "ana"},
    )


def test_a_card_is_seen_without_its_number_and_goes_for_good(gateway: PaymentGateway, customer: str) -> None:
    card_id = gateway.attach_payment_method(customer, "pm_card_visa")

    card = gateway.retrieve_payment_method(card_id)
    gone = gateway.detach_payment_method(card_id)

    assert card == CardSnapshot(card_id, customer, "visa", "4242", card.exp_month, card.exp_year)
    assert gone == CardSnapshot(card_id, None, "visa", "4242", card.exp_month, card.exp_year)
    assert gateway.detach_payment_method(card_id) == gone


def test_events_that_nobody_took_are_found_over_every_page(
    gateway: PaymentGateway, customer: str, control: DoubleControl
) -> None:
    """Of the types that are followed alone: making a customer is none."""
    control.set_webhooks("http://127.0.0.1:9/nowhere", "whsec_test", Delivery(when="never"))
    cards = [gateway.attach_payment_method(customer, "pm_card_visa") for _ in range(101)]
    gateway.create_customer("Bia", {}, "customer:bia")

    found = list(gateway.missed_events(datetime.now(UTC) - timedelta(hours=1)))

    assert sorted(event.object_id for event in found) == sorted(cards)
    assert {(event.type, event.stripe_customer_id) for event in found} == {("payment_method.attached", customer)}
    assert list(gateway.missed_events(datetime.now(UTC) + timedelta(hours=1))) == []


def test_stripe_takes_so_many_types_in_one_question() -> None:
    assert len(set(EVENT_TYPES)) == len(EVENT_TYPES) <= 20


@pytest.mark.parametrize(
    ("parameters", "known"),
    [
        (setup_parameters("cus_1", {}), stripe.params.SetupIntentCreateParams),
        (refund_parameters("pi_1", 1, {}), stripe.params.RefundCreateParams),
    ],
    ids=["setup", "refund"],
)
def test_parameters_exist_at_stripe(parameters: dict[str, Any], known: type) -> None:
    assert set(parameters) <= set(known.__annotations__)
