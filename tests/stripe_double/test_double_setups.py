"""Cards made ready to be charged while their customer is away."""

from typing import Any

import pytest
import stripe

from sandbox.stripe_double.control import DoubleControl

CARDS_ALONE: Any = {"allowed_payment_method_types": ["card"], "usage": "off_session"}


@pytest.fixture
def setup(client: stripe.StripeClient, customer: str) -> str:
    """An unconfirmed SetupIntent of the customer."""
    asked: Any = {"customer": customer, **CARDS_ALONE}
    return client.v1.setup_intents.create(asked).id


def off_session(client: stripe.StripeClient, intent: str, card: Any) -> stripe.PaymentIntent:
    return client.v1.payment_intents.confirm(intent, {"payment_method": card, "off_session": True})


def test_a_setup_attaches_its_card_to_the_customer(client: stripe.StripeClient, customer: str, setup: str) -> None:
    done = client.v1.setup_intents.confirm(setup, {"payment_method": "pm_card_visa"})

    assert (done.status, done.usage) == ("succeeded", "off_session")
    held = client.v1.customers.payment_methods.list(customer).data
    assert [card.id for card in held] == [done.payment_method]


def test_a_setup_may_be_confirmed_as_it_is_made(client: stripe.StripeClient, customer: str) -> None:
    asked: Any = {**CARDS_ALONE, "customer": customer, "confirm": True, "payment_method": "pm_card_visa"}

    assert client.v1.setup_intents.create(asked).status == "succeeded"


def test_a_card_that_is_refused_leaves_the_setup_open_for_another(client: stripe.StripeClient, setup: str) -> None:
    with pytest.raises(stripe.CardError) as refusal:
        client.v1.setup_intents.confirm(setup, {"payment_method": "pm_card_chargeDeclinedLostCard"})
    refused = client.v1.setup_intents.retrieve(setup)

    assert refusal.value.error is not None
    assert refusal.value.error.decline_code == "lost_card"
    assert refused.status == "requires_payment_method"
    assert refused.last_setup_error is not None
    assert refused.last_setup_error.code == "card_declined"
    assert client.v1.setup_intents.confirm(setup, {"payment_method": "pm_card_visa"}).status == "succeeded"


def test_a_card_that_was_authenticated_at_setup_is_charged_without_its_customer(
    client: stripe.StripeClient, setup: str, intent: str, control: DoubleControl
) -> None:
    asked = client.v1.setup_intents.confirm(setup, {"payment_method": "pm_card_authenticationRequiredOnSetup"})
    control.authenticate(setup)
    ready = client.v1.setup_intents.retrieve(setup)

    assert (asked.status, ready.status) == ("requires_action", "succeeded")
    assert off_session(client, intent, ready.payment_method).status == "succeeded"


def test_a_card_that_always_wants_its_customer_is_declined_after_a_setup_too(
    client: stripe.StripeClient, setup: str, intent: str, control: DoubleControl
) -> None:
    client.v1.setup_intents.confirm(setup, {"payment_method": "pm_card_authenticationRequired"})
    control.authenticate(setup)
    card = client.v1.setup_intents.retrieve(setup).payment_method

    with pytest.raises(stripe.CardError) as refusal:
        off_session(client, intent, card)

    assert refusal.value.code == "authentication_required"


def test_a_customer_who_fails_to_authenticate_has_no_card_set_up(
    client: stripe.StripeClient, customer: str, setup: str, control: DoubleControl
) -> None:
    client.v1.setup_intents.confirm(setup, {"payment_method": "pm_card_authenticationRequired"})

    control.authenticate(setup, is_successful=False)

    assert client.v1.setup_intents.retrieve(setup).status == "requires_payment_method"
    assert client.v1.customers.payment_methods.list(customer).data == []


def test_a_canceled_setup_is_not_confirmed(client: stripe.StripeClient, setup: str) -> None:
    canceled = client.v1.setup_intents.cancel(setup, {"cancellation_reason": "abandoned"})

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.setup_intents.confirm(setup, {"payment_method": "pm_card_visa"})

    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    assert refusal.value.code == "setup_intent_unexpected_state"


def test_setups_are_listed_by_customer(client: stripe.StripeClient, customer: str, setup: str) -> None:
    client.v1.setup_intents.create(CARDS_ALONE)

    assert [one.id for one in client.v1.setup_intents.list({"customer": customer}).data] == [setup]
    assert len(client.v1.setup_intents.list().data) == 2
