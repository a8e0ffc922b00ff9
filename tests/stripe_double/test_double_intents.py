"""What happens to a payment intent, seen through Stripe's own library."""

from typing import Any

import pytest
import requests
import stripe


def confirm(client: stripe.StripeClient, intent: str, card: str, **params: Any) -> stripe.PaymentIntent:
    asked: Any = {"payment_method": card, "off_session": True, "error_on_requires_action": True, **params}
    return client.v1.payment_intents.confirm(intent, asked)


def declined(client: stripe.StripeClient, intent: str, card: str, **params: Any) -> stripe.ErrorObject:
    with pytest.raises(stripe.CardError) as refusal:
        confirm(client, intent, card, **params)
    assert refusal.value.http_status == 402
    assert refusal.value.error is not None
    return refusal.value.error


def captured(http: requests.Session, url: str) -> Any:
    return http.get(f"{url}/_double/captured").json()


def test_a_good_card_is_charged_once_and_stands_in_the_ledger(
    client: stripe.StripeClient, intent: str, http: requests.Session, url: str
) -> None:
    confirmed = confirm(client, intent, "pm_card_visa", expand=["latest_charge"])

    assert (confirmed.status, confirmed.amount_received) == ("succeeded", 40000)
    assert isinstance(confirmed.latest_charge, stripe.Charge)
    assert (confirmed.latest_charge.paid, confirmed.latest_charge.amount_captured) == (True, 40000)
    assert captured(http, url) == {
        "payments": {
            "p-1": {
                "currency": "brl",
                "amount_minor": 40000,
                "successes": 1,
                "stripe_payment_intent_ids": [intent],
            }
        },
        "totals": {"brl": 40000},
    }


def test_a_decline_tells_everything_and_leaves_the_intent_without_a_card(
    client: stripe.StripeClient, customer: str, intent: str, http: requests.Session, url: str
) -> None:
    card = client.v1.payment_methods.attach("pm_card_chargeCustomerFail", {"customer": customer}).id

    error = declined(client, intent, card)

    assert (error.type, error.code, error.decline_code) == ("card_error", "card_declined", "generic_decline")
    assert error.payment_intent is not None
    assert error.payment_method is not None
    assert error.payment_method.id == card
    now = client.v1.payment_intents.retrieve(intent)
    assert error.payment_intent.to_dict() == now.to_dict()
    assert (now.status, now.payment_method) == ("requires_payment_method", None)
    assert now.last_payment_error is not None
    assert now.last_payment_error.charge == now.latest_charge == error.charge
    charge = client.v1.charges.retrieve(str(now.latest_charge))
    assert (charge.paid, charge.status, charge.failure_code) == (False, "failed", "card_declined")
    assert charge.outcome is not None
    assert charge.outcome.reason == "generic_decline"
    assert captured(http, url)["payments"] == {}


def test_a_declined_intent_succeeds_with_another_card_that_is_named_again(
    client: stripe.StripeClient, intent: str
) -> None:
    declined(client, intent, "pm_card_chargeDeclinedInsufficientFunds")
    with pytest.raises(stripe.InvalidRequestError) as nameless:
        client.v1.payment_intents.confirm(intent, {"off_session": True})

    again = confirm(client, intent, "pm_card_visa")

    assert nameless.value.code == "payment_intent_unexpected_state"
    assert (again.status, again.last_payment_error) == ("succeeded", None)
    charges = client.v1.charges.list({"payment_intent": intent}).data
    assert [charge.status for charge in charges] == ["succeeded", "failed"]


def test_a_card_without_funds_says_so(client: stripe.StripeClient, intent: str) -> None:
    error = declined(client, intent, "pm_card_chargeDeclinedInsufficientFunds")

    assert (error.code, error.decline_code) == ("card_declined", "insufficient_funds")


@pytest.mark.parametrize("card", ["pm_card_authenticationRequired", "pm_card_authenticationRequiredOnSetup"])
def test_off_session_a_card_that_wants_authentication_is_declined(
    client: stripe.StripeClient, intent: str, card: Any
) -> None:
    error = declined(client, intent, card)

    assert (error.code, error.decline_code) == ("authentication_required", "authentication_required")
    assert error.charge is not None


def test_on_session_authentication_is_asked_for_unless_the_caller_forbids_it(
    client: stripe.StripeClient, intent: str
) -> None:
    card = "pm_card_authenticationRequired"

    error = declined(client, intent, card, off_session=False)
    asked = confirm(client, intent, card, off_session=False, error_on_requires_action=False)

    assert (error.code, error.decline_code) == ("authentication_required", "authentication_not_handled")
    assert error.charge is None
    assert asked.status == "requires_action"
    assert asked.next_action is not None
    assert asked.next_action.type == "use_stripe_sdk"


