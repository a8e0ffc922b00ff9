"""What goes wrong between us and Stripe, and which of our errors it becomes."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from payments.gateway import (
    GatewayMisconfigured,
    GatewayRejected,
    GatewayUnavailable,
    IntentRequest,
)
from payments.stripe_gateway import StripeGateway
from sandbox.stripe_double.gate import Gate

IntentRequests = Callable[..., IntentRequest]
RawServer = Callable[..., str]


def impatient(url: str, retries: int = 0) -> StripeGateway:
    return StripeGateway("sk_test_double", url, network_retries_max=retries, timeout_seconds=(1.0, 0.3))


def answer(status: str, body: str, content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode()


def error_answer(status: str, **error: Any) -> bytes:
    return answer(status, json.dumps({"error": error}))


def unavailable(gateway: StripeGateway) -> tuple[str, bool]:
    with pytest.raises(GatewayUnavailable) as away:
        gateway.create_customer("Ana", {}, "customer")
    return away.value.reason, away.value.may_have_executed


def test_a_server_that_refuses_connections_has_executed_nothing(raw_server: RawServer) -> None:
    url = raw_server(b"")
    unavailable(impatient(url))

    assert unavailable(impatient(url)) == ("connection", False)


def test_a_dropped_connection_leaves_the_outcome_unknown(raw_server: RawServer) -> None:
    assert unavailable(impatient(raw_server(b""))) == ("connection", True)


def test_an_answer_that_does_not_come_in_time_leaves_the_outcome_unknown(url: str, gate: Gate) -> None:
    gate.close()
    outcome = unavailable(impatient(url))
    gate.open()

    assert outcome == ("connection", True)


def test_the_outcome_stays_unknown_when_a_later_try_is_refused(raw_server: RawServer) -> None:
    assert unavailable(impatient(raw_server(b""), retries=1)) == ("connection", True)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (error_answer("500 Error", type="api_error", message="no"), ("server_error", True)),
        (answer("502 Bad Gateway", "<html>no</html>", "text/html"), ("server_error", True)),
        (answer("200 OK", "<html>yes?</html>", "text/html"), ("server_error", True)),
        (error_answer("429 Slow", type="invalid_request_error", code="rate_limit"), ("rate_limited", False)),
        (error_answer("400 Slow", type="invalid_request_error", code="rate_limit"), ("rate_limited", False)),
    ],
    ids=["500", "html-502", "html-200", "429", "400-as-429"],
)
def test_an_answer_without_an_outcome_is_unavailable(
    raw_server: RawServer, sent: bytes, expected: tuple[str, bool]
) -> None:
    assert unavailable(impatient(raw_server(sent))) == expected


def test_a_dropped_try_before_a_rate_limit_leaves_the_outcome_unknown(raw_server: RawServer) -> None:
    limited = error_answer("429 Slow", type="invalid_request_error", code="rate_limit")

    assert unavailable(impatient(raw_server(b"", limited), retries=1)) == ("rate_limited", True)


def test_a_key_in_flight_is_in_progress(url: str, gate: Gate) -> None:
    gate.close()
    patient = StripeGateway("sk_test_double", url)
    made: list[str] = []
    first = threading.Thread(target=lambda: made.append(patient.create_customer("Ana", {}, "customer")))
    first.start()
    gate.wait_until_reached()

    in_flight = unavailable(impatient(url))
    gate.open()
    first.join()

    assert in_flight == ("in_progress", True)
    assert made == [impatient(url).create_customer("Ana", {}, "customer")]


def test_a_locked_intent_is_in_progress(
    gateway: StripeGateway, requested: IntentRequests, url: str, gate: Gate
) -> None:
    intent_id = gateway.create_intent(requested(), "create").stripe_payment_intent_id
    gate.close()
    confirming = threading.Thread(target=gateway.confirm_intent, args=(intent_id, "pm_card_visa", "confirm:1"))
    confirming.start()
    gate.wait_until_reached()

    with pytest.raises(GatewayUnavailable) as locked:
        impatient(url).cancel_intent(intent_id, "cancel")
    gate.open()
    confirming.join()

    assert (locked.value.reason, locked.value.may_have_executed) == ("in_progress", False)
    assert gateway.retrieve_intent(intent_id).status == "succeeded"


def test_a_refused_key_is_our_outage(url: str) -> None:
    with pytest.raises(GatewayMisconfigured, match="check the secret key"):
        StripeGateway("sk_live_nobody", url).retrieve_intent("pi_any")


def test_a_forbidden_call_is_our_outage(raw_server: RawServer) -> None:
    forbidden = error_answer("403 Forbidden", type="invalid_request_error", message="not yours")

    with pytest.raises(GatewayMisconfigured, match="not yours"):
        impatient(raw_server(forbidden)).retrieve_intent("pi_any")


def test_a_wrong_request_is_rejected_with_what_stripe_says(gateway: StripeGateway, requested: IntentRequests) -> None:
    with pytest.raises(GatewayRejected, match="at least 50") as rejected:
        gateway.create_intent(requested(amount_minor=1), "create")

    assert (rejected.value.stripe_code, rejected.value.param) == ("amount_too_small", "amount")


def test_a_missing_intent_is_rejected(gateway: StripeGateway) -> None:
    with pytest.raises(GatewayRejected) as rejected:
        gateway.retrieve_intent("pi_nothing")

    assert rejected.value.stripe_code == "resource_missing"


def test_a_decline_stands_though_its_charge_can_not_be_looked_at(raw_server: RawServer) -> None:
    intent = {"id": "pi_1", "status": "requires_payment_method", "amount": 1, "currency": "brl"}
    declined = error_answer(
        "402 Declined",
        type="card_error",
        code="card_declined",
        decline_code="lost_card",
        advice_code="do_not_try_again",
        network_advice_code="03",
        charge="ch_1",
        payment_intent={**intent, "object": "payment_intent", "latest_charge": "ch_1", "metadata": {}},
    )

    snapshot = impatient(raw_server(declined)).confirm_intent("pi_1", "pm_1", "confirm:1")

    assert snapshot.latest_charge_id == "ch_1"
    assert snapshot.decline is not None
    assert (snapshot.decline.decline_code, snapshot.decline.outcome_reason) == ("lost_card", None)
    assert (snapshot.decline.advice_code, snapshot.decline.network_advice_code) == ("do_not_try_again", "03")
