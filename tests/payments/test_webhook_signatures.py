"""Which deliveries are believed: by the bytes, the secret and the time."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import stripe

from payments.gateway import EventSnapshot, WebhookProblem, WebhookRefused
from payments.webhooks import TOLERANCE_SECONDS, verified

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECRET = "whsec_test"
PAYMENT_ID = UUID("8f3f4bd2-58a6-5d4c-9c53-0d0a3b7d3c11")
EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "payment_intent.succeeded",
    "created": int(NOW.timestamp()) - 7,
    "data": {
        "object": {
            "id": "pi_1",
            "object": "payment_intent",
            "customer": "cus_1",
            "metadata": {"payment_id": str(PAYMENT_ID), "environment": "test"},
        }
    },
}
BODY = json.dumps(EVENT, indent=2).encode()


def header(body: bytes = BODY, secret: str = SECRET, at: datetime = NOW) -> str:
    return str(stripe.WebhookSignature.generate_signature_header(body.decode(), secret, int(at.timestamp())))


def problem(body: bytes, signature: str | None, now: datetime = NOW) -> WebhookProblem:
    with pytest.raises(WebhookRefused) as refused:
        verified(body, signature, [SECRET], now)
    return refused.value.problem


def test_an_event_says_what_it_is_about_and_of_which_payment() -> None:
    assert verified(BODY, header(), [SECRET], NOW) == EventSnapshot(
        event_id="evt_1",
        type="payment_intent.succeeded",
        created_at=NOW - timedelta(seconds=7),
        object_id="pi_1",
        object_kind="payment_intent",
        payment_intent_id="pi_1",
        stripe_customer_id="cus_1",
        payment_id=PAYMENT_ID,
        environment="test",
        payload=EVENT,
    )


@pytest.mark.parametrize("intent", ["pi_1", {"id": "pi_1", "object": "payment_intent"}])
def test_what_happened_to_a_charge_is_about_its_intent(intent: object) -> None:
    charge = {"id": "ch_1", "object": "charge", "payment_intent": intent}
    body = json.dumps({**EVENT, "type": "charge.refunded", "data": {"object": charge}}).encode()

    event = verified(body, header(body), [SECRET], NOW)

    assert (event.object_kind, event.object_id, event.payment_intent_id) == ("charge", "ch_1", "pi_1")
    assert (event.payment_id, event.environment) == (None, None)


@pytest.mark.parametrize("off", [TOLERANCE_SECONDS, -TOLERANCE_SECONDS])
def test_the_time_may_be_off_by_five_minutes_either_way(off: int) -> None:
    assert verified(BODY, header(at=NOW + timedelta(seconds=off)), [SECRET], NOW).event_id == "evt_1"


@pytest.mark.parametrize(("off", "named"), [(301, WebhookProblem.FUTURE), (-301, WebhookProblem.STALE)])
def test_a_second_more_is_too_much(off: int, named: WebhookProblem) -> None:
    assert problem(BODY, header(at=NOW + timedelta(seconds=off))) == named


def test_a_wrong_secret_is_said_before_a_wrong_time() -> None:
    """Who does not know the secret learns nothing about our clock."""
    old = NOW - timedelta(days=1)

    assert problem(BODY, header(secret="whsec_other", at=old)) == WebhookProblem.SIGNATURE_WRONG


def test_any_of_several_secrets_will_do() -> None:
    assert [verified(BODY, header(secret=one), ["a", "b"], NOW).event_id for one in ("a", "b")] == ["evt_1", "evt_1"]


def test_two_times_in_one_header_are_refused() -> None:
    """Only one of them was signed; nothing says which."""
    fresh = f"t={int(NOW.timestamp())}"

    assert problem(BODY, f"{header(at=NOW - timedelta(days=1))},{fresh}") == WebhookProblem.SIGNATURE_WRONG


@pytest.mark.parametrize("created", ["soon", 10**30, None])
def test_an_event_of_no_time_is_no_event(created: object) -> None:
    body = json.dumps({**EVENT, "created": created}).encode()

    assert problem(body, header(body)) == WebhookProblem.NOT_AN_EVENT


def test_a_refusal_shows_neither_body_nor_secret() -> None:
    with pytest.raises(WebhookRefused) as refused:
        verified(BODY, header(secret="other"), [SECRET], NOW)

    assert "evt_1" not in str(refused.value)
    assert SECRET not in str(refused.value)