def test_a_succeeded_intent_is_neither_confirmed_again_nor_canceled(
    client: stripe.StripeClient, intent: str, http: requests.Session, url: str
) -> None:
    confirm(client, intent, "pm_card_visa")

    with pytest.raises(stripe.InvalidRequestError) as confirmed_again:
        confirm(client, intent, "pm_card_visa")
    with pytest.raises(stripe.InvalidRequestError) as canceled:
        client.v1.payment_intents.cancel(intent)

    for refusal in (confirmed_again.value, canceled.value):
        assert refusal.code == "payment_intent_unexpected_state"
        assert refusal.error is not None
        assert refusal.error.payment_intent is not None
        assert refusal.error.payment_intent.status == "succeeded"
    assert captured(http, url)["payments"]["p-1"]["successes"] == 1


def test_a_canceled_intent_takes_no_money(
    client: stripe.StripeClient, intent: str, http: requests.Session, url: str
) -> None:
    canceled = client.v1.payment_intents.cancel(intent, {"cancellation_reason": "abandoned"})
    with pytest.raises(stripe.InvalidRequestError):
        confirm(client, intent, "pm_card_visa")

    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    assert captured(http, url)["payments"] == {}


def test_an_update_changes_what_is_sent_merges_metadata_and_clears_the_last_error(
    client: stripe.StripeClient, intent: str
) -> None:
    declined(client, intent, "pm_card_chargeDeclinedInsufficientFunds")

    updated = client.v1.payment_intents.update(intent, {"amount": 500, "metadata": {"tier": "2"}})

    assert (updated.amount, updated.currency, updated.last_payment_error) == (500, "brl", None)
    assert updated.metadata.to_dict() == {"payment_id": "p-1", "tier": "2"}


def test_intents_are_listed_by_customer_and_time_newest_first_in_pages(
    client: stripe.StripeClient, customer: str, http: requests.Session, url: str
) -> None:
    made = []
    for hours in range(3):
        http.post(f"{url}/_double/clock", data={"offset_seconds": 3600 * hours}).raise_for_status()
        made.append(client.v1.payment_intents.create({"amount": 100, "currency": "brl", "customer": customer}))
    other = client.v1.customers.create({"name": "Bia"}).id
    client.v1.payment_intents.create({"amount": 100, "currency": "brl", "customer": other})

    page = client.v1.payment_intents.list({"customer": customer, "created": {"gte": made[1].created}, "limit": 1})

    assert page.has_more
    assert [found.id for found in page.auto_paging_iter()] == [made[2].id, made[1].id]


def test_a_card_of_another_customer_is_refused(client: stripe.StripeClient, intent: str) -> None:
    stranger = client.v1.customers.create({"name": "Bia"}).id
    card = client.v1.payment_methods.attach("pm_card_visa", {"customer": stranger}).id

    with pytest.raises(stripe.InvalidRequestError, match="does not belong to the customer"):
        confirm(client, intent, card)


def test_a_detached_card_is_refused_and_leaves_the_list(
    client: stripe.StripeClient, customer: str, intent: str
) -> None:
    card = client.v1.payment_methods.attach("pm_card_visa", {"customer": customer}).id
    held = client.v1.customers.payment_methods.list(customer).data
    client.v1.payment_methods.detach(card)

    with pytest.raises(stripe.InvalidRequestError, match="can't be used again"):
        confirm(client, intent, card)

    assert [method.id for method in held] == [card]
    assert client.v1.payment_methods.list({"customer": customer}).data == []


def test_a_card_that_always_declines_is_refused_when_it_is_attached(client: stripe.StripeClient, customer: str) -> None:
    with pytest.raises(stripe.CardError) as refusal:
        client.v1.payment_methods.attach("pm_card_chargeDeclinedInsufficientFunds", {"customer": customer})

    assert refusal.value.error is not None
    assert refusal.value.error.decline_code == "insufficient_funds"


@pytest.mark.parametrize(
    ("card", "last4"), [({"number": "4000 0000 0000 0341"}, "0341"), ({"token": "tok_visa"}, "4242")]
)
def test_a_card_is_made_from_a_test_number_or_token(client: stripe.StripeClient, card: Any, last4: str) -> None:
    made = client.v1.payment_methods.create({"type": "card", "card": card})

    assert made.card is not None
    assert made.card.last4 == last4


def test_a_number_that_is_no_test_card_is_refused(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.CardError, match="this is a double"):
        client.v1.payment_methods.create({"type": "card", "card": {"number": "4111111111111111"}})


def test_a_customer_is_found_again_and_updated(client: stripe.StripeClient, customer: str) -> None:
    card = client.v1.payment_methods.attach("pm_card_visa", {"customer": customer}).id

    client.v1.customers.update(
        customer, {"email": "ana@example.com", "invoice_settings": {"default_payment_method": card}}
    )

    found = client.v1.customers.list({"email": "ana@example.com"}).data
    assert [one.id for one in found] == [customer]
    assert found[0].invoice_settings is not None
    assert found[0].invoice_settings.default_payment_method == card
    assert client.v1.customers.retrieve(customer).name == "Ana"
