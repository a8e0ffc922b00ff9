"""Events and their webhooks, received by an endpoint that verifies them with Stripe's own library."""

import threading
from typing import Any

import pytest
import stripe

from sandbox.stripe_double.control import PROCESSING, ControlError, DoubleControl
from sandbox.stripe_double.wishes import Delivery
from tests.stripe_double.receiver import SECRET, Receiver

SUCCEEDED, FAILED = "payment_intent.succeeded", "payment_intent.payment_failed"


def pay(client: stripe.StripeClient, intent: str, card: Any = "pm_card_visa") -> None:
    client.v1.payment_intents.confirm(intent, {"payment_method": card})


def undelivered(client: stripe.StripeClient) -> list[str]:
    return [event.type for event in client.v1.events.list({"delivery_success": False}).data]


def intents(client: stripe.StripeClient, count: int) -> list[str]:
    asked: Any = {"amount": 500, "currency": "brl", "allowed_payment_method_types": ["card"]}
    return [client.v1.payment_intents.create(asked).id for _ in range(count)]


def test_an_event_tells_what_happened_and_what_caused_it(
    client: stripe.StripeClient, intent: str, control: DoubleControl, listening: Receiver
) -> None:
    asked: Any = {"payment_method": "pm_card_visa"}
    confirmed = client.v1.payment_intents.confirm(intent, asked, {"idempotency_key": "c"})
    control.wait_delivered()

    [event] = listening.events
    assert event.type == SUCCEEDED
    assert event.data.object["id"] == intent
    assert event.data.object["metadata"]["payment_id"] == "p-1"
    assert event.request is not None
    assert confirmed.last_response is not None
    assert (event.request.id, event.request.idempotency_key) == (confirmed.last_response.request_id, "c")


def test_every_turn_of_a_payment_is_an_event(
    client: stripe.StripeClient, customer: str, intent: str, control: DoubleControl, listening: Receiver
) -> None:
    with pytest.raises(stripe.CardError):
        pay(client, intent, "pm_card_chargeDeclined")
    pay(client, intent, "pm_card_authenticationRequired")
    client.v1.payment_intents.cancel(intent)
    control.script_card("pm_card_slow", [PROCESSING])
    [other] = intents(client, 1)
    pay(client, other, "pm_card_slow")
    control.settle_processing(other)
    control.wait_delivered()

    turns = ["payment_failed", "requires_action", "canceled", "processing", "succeeded"]
    assert sorted(listening.types()) == sorted(f"payment_intent.{turn}" for turn in turns)


def test_every_turn_of_a_card_is_an_event(
    client: stripe.StripeClient, customer: str, control: DoubleControl, listening: Receiver
) -> None:
    card = client.v1.payment_methods.attach("pm_card_visa", {"customer": customer}).id
    control.update_card(card, 11, 2040)
    client.v1.payment_methods.detach(card)
    asked: Any = {"customer": customer, "allowed_payment_method_types": ["card"]}
    asked |= {"confirm": True, "payment_method": "pm_card_visa"}
    client.v1.setup_intents.create(asked)
    control.wait_delivered()

    attached, setup = "payment_method.attached", "setup_intent.succeeded"
    middle = ["payment_method.automatically_updated", "payment_method.detached"]
    assert sorted(listening.types()) == [attached, attached, *middle, setup]
    [updated] = [event for event in listening.events if event.type == middle[0]]
    assert updated.data.object["card"]["exp_year"] == 2040


def test_every_turn_of_money_that_goes_back_is_an_event(
    client: stripe.StripeClient, intent: str, control: DoubleControl, listening: Receiver
) -> None:
    pay(client, intent)
    client.v1.refunds.create({"payment_intent": intent, "amount": 100})
    dispute = control.open_dispute(intent)
    control.review_dispute(dispute)
    control.close_dispute(dispute, "won")
    control.wait_delivered()

    turns = ["created", "funds_withdrawn", "updated", "closed", "funds_reinstated"]
    expected = [SUCCEEDED, "charge.refunded", *(f"charge.dispute.{turn}" for turn in turns)]
    assert sorted(listening.types()) == sorted(expected)
    [refunded] = [event for event in listening.events if event.type == "charge.refunded"]
    assert refunded.data.object["amount_refunded"] == 100


