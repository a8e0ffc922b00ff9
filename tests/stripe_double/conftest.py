"""A double of its own for each test, and Stripe's real library to talk to it."""

from collections.abc import Iterator

import pytest
import requests
import stripe

from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.control import DoubleControl
from sandbox.stripe_double.gate import Gate
from sandbox.stripe_double.server import served
from tests.stripe_double.receiver import SECRET, Receiver, receiving

KEY = "sk_test_double"


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Open; a test that closes it holds every POST just before it executes."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def url(gate: Gate) -> Iterator[str]:
    with served(StripeDouble(before_execution=gate)) as base_url:
        yield base_url


@pytest.fixture
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def client(url: str, http: requests.Session) -> stripe.StripeClient:
    """Without retries of its own, so that a test sees each answer."""
    transport = stripe.RequestsClient(timeout=15, session=http)
    return stripe.StripeClient(KEY, http_client=transport, base_addresses={"api": url}, max_network_retries=0)


@pytest.fixture
def customer(client: stripe.StripeClient) -> str:
    return client.v1.customers.create({"name": "Ana"}).id


@pytest.fixture
def intent(client: stripe.StripeClient, customer: str) -> str:
    """An unconfirmed intent of 400.00 BRL for the payment `p-1`."""
    return client.v1.payment_intents.create(
        {
            "amount": 40000,
            "currency": "brl",
            "customer": customer,
            "allowed_payment_method_types": ["card"],
            "metadata": {"payment_id": "p-1"},
        }
    ).id


@pytest.fixture
def control(url: str) -> DoubleControl:
    return DoubleControl(url)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook endpoint that nobody knows yet."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def listening(control: DoubleControl, receiver: Receiver) -> Receiver:
    """A webhook endpoint that is told of everything, after the answer."""
    control.set_webhooks(receiver.url, SECRET)
    return receiver
