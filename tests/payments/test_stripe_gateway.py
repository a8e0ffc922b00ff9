"""Collecting through our gateway: success, declines as values, adoption, repeats."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from payments.gateway import (
    Decline,
    GatewayKeyReused,
    GatewayRejected,
    IntentRequest,
    IntentSnapshot,
    PaymentGateway,
    create_parameters,
)
from payments.stripe_gateway import StripeGateway

IntentRequests = Callable[..., IntentRequest]
Look = Callable[[str], Any]

WITHOUT_FUNDS = "pm_card_chargeDeclinedInsufficientFunds"


def test_an_intent_is_created_unconfirmed_and_carries_the_payment(
    gateway: PaymentGateway, requested: IntentRequests, look: Look
) -> None:
    request = requested()

    created = gateway.create_intent(request, "create")

    assert created == IntentSnapshot(
        stripe_payment_intent_id=created.stripe_payment_intent_id,
        status="requires_payment_method",
        amount_minor=40000,
        currency="BRL",
        latest_charge_id=None,
        decline=None,
        payment_id=request.payment_id,
        environment="test",
    )
    shown = look(f"/v1/payment_intents/{created.stripe_payment_intent_id}")
    assert shown["statement_descriptor_suffix"] == "TIER 1"
    assert shown["metadata"] == {
        "payment_id": str(request.payment_id),
        "kind": "tier",
        "period": "2026-11-01",
        "tier": "1",
        "environment": "test",
    }
    assert look("/_double/captured")["payments"] == {}


def test_a_good_card_is_charged_exactly_once(
    gateway: PaymentGateway, requested: IntentRequests, customer: str, look: Look
) -> None:
    request = requested()
    card = gateway.attach_payment_method(customer, "pm_card_visa")
    created = gateway.create_intent(request, "create")

    confirmed = gateway.confirm_intent(created.stripe_payment_intent_id, card, "confirm:1")
    repeated = gateway.confirm_intent(created.stripe_payment_intent_id, card, "confirm:1")

    assert confirmed == replace(created, status="succeeded", latest_charge_id=confirmed.latest_charge_id)
    assert confirmed.latest_charge_id is not None
    assert repeated == confirmed
    assert look("/_double/captured")["payments"][str(request.payment_id)]["successes"] == 1


@pytest.mark.parametrize(
    ("card", "decline"),
    [
        (
            "pm_card_chargeCustomerFail",
            Decline(
                code="card_declined",
                decline_code="generic_decline",
                outcome_reason="generic_decline",
                message="Your card was declined.",
            ),
        ),
        (
            WITHOUT_FUNDS,
            Decline(
                code="card_declined",
                decline_code="insufficient_funds",
                outcome_reason="insufficient_funds",
                message="Your card has insufficient funds.",
            ),
        ),
        (
            "pm_card_authenticationRequired",
            Decline(
                code="authentication_required",
                decline_code="authentication_required",
                outcome_reason="authentication_required",
                message="Your card was declined. This transaction requires authentication.",
            ),
        ),
    ],
)
def test_a_decline_is_a_value(
    gateway: PaymentGateway, requested: IntentRequests, customer: str, look: Look, card: str, decline: Decline
) -> None:
    created = gateway.create_intent(requested(), "create")

    declined = gateway.confirm_intent(created.stripe_payment_intent_id, card, "confirm:1")

    assert declined == replace(created, decline=decline, latest_charge_id=declined.latest_charge_id)
    assert declined.latest_charge_id is not None
    assert gateway.retrieve_intent(created.stripe_payment_intent_id) == declined
    assert gateway.find_intents(customer, datetime.now(UTC) - timedelta(hours=1)) == [declined]
    assert look("/_double/captured")["payments"] == {}


def test_a_declined_intent_is_collected_with_another_card(
    gateway: PaymentGateway, requested: IntentRequests, look: Look
) -> None:
    request = requested()
    intent_id = gateway.create_intent(request, "create").stripe_payment_intent_id
    declined = gateway.confirm_intent(intent_id, WITHOUT_FUNDS, "confirm:1")

    succeeded = gateway.confirm_intent(intent_id, "pm_card_visa", "confirm:2")

    assert (succeeded.status, succeeded.decline) == ("succeeded", None)
    assert succeeded.latest_charge_id != declined.latest_charge_id
    assert look("/_double/captured")["payments"][str(request.payment_id)] == {
        "currency": "brl",
        "amount_minor": 40000,
        "successes": 1,
        "stripe_payment_intent_ids": [intent_id],
    }


def test_a_repeated_key_answers_with_the_decline_of_then(gateway: PaymentGateway, requested: IntentRequests) -> None:
    intent_id = gateway.create_intent(requested(), "create").stripe_payment_intent_id
    first = gateway.confirm_intent(intent_id, WITHOUT_FUNDS, "confirm:1")
    gateway.confirm_intent(intent_id, "pm_card_chargeCustomerFail", "confirm:2")

    assert gateway.confirm_intent(intent_id, WITHOUT_FUNDS, "confirm:1") == first


def test_confirming_a_succeeded_intent_again_adopts_its_state(
    gateway: PaymentGateway, requested: IntentRequests, look: Look
) -> None:
    intent_id = gateway.create_intent(requested(), "create").stripe_payment_intent_id
    succeeded = gateway.confirm_intent(intent_id, "pm_card_visa", "confirm:1")

    assert gateway.confirm_intent(intent_id, "pm_card_visa", "confirm:2") == succeeded
    assert look("/_double/captured")["totals"] == {"brl": 40000}


def test_an_open_intent_is_canceled_and_a_succeeded_one_is_adopted(
    gateway: PaymentGateway, requested: IntentRequests
) -> None:
    open_, paid = (gateway.create_intent(requested(), f"create:{n}") for n in range(2))
    succeeded = gateway.confirm_intent(paid.stripe_payment_intent_id, "pm_card_visa", "confirm")

    canceled = gateway.cancel_intent(open_.stripe_payment_intent_id, "cancel:0")

    assert canceled == replace(open_, status="canceled")
    assert gateway.cancel_intent(paid.stripe_payment_intent_id, "cancel:1") == succeeded


def test_two_creates_with_one_key_are_one_intent(
    gateway: PaymentGateway, requested: IntentRequests, customer: str
) -> None:
    request = requested()

    first, second = (gateway.create_intent(request, "create") for _ in range(2))

    assert first == second
    assert gateway.find_intents(customer, datetime.now(UTC) - timedelta(hours=1)) == [first]


def test_a_key_with_other_parameters_is_our_bug(gateway: PaymentGateway, requested: IntentRequests) -> None:
    gateway.create_intent(requested(), "create")

    with pytest.raises(GatewayKeyReused, match="other parameters"):
        gateway.create_intent(requested(), "create")


def test_stored_parameters_are_sent_as_they_are(gateway: PaymentGateway, requested: IntentRequests, look: Look) -> None:
    request = requested()
    stored = {**create_parameters(request), "description": "as an older release said it"}
    first = gateway.create_intent(request, "create", stored=stored)

    again = gateway.create_intent(request, "create", stored=stored)

    assert again == first
    shown = look(f"/v1/payment_intents/{first.stripe_payment_intent_id}")
    assert shown["description"] == "as an older release said it"


def test_a_customers_intents_are_found_by_payment_over_every_page(
    gateway: PaymentGateway, requested: IntentRequests
) -> None:
    stranger = gateway.create_customer("Bia", {}, "customer:bia")
    gateway.create_intent(requested(stripe_customer_id=stranger), "create:bia")
    requests = [requested() for _ in range(101)]
    for request in requests:
        gateway.create_intent(request, f"pay:{request.payment_id}:create")

    found = gateway.find_intents(requests[0].stripe_customer_id, datetime.now(UTC) - timedelta(hours=1))

    assert [one.payment_id for one in found] == [request.payment_id for request in reversed(requests)]
    assert gateway.find_intents(stranger, datetime.now(UTC) + timedelta(hours=1)) == []


def test_a_strangers_intent_has_no_payment(gateway: PaymentGateway, requested: IntentRequests) -> None:
    stored = {**create_parameters(requested()), "metadata": {"payment_id": "order 7"}}

    created = gateway.create_intent(requested(), "create", stored=stored)

    assert (created.payment_id, created.environment) == (None, None)


def test_the_same_customer_is_created_once(gateway: PaymentGateway, look: Look) -> None:
    first, second = (
        gateway.create_customer("Bia", {"customer_id": "bia"}, "customer:bia", email="bia@example.com")
        for _ in range(2)
    )

    assert first == second
    shown = look(f"/v1/customers/{first}")
    assert (shown["name"], shown["email"], shown["metadata"]) == ("Bia", "bia@example.com", {"customer_id": "bia"})


def test_a_card_refused_when_it_is_attached_is_rejected(gateway: PaymentGateway, customer: str) -> None:
    with pytest.raises(GatewayRejected, match="insufficient funds") as rejected:
        gateway.attach_payment_method(customer, WITHOUT_FUNDS)

    assert rejected.value.stripe_code == "card_declined"


def test_another_server_is_called_directly_whatever_proxy_the_environment_names(
    gateway: PaymentGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    assert gateway.create_customer("Ana", {}, "customer").startswith("cus_")


FORKING = """
import os
from payments.stripe_gateway import StripeGateway

gateway = StripeGateway("sk_test_double", "http://127.0.0.1:9")
before = gateway._client()[1]
assert gateway._client()[1] is before
child = os.fork()
if child == 0:
    os._exit(3 if gateway._client()[1] is before else 4)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_builds_a_client_of_its_own() -> None:
    ended = subprocess.run([sys.executable, "-c", FORKING], check=False, timeout=60)

    assert ended.returncode == 4


def test_the_secret_key_does_not_show() -> None:
    assert "secret" not in repr(StripeGateway("sk_test_secret"))