def test_a_webhook_may_come_before_the_answer(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver
) -> None:
    seen: list[str] = []
    # The key is free again and the intent can be read, though the answer is still to come.
    receiver.before_answer = lambda _: seen.append(client.v1.payment_intents.retrieve(intent).status)
    control.set_webhooks(receiver.url, SECRET, Delivery(when="before"))

    pay(client, intent)

    assert (receiver.types(), seen) == ([SUCCEEDED], ["succeeded"])


def test_a_webhook_comes_after_the_answer_unless_told_otherwise(
    client: stripe.StripeClient, intent: str, control: DoubleControl, listening: Receiver
) -> None:
    held = control.add_fault("hold_after", "POST")
    paying = threading.Thread(target=pay, args=(client, intent))
    paying.start()
    control.wait_held(held)

    assert client.v1.payment_intents.retrieve(intent).status == "succeeded"
    assert (listening.types(), control.webhooks().in_flight) == ([], 1)
    control.release(held)
    paying.join()
    listening.wait_for(1)


def test_a_webhook_may_come_twice(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver
) -> None:
    control.set_webhooks(receiver.url, SECRET, Delivery(copies=2))
    pay(client, intent)
    control.wait_delivered()

    first, second = receiver.events
    assert first.id == second.id


def test_webhooks_may_come_in_another_order_which_the_seed_decides(
    client: stripe.StripeClient, control: DoubleControl, receiver: Receiver
) -> None:
    made = intents(client, 16)
    orders = []
    for eight in (made[:8], made[8:]):
        control.set_webhooks(receiver.url, SECRET, Delivery(shuffle_window=8, seed=7))
        for intent in eight:
            pay(client, intent)
        control.wait_delivered()
        orders.append([eight.index(event.data.object["id"]) for event in receiver.events[-8:]])

    assert orders[0] == orders[1] != list(range(8))
    assert sorted(orders[0]) == list(range(8))


def test_what_a_shuffle_still_gathers_comes_when_all_is_asked_for(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver
) -> None:
    control.set_webhooks(receiver.url, SECRET, Delivery(shuffle_window=100))
    pay(client, intent)
    before = list(receiver.events)

    assert control.deliver_all() == 1
    control.wait_delivered()

    assert (before, receiver.types()) == ([], [SUCCEEDED])


def test_a_delayed_webhook_comes_at_once_when_all_is_asked_for(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver
) -> None:
    control.set_webhooks(receiver.url, SECRET, Delivery(delay_seconds=600))
    pay(client, intent)
    before = list(receiver.events)

    control.deliver_all()
    control.wait_delivered()

    assert (before, receiver.types()) == ([], [SUCCEEDED])


def test_a_webhook_that_never_comes_is_an_event_that_was_not_delivered(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver
) -> None:
    control.set_webhooks(receiver.url, SECRET, Delivery(when="never"))
    pay(client, intent)
    with pytest.raises(ControlError, match="deliver_all"):
        control.wait_delivered()
    [missed] = client.v1.events.list({"delivery_success": False}).data

    control.deliver_all()
    control.wait_delivered()

    assert (missed.type, missed.pending_webhooks) == (SUCCEEDED, 1)
    assert receiver.types() == [SUCCEEDED]
    assert undelivered(client) == []
    assert [event.id for event in client.v1.events.list({"delivery_success": True}).data] == [missed.id]


def test_a_share_of_webhooks_may_be_lost(
    client: stripe.StripeClient, control: DoubleControl, receiver: Receiver
) -> None:
    control.set_webhooks(receiver.url, SECRET, Delivery(lost_share=0.5, seed=3))
    for intent in intents(client, 12):
        pay(client, intent)
    control.wait_sent()

    lost = undelivered(client)
    assert 0 < len(lost) < 12
    assert len(receiver.events) == 12 - len(lost)


@pytest.mark.parametrize("signature", ["stale", "wrong_secret"])
def test_a_webhook_may_be_signed_wrongly_and_is_not_acknowledged_then(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver, signature: Any
) -> None:
    control.set_webhooks(receiver.url, SECRET, Delivery(signature=signature, attempts_max=1))
    pay(client, intent)
    control.wait_sent()

    assert (receiver.types(), len(receiver.refused)) == ([], 1)
    assert undelivered(client) == [SUCCEEDED]


