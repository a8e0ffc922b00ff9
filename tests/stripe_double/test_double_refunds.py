"""Money that goes back: refunds and disputes."""

from typing import Any

import pytest
import stripe

from sandbox.stripe_double.control import ControlError, DoubleControl, LedgerEntry


@pytest.fixture
def paid(client: stripe.StripeClient, intent: str) -> str:
    """The intent of 400.00 BRL, paid."""
    return client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_visa"}).id


def charge_of(client: stripe.StripeClient, intent: str) -> stripe.Charge:
    shown = client.v1.payment_intents.retrieve(intent, {"expand": ["latest_charge"]})
    assert isinstance(shown.latest_charge, stripe.Charge)
    return shown.latest_charge


def refused(client: stripe.StripeClient, **params: Any) -> tuple[str | None, str | None]:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.refunds.create(params)  # type: ignore[arg-type]
    return refusal.value.code, refusal.value.param


def test_parts_of_a_charge_are_refunded_until_nothing_is_left(client: stripe.StripeClient, paid: str) -> None:
    part = client.v1.refunds.create({"payment_intent": paid, "amount": 15000, "metadata": {"why": "goodwill"}})
    after_part = charge_of(client, paid)
    rest = client.v1.refunds.create({"charge": after_part.id, "reason": "requested_by_customer"})

    assert part.metadata is not None
    assert (part.amount, part.status, part.metadata.to_dict()) == (15000, "succeeded", {"why": "goodwill"})
    assert (after_part.amount_refunded, after_part.refunded) == (15000, False)
    assert (rest.amount, rest.reason) == (25000, "requested_by_customer")
    after_all = charge_of(client, paid)
    assert (after_all.amount_refunded, after_all.refunded) == (40000, True)
    assert client.v1.payment_intents.retrieve(paid).status == "succeeded"


def test_more_than_is_left_is_not_refunded(client: stripe.StripeClient, paid: str) -> None:
    client.v1.refunds.create({"payment_intent": paid, "amount": 30000})

    assert refused(client, payment_intent=paid, amount=10001) == (None, "amount")

    assert charge_of(client, paid).amount_refunded == 30000


def test_a_refunded_charge_is_not_refunded_again(client: stripe.StripeClient, paid: str) -> None:
    client.v1.refunds.create({"payment_intent": paid})

    assert refused(client, payment_intent=paid) == ("charge_already_refunded", None)


def test_the_same_key_refunds_once(client: stripe.StripeClient, paid: str) -> None:
    asked: Any = {"payment_intent": paid, "amount": 100}
    first = client.v1.refunds.create(asked, {"idempotency_key": "r"})

    assert client.v1.refunds.create(asked, {"idempotency_key": "r"}).id == first.id
    assert charge_of(client, paid).amount_refunded == 100


def test_what_took_no_money_gives_none_back(client: stripe.StripeClient, intent: str) -> None:
    assert refused(client, payment_intent=intent) == (None, "payment_intent")
    assert refused(client, amount=100) == ("parameter_missing", "payment_intent")


@pytest.mark.parametrize("amount", [0, -5])
def test_an_amount_to_refund_is_positive(client: stripe.StripeClient, paid: str, amount: int) -> None:
    assert refused(client, payment_intent=paid, amount=amount) == ("parameter_invalid_integer", "amount")


def test_refunds_are_found_again_by_id_and_by_intent(client: stripe.StripeClient, paid: str) -> None:
    made = [client.v1.refunds.create({"payment_intent": paid, "amount": 100}).id for _ in range(2)]

    assert [one.id for one in client.v1.refunds.list({"payment_intent": paid}).data] == made[::-1]
    assert client.v1.refunds.retrieve(made[0]).payment_intent == paid
    assert client.v1.refunds.list({"charge": "ch_other"}).data == []


def test_the_card_of_a_disputing_customer_is_charged_and_disputed(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    confirmed = client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_createDispute"})

    assert confirmed.status == "succeeded"
    [dispute] = client.v1.disputes.list({"payment_intent": intent}).data
    assert (dispute.amount, dispute.status, dispute.reason) == (40000, "needs_response", "fraudulent")
    assert charge_of(client, intent).disputed
    assert control.ledger()["p-1"] == LedgerEntry("brl", 1, 40000, 0, 40000, [intent])


def test_a_disputed_charge_is_not_refunded(client: stripe.StripeClient, paid: str, control: DoubleControl) -> None:
    control.open_dispute(paid)

    assert refused(client, payment_intent=paid) == ("charge_disputed", None)


def test_a_dispute_takes_what_refunds_have_left(client: stripe.StripeClient, paid: str, control: DoubleControl) -> None:
    client.v1.refunds.create({"payment_intent": paid, "amount": 15000})

    dispute = client.v1.disputes.retrieve(control.open_dispute(paid))

    assert dispute.amount == 25000
    entry = control.ledger()["p-1"]
    assert entry.captured_minor - entry.refunded_minor - entry.withdrawn_minor == 0


def test_a_dispute_that_is_won_gives_the_money_back(
    client: stripe.StripeClient, paid: str, control: DoubleControl
) -> None:
    dispute = control.open_dispute(charge_of(client, paid).id, amount_minor=100, reason="product_not_received")
    control.review_dispute(dispute)
    under_review = client.v1.disputes.retrieve(dispute)

    control.close_dispute(dispute, "won")

    assert (under_review.status, under_review.reason) == ("under_review", "product_not_received")
    assert client.v1.disputes.retrieve(dispute).status == "won"
    assert control.ledger()["p-1"].withdrawn_minor == 0


def test_closing_a_dispute_by_the_api_loses_it_for_good(
    client: stripe.StripeClient, paid: str, control: DoubleControl
) -> None:
    dispute = control.open_dispute(paid)

    closed = client.v1.disputes.close(dispute)

    assert closed.status == "lost"
    assert control.ledger()["p-1"].withdrawn_minor == 40000
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        client.v1.disputes.close(dispute)
    with pytest.raises(ControlError, match="already closed"):
        control.close_dispute(dispute, "won")
