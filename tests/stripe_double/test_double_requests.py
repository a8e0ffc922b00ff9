"""What the double refuses before it executes anything, and where it serves."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from sandbox.stripe_double.launch import command, start
from sandbox.stripe_double.server import NotLoopback, bind

INTENT: Any = {"amount": 40000, "currency": "brl"}


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"payment_method_types": ["card"]}, "payment_method_types", "parameter_unknown"),
        ({"automatic_payment_methods": {"on": True}}, "automatic_payment_methods[on]", "parameter_unknown"),
        ({"amount": "4.00"}, "amount", "parameter_invalid_integer"),
        ({"amount": 10}, "amount", "amount_too_small"),
        ({"amount": 100_000_000}, "amount", "amount_too_large"),
        ({"description": ""}, "description", "parameter_invalid_empty"),
        ({"currency": "BRL"}, "currency", None),
        ({"customer": "cus_nobody"}, "customer", "resource_missing"),
        ({"statement_descriptor": "CENTAVO"}, "statement_descriptor", None),
        ({"off_session": True}, "off_session", None),
        ({"metadata": {"k": "v" * 501}}, "metadata", None),
        ({"expand": ["invoice"]}, "expand", None),
        (
            {"allowed_payment_method_types": ["card"], "automatic_payment_methods": {"enabled": True}},
            "allowed_payment_method_types",
            None,
        ),
    ],
)
def test_a_wrong_parameter_is_named(
    client: stripe.StripeClient, changes: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.create(INTENT | changes)

    assert (refusal.value.http_status, refusal.value.param, refusal.value.code) == (400, param, code)


def test_a_missing_parameter_is_named(client: stripe.StripeClient) -> None:
    without_currency: Any = {"amount": 40000}

    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.create(without_currency)

    assert (refusal.value.param, refusal.value.code) == ("currency", "parameter_missing")


def test_an_idempotency_key_among_the_parameters_is_an_unknown_parameter(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.create(INTENT | {"idempotency_key": "k"})

    assert (refusal.value.param, refusal.value.code) == ("idempotency_key", "parameter_unknown")


def test_what_does_not_exist_is_missing(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.retrieve("pi_nothing")

    assert (refusal.value.http_status, refusal.value.code) == (404, "resource_missing")


def test_another_api_version_is_refused(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match=r"2024-06-20.*speaks") as refusal:
        client.v1.payment_intents.create(INTENT, {"stripe_version": "2024-06-20"})

    assert refusal.value.http_status == 400


def test_a_missing_api_version_is_refused(http: requests.Session, url: str) -> None:
    answer = http.get(f"{url}/v1/customers", headers={"Authorization": "Bearer sk_test_double"})

    assert answer.status_code == 400


@pytest.mark.parametrize("key", ["sk_live_real", "nonsense"])
def test_any_key_but_a_test_key_is_refused(client: stripe.StripeClient, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError) as refusal:
        client.v1.payment_intents.create(INTENT, {"api_key": key})

    assert refusal.value.http_status == 401


def test_a_request_without_a_key_is_refused(http: requests.Session, url: str) -> None:
    assert http.get(f"{url}/v1/customers").status_code == 401


def test_an_unknown_url_is_answered_in_stripes_shape(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        client.v1.products.list()


def test_requests_are_counted_by_route_and_status(
    client: stripe.StripeClient, customer: str, http: requests.Session, url: str
) -> None:
    client.v1.customers.create({"name": "Bia"}, {"idempotency_key": "k"})
    client.v1.customers.create({"name": "Bia"}, {"idempotency_key": "k"})
    client.v1.customers.retrieve(customer)

    assert http.get(f"{url}/_double/requests").json() == {
        "total": 4,
        "by_route": {"POST /v1/customers": 3, "GET /v1/customers/{id}": 1},
        "by_status": {"200": 4},
        "replayed": {"POST /v1/customers": 1},
    }


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", ""])
def test_it_serves_on_loopback_only(host: str) -> None:
    with pytest.raises(NotLoopback, match="no loopback address"):
        bind(host)


def test_the_command_refuses_another_address(tmp_path: Path) -> None:
    asked = [*command(tmp_path / "ready"), "--host", "0.0.0.0"]

    ended = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)

    assert ended.returncode == 1
    assert "no loopback address" in ended.stderr
    assert not (tmp_path / "ready").exists()


def test_as_a_process_it_writes_its_address_when_it_serves_and_ends_on_sigterm(
    tmp_path: Path, http: requests.Session
) -> None:
    running = start(tmp_path / "ready")
    try:
        answer = http.get(f"{running.base_url}/_double/captured")
    finally:
        running.stop()

    assert answer.json() == {"payments": {}, "totals": {}}
    assert running.process.returncode == -signal.SIGTERM
    with pytest.raises(requests.ConnectionError):
        http.get(f"{running.base_url}/_double/captured")


def test_a_double_that_cannot_start_is_reported(tmp_path: Path) -> None:
    with bind() as taken, pytest.raises(RuntimeError, match="did not start"):
        start(tmp_path / "ready", port=taken.getsockname()[1])