def test_a_signature_of_the_future_is_accepted_by_stripes_library(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver
) -> None:
    control.set_webhooks(receiver.url, SECRET, Delivery(signature="future"))
    pay(client, intent)
    control.wait_delivered()

    assert receiver.types() == [SUCCEEDED]


def test_a_webhook_that_is_answered_with_an_error_comes_again(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver
) -> None:
    receiver.answers = [500, 302]
    control.set_webhooks(receiver.url, SECRET, Delivery(backoff_seconds=0.01))
    pay(client, intent)
    control.wait_delivered()

    assert receiver.types() == [SUCCEEDED] * 3
    state = control.webhooks()
    assert (state.attempts, state.acknowledged) == (3, 1)


def test_a_webhook_is_given_up_after_so_many_attempts(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver
) -> None:
    receiver.answers = [503] * 10
    control.set_webhooks(receiver.url, SECRET, Delivery(backoff_seconds=0.01, attempts_max=3))
    pay(client, intent)
    control.wait_sent()

    assert len(receiver.events) == 3
    assert undelivered(client) == [SUCCEEDED]


def test_an_endpoint_that_is_away_is_no_error_of_the_request(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.set_webhooks("http://127.0.0.1:1/webhooks", SECRET, Delivery(when="before", attempts_max=1))
    pay(client, intent)

    assert undelivered(client) == [SUCCEEDED]


def test_an_endpoint_made_by_the_api_has_a_secret_and_gets_what_it_subscribed(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver, monkeypatch: Any
) -> None:
    wanted: Any = [SUCCEEDED]
    made = client.v1.webhook_endpoints.create({"url": receiver.url, "enabled_events": wanted})
    monkeypatch.setattr("tests.stripe_double.receiver.SECRET", made.secret)
    with pytest.raises(stripe.CardError):
        pay(client, intent, "pm_card_chargeDeclined")
    pay(client, intent)
    control.wait_delivered()

    assert receiver.types() == [SUCCEEDED]
    assert not hasattr(client.v1.webhook_endpoints.retrieve(made.id), "secret")


def test_a_deleted_endpoint_is_told_nothing_more(
    client: stripe.StripeClient, intent: str, control: DoubleControl, receiver: Receiver
) -> None:
    endpoint = control.set_webhooks(receiver.url, SECRET, Delivery(when="never"))
    pay(client, intent)

    assert client.v1.webhook_endpoints.delete(endpoint).deleted
    control.deliver_all()
    control.wait_delivered()

    assert client.v1.webhook_endpoints.list().data == []
    assert receiver.types() == []


@pytest.mark.parametrize(
    "target",
    ["https://127.0.0.1/hook", "http://192.0.2.1/hook", "http://example.com/hook", "http://127.0.0.1:x/", "hook"],
)
def test_webhooks_stay_on_this_machine(client: stripe.StripeClient, control: DoubleControl, target: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.webhook_endpoints.create({"url": target, "enabled_events": ["*"]})
    with pytest.raises(ControlError, match="loopback"):
        control.set_webhooks(target, SECRET)

    assert (refusal.value.code, refusal.value.param) == ("url_invalid", "url")


def test_events_are_listed_by_type_and_time_in_pages(client: stripe.StripeClient, control: DoubleControl) -> None:
    for intent in intents(client, 3):
        control.advance(3600)
        pay(client, intent)
        client.v1.refunds.create({"payment_intent": intent})
    since = control.now() - 3600 - 1800  # time goes on, too

    page = client.v1.events.list({"types": [SUCCEEDED, FAILED], "created": {"gte": since}, "limit": 1})
    refunds = client.v1.events.list({"type": "charge.*"}).data

    assert page.has_more
    found = list(page.auto_paging_iter())
    assert [event.type for event in found] == [SUCCEEDED] * 2
    assert [event.type for event in refunds] == ["charge.refunded"] * 3
    assert client.v1.events.retrieve(found[0].id).to_dict() == found[0].to_dict()


def test_a_replayed_answer_makes_no_second_event(client: stripe.StripeClient, intent: str) -> None:
    for _ in range(2):
        client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_visa"}, {"idempotency_key": "c"})

    assert len(client.v1.events.list({"type": SUCCEEDED}).data) == 1
