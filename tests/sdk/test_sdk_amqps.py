"""`amqps://`: whom a producer hands its usage to over TLS, where the broker is RabbitMQ."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest

from centavo import Producer
from centavo.amqps import BrokerConnection, CheckedTransport
from sandbox.rabbitmq import RabbitMQServer
from tests.sdk.support import event
from tests.tls import HERE, tls_before

ELSEWHERE = "192.0.2.1"
QUEUE = "over-tls"


@pytest.fixture
def address(rabbitmq: RabbitMQServer, certificate: Path) -> Iterator[str]:
    """The broker's address over TLS; it has the queue."""
    with kombu.Connection(rabbitmq.url) as connection, connection.SimpleQueue(QUEUE) as queue:
        queue.clear()
    with tls_before(rabbitmq.port, certificate) as port:
        yield f"amqps://guest:guest@{HERE}:{port}//"


def unsent(address: str) -> int:
    """How much of one event a broker of this address did not take."""
    producer = Producer(address, queue=QUEUE)
    producer.emit(event())
    try:
        return producer.flush(5)
    finally:
        producer.close(0)


@pytest.mark.parametrize("said", ["", "?ssl_check_hostname=false", "?ssl_cert_reqs=required", "#?ssl_cert_reqs=none"])
def test_a_broker_that_nobody_vouches_for_gets_no_usage(
    address: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert unsent(address + said) == 1
    assert "certificate verify failed: self-signed certificate" in caplog.text


@pytest.mark.parametrize("said", ["?ssl_ca_certs={}", "?ssl_cert_reqs=none"])
def test_a_broker_that_is_vouched_for_gets_it_or_one_that_need_not_be(
    address: str, said: str, certificate: Path
) -> None:
    assert unsent(address + said.format(certificate)) == 0


@pytest.mark.parametrize("certificate", [ELSEWHERE], indirect=True)
def test_a_certificate_of_another_host_is_refused_unless_it_may_be(
    address: str, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert unsent(f"{address}?ssl_ca_certs={certificate}") == 1
    assert "certificate is not valid for '127.0.0.1'" in caplog.text

    assert unsent(f"{address}?ssl_ca_certs={certificate}&ssl_check_hostname=false") == 0


def test_an_application_may_mean_something_else_by_such_an_address() -> None:
    """It may have other brokers, and other ways to trust them."""
    program = "import kombu, centavo.publisher; print(kombu.Connection('amqps://a:1//').get_transport_cls().__name__)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "SSLTransport"
    assert BrokerConnection("amqps://a:1//").get_transport_cls() is CheckedTransport
