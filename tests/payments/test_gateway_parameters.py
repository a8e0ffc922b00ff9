"""The exact bodies that are stored before a call."""

import json
from uuid import UUID

import pytest
import stripe.params

from payments.gateway import IntentRequest, Parameters, confirm_parameters, create_parameters

PAYMENT_ID = UUID("8f3f4bd2-58a6-5d4c-9c53-0d0a3b7d3c11")
REQUEST = IntentRequest(
    payment_id=PAYMENT_ID,
    amount_minor=40000,
    currency="BRL",
    stripe_customer_id="cus_1",
    statement_descriptor_suffix="TIER 1",
    description="Tier 1 of November 2026",
    kind="tier",
    period="2026-11-01",
    tier=1,
    environment="test",
)


def test_an_intent_is_created_for_cards_alone_with_the_payment_in_its_metadata() -> None:
    assert create_parameters(REQUEST) == {
        "amount": 40000,
        "currency": "brl",
        "customer": "cus_1",
        "allowed_payment_method_types": ["card"],
        "statement_descriptor_suffix": "TIER 1",
        "description": "Tier 1 of November 2026",
        "metadata": {
            "payment_id": str(PAYMENT_ID),
            "kind": "tier",
            "period": "2026-11-01",
            "tier": "1",
            "environment": "test",
        },
    }


def test_a_confirmation_names_the_card_and_never_waits_for_the_customer() -> None:
    assert confirm_parameters("pm_1") == {
        "payment_method": "pm_1",
        "off_session": True,
        "error_on_requires_action": True,
        "expand": ["latest_charge"],
    }


@pytest.mark.parametrize(
    ("parameters", "known"),
    [
        (create_parameters(REQUEST), stripe.params.PaymentIntentCreateParams),
        (confirm_parameters("pm_1"), stripe.params.PaymentIntentConfirmParams),
    ],
    ids=["create", "confirm"],
)
def test_parameters_exist_at_stripe_and_survive_being_stored(parameters: Parameters, known: type) -> None:
    assert set(parameters) <= set(known.__annotations__)
    assert json.loads(json.dumps(parameters)) == parameters
