"""Our gateway on Stripe's real library, against a double of its own for each test."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
import requests

from payments.gateway import IntentRequest
from payments.stripe_gateway import StripeGateway
from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.gate import Gate
from sandbox.stripe_double.server import bind, served

KEY = "sk_test_double"
IntentRequests = Callable[..., IntentRequest]
RawServer = Callable[..., str]


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
def gateway(url: str) -> StripeGateway:
    return StripeGateway(KEY, url)


@pytest.fixture
def look(url: str) -> Iterator[Callable[[str], Any]]:
    """What the double shows at a path, as plain JSON."""
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update({"Authorization": f"Bearer {KEY}", "Stripe-Version": "2026-10-28.endive"})
        yield lambda path: session.get(f"{url}{path}", timeout=15).json()


@pytest.fixture
def customer(gateway: StripeGateway) -> str:
    return gateway.create_customer("Ana", {"customer_id": "ana"}, "customer:ana")


@pytest.fixture
def requested(customer: str) -> IntentRequests:
    """Makes requests for 400.00 BRL, each for a payment of its own unless told otherwise."""
    tier = IntentRequest(
        payment_id=uuid4(),
        amount_minor=40000,
        currency="BRL",
        stripe_customer_id=customer,
        statement_descriptor_suffix="TIER 1",
        description="Tier 1 of November 2026",
        kind="tier",
        period="2026-11-01",
        tier=1,
        environment="test",
    )
    return lambda **changes: replace(tier, **{"payment_id": uuid4(), **changes})


@pytest.fixture
def raw_server() -> Iterator[RawServer]:
    """Serves the given bytes, one connection each, then refuses; empty bytes hang up without an answer."""
    with ExitStack() as stack:

        def serve(*answers: bytes) -> str:
            listening = bind()
            thread = threading.Thread(target=_answer_each, args=(listening, answers))
            thread.start()
            stack.callback(thread.join)
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield serve


def _answer_each(listening: socket.socket, answers: tuple[bytes, ...]) -> None:
    with listening:
        for position, answer in enumerate(answers):
            connection, _ = listening.accept()
            if position == len(answers) - 1:
                listening.close()  # before the answer, so that the next try is refused
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
