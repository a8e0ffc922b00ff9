"""Idempotency keys: one effect per key, and what is kept under it."""

import threading
from typing import Any

import pytest
import requests
import stripe

from sandbox.stripe_double.app import API_VERSION
from sandbox.stripe_double.gate import Gate

INTENT: Any = {"amount": 40000, "currency": "brl", "allowed_payment_method_types": ["card"]}
HEADERS = {"Authorization": "Bearer sk_test_double", "Stripe-Version": API_VERSION}
DAY_SECONDS = 24 * 60 * 60


def create(client: stripe.StripeClient, key: str, **changes: Any) -> stripe.PaymentIntent:
    asked: Any = INTENT | changes
    return client.v1.payment_intents.create(asked, {"idempotency_key": key})


def intents_made(client: stripe.StripeClient) -> int:
    return len(client.v1.payment_intents.list({"limit": 100}).data)


def test_two_creates_with_one_key_make_one_intent_and_the_second_says_so(client: stripe.StripeClient) -> None:
    first, second = create(client, "k"), create(client, "k")

    assert first.to_dict() == second.to_dict()
    assert intents_made(client) == 1
    assert first.last_response is not None
    assert second.last_response is not None
    headers = second.last_response.headers
    assert headers["Idempotent-Replayed"] == "true"
    assert headers["Original-Request"] == first.last_response.request_id != second.last_response.request_id
    assert "Idempotent-Replayed" not in first.last_response.headers


def test_a_decline_is_kept_and_the_card_is_not_charged_again(client: stripe.StripeClient, intent: str) -> None:
    asked: Any = {"payment_method": "pm_card_chargeDeclinedInsufficientFunds"}
    told = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as refusal:
            client.v1.payment_intents.confirm(intent, asked, {"idempotency_key": "c"})
        told.append(refusal.value.json_body)

    assert told[0] == told[1]
    assert len(client.v1.charges.list({"payment_intent": intent}).data) == 1


def test_a_key_with_other_parameters_is_an_idempotency_error(client: stripe.StripeClient) -> None:
    create(client, "k")

    with pytest.raises(stripe.IdempotencyError, match="other parameters"):
        create(client, "k", amount=500)

    assert intents_made(client) == 1


def test_a_key_used_at_another_path_is_an_idempotency_error(client: stripe.StripeClient, intent: str) -> None:
    create(client, "k")

    with pytest.raises(stripe.IdempotencyError, match="POST /v1/payment_intents"):
        client.v1.payment_intents.cancel(intent, {}, {"idempotency_key": "k"})


def test_failed_validation_is_not_kept(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        create(client, "k", currency="REAIS")

    assert create(client, "k").status == "requires_payment_method"


def test_a_key_is_forgotten_after_24_hours(client: stripe.StripeClient, http: requests.Session, url: str) -> None:
    first = create(client, "k")
    http.post(f"{url}/_double/clock", data={"offset_seconds": DAY_SECONDS - 60}).raise_for_status()
    same = create(client, "k")
    http.post(f"{url}/_double/clock", data={"offset_seconds": DAY_SECONDS}).raise_for_status()

    later = create(client, "k", amount=500)

    assert first.id == same.id != later.id


def test_keys_of_two_accounts_do_not_meet(client: stripe.StripeClient) -> None:
    first = create(client, "k")

    other = client.v1.payment_intents.create(INTENT, {"idempotency_key": "k", "api_key": "sk_test_other"})

    assert first.id != other.id


def test_while_a_key_is_in_flight_the_second_request_is_a_conflict(
    client: stripe.StripeClient, gate: Gate, url: str
) -> None:
    gate.close()
    answers: list[requests.Response] = []

    def send() -> None:
        headers = {**HEADERS, "Idempotency-Key": "k"}
        answers.append(requests.post(f"{url}/v1/customers", {"name": "Ana"}, headers=headers, timeout=15))

    first = threading.Thread(target=send)
    first.start()
    gate.wait_until_reached()
    with pytest.raises(stripe.APIError) as conflict:
        client.v1.customers.create({"name": "Ana"}, {"idempotency_key": "k"})
    gate.open()
    first.join()

    assert conflict.value.http_status == 409
    assert conflict.value.error is not None
    assert conflict.value.error.code == "idempotency_key_in_use"
    assert answers[0].status_code == 200
    again = client.v1.customers.create({"name": "Ana"}, {"idempotency_key": "k"})
    assert again.id == answers[0].json()["id"]


def test_while_an_intent_is_being_changed_another_change_is_turned_away(
    client: stripe.StripeClient, intent: str, gate: Gate, url: str
) -> None:
    gate.close()
    confirming = threading.Thread(
        target=requests.post,
        args=(f"{url}/v1/payment_intents/{intent}/confirm", {"payment_method": "pm_card_visa"}),
        kwargs={"headers": HEADERS, "timeout": 15},
    )
    confirming.start()
    gate.wait_until_reached()
    with pytest.raises(stripe.RateLimitError) as locked:
        client.v1.payment_intents.cancel(intent, {}, {"idempotency_key": "k"})
    gate.open()
    confirming.join()

    assert locked.value.error is not None
    assert locked.value.error.code == "lock_timeout"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_intents.cancel(intent, {}, {"idempotency_key": "k"})
    assert client.v1.payment_intents.retrieve(intent).status == "succeeded"
