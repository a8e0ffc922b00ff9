"""Cards that follow a script, and what happens at Stripe without a request of ours."""

from typing import Any

import pytest
import stripe

from sandbox.stripe_double.control import AUTHENTICATE, PROCESSING, SUCCEED, ControlError, DoubleControl, decline


def confirm(client: stripe.StripeClient, intent: str, card: str) -> stripe.PaymentIntent:
    asked: Any = {"payment_method": card, "off_session": True, "expand": ["latest_charge"]}
    return client.v1.payment_intents.confirm(intent, asked)


def declined(client: stripe.StripeClient, intent: str, card: str) -> stripe.ErrorObject:
    with pytest.raises(stripe.CardError) as refusal:
        confirm(client, intent, card)
    assert refusal.value.error is not None
    return refusal.value.error


def test_a_scripted_card_declines_twice_and_then_succeeds(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.script_card("pm_card_twice", [decline("insufficient_funds"), decline("do_not_honor")])

    codes = [declined(client, intent, "pm_card_twice").decline_code for _ in range(2)]

    assert codes == ["insufficient_funds", "do_not_honor"]
    assert confirm(client, intent, "pm_card_twice").status == "succeeded"
    entry = control.ledger()["p-1"]
    assert (entry.charges, entry.captured_minor, entry.succeeded_intents) == (3, 40000, [intent])


def test_a_scripted_decline_tells_what_issuer_network_and_risk_said(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    said = {"advice_code": "try_again_later", "network_advice_code": "02", "network_decline_code": "51"}
    reason = "previously_declined_do_not_retry"
    control.script_card("pm_card_told", [decline(outcome_reason=reason, **said)])

    error = declined(client, intent, "pm_card_told")

    assert {name: getattr(error, name) for name in said} == said
    assert (error.code, error.decline_code) == ("card_declined", "generic_decline")
    charge = client.v1.charges.retrieve(str(error.charge))
    assert charge.failure_code == "card_declined"
    assert charge.outcome is not None
    assert (charge.outcome.reason, charge.outcome.network_advice_code) == (reason, "02")


def test_a_decline_with_a_code_of_its_own_has_it(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.script_card("pm_card_old", [decline("expired_card")])

    assert declined(client, intent, "pm_card_old").code == "expired_card"


def test_a_script_is_followed_once_for_each_customer(
    client: stripe.StripeClient, intent: str, customer: str, control: DoubleControl
) -> None:
    number = control.script_card("4000 0000 0000 1234", [decline()])
    strangers = client.v1.payment_intents.create(
        {"amount": 500, "currency": "brl", "allowed_payment_method_types": ["card"]}
    ).id

    def card() -> str:
        return client.v1.payment_methods.create({"type": "card", "card": {"number": number}}).id

    attached = client.v1.payment_methods.attach(card(), {"customer": customer}).id
    declined(client, intent, attached)

    assert confirm(client, intent, card()).status == "succeeded"
    assert declined(client, strangers, card()).decline_code == "generic_decline"


def test_a_script_may_belong_to_one_payment_method_alone(
    client: stripe.StripeClient, intent: str, customer: str, control: DoubleControl
) -> None:
    card, other = (client.v1.payment_methods.attach("pm_card_visa", {"customer": customer}).id for _ in range(2))
    control.script_card(card, [], then=decline("lost_card"))

    assert [declined(client, intent, card).decline_code for _ in range(2)] == ["lost_card"] * 2
    assert confirm(client, intent, other).status == "succeeded"


def test_a_new_script_begins_anew(client: stripe.StripeClient, intent: str, control: DoubleControl) -> None:
    control.script_card("pm_card_visa", [decline("lost_card")])
    declined(client, intent, "pm_card_visa")

    control.script_card("pm_card_visa", [decline("stolen_card"), SUCCEED])

    assert declined(client, intent, "pm_card_visa").decline_code == "stolen_card"
    assert confirm(client, intent, "pm_card_visa").status == "succeeded"


def test_what_is_no_card_is_not_scripted(control: DoubleControl) -> None:
    with pytest.raises(ControlError, match="neither a card number"):
        control.script_card("pm_1unknown", [SUCCEED])


def test_a_processing_payment_succeeds_when_the_test_says_so(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.script_card("pm_card_slow", [PROCESSING])
    waiting = confirm(client, intent, "pm_card_slow")
    taken_while_waiting = control.ledger()["p-1"].captured_minor

    control.settle_processing(intent)

    assert isinstance(waiting.latest_charge, stripe.Charge)
    assert (waiting.status, waiting.latest_charge.status, taken_while_waiting) == ("processing", "pending", 0)
    settled = client.v1.payment_intents.retrieve(intent, {"expand": ["latest_charge"]})
    assert isinstance(settled.latest_charge, stripe.Charge)
    assert (settled.status, settled.latest_charge.id) == ("succeeded", waiting.latest_charge.id)
    assert control.ledger()["p-1"].captured_minor == 40000


def test_a_processing_payment_fails_when_the_test_says_so(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.script_card("pm_card_slow", [PROCESSING])
    confirm(client, intent, "pm_card_slow")

    control.settle_processing(intent, decline("insufficient_funds"))

    failed = client.v1.payment_intents.retrieve(intent)
    assert (failed.status, failed.payment_method) == ("requires_payment_method", None)
    assert failed.last_payment_error is not None
    assert failed.last_payment_error.decline_code == "insufficient_funds"
    with pytest.raises(ControlError, match="not processing"):
        control.settle_processing(intent)


def test_a_processing_payment_is_not_confirmed_again(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.script_card("pm_card_slow", [PROCESSING])
    confirm(client, intent, "pm_card_slow")

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        confirm(client, intent, "pm_card_visa")

    assert refusal.value.code == "payment_intent_unexpected_state"


def test_a_canceled_processing_payment_takes_no_money(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.script_card("pm_card_slow", [PROCESSING])
    confirm(client, intent, "pm_card_slow")

    canceled = client.v1.payment_intents.cancel(intent, {"expand": ["latest_charge"]})

    assert isinstance(canceled.latest_charge, stripe.Charge)
    assert (canceled.status, canceled.latest_charge.status) == ("canceled", "failed")
    assert control.ledger()["p-1"].captured_minor == 0


@pytest.mark.parametrize(("is_successful", "status"), [(True, "succeeded"), (False, "requires_payment_method")])
def test_a_payment_that_asks_for_its_customer_ends_as_the_customer_does(
    client: stripe.StripeClient, intent: str, control: DoubleControl, *, is_successful: bool, status: str
) -> None:
    control.script_card("pm_card_ask", [AUTHENTICATE])
    asked = client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_ask"})

    control.authenticate(intent, is_successful=is_successful)

    assert asked.status == "requires_action"
    assert client.v1.payment_intents.retrieve(intent).status == status
