"""`rediss://`: whom a producer hands its usage to over TLS."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from centavo import Producer
from centavo.addresses import verified
from tests.sdk.support import Broker, event
from tests.tls import HERE, tls_before

ELSEWHERE = "192.0.2.1"


@pytest.fixture
def address(broker: Broker, certificate: Path) -> Iterator[str]:
    with tls_before(broker.port, certificate) as port:
        yield f"rediss://{HERE}:{port}/0"


@pytest.mark.parametrize("said", ["", "?", "?ssl_check_hostname=false", "?ssl_cert_reqs=", "#?ssl_cert_reqs=none"])
def test_a_broker_that_nobody_vouches_for_gets_no_usage(
    address: str, said: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever stands between could read it, and say that it had taken it. The log tells why it waits."""
    producer = Producer(address + said)
    producer.emit(event())

    assert producer.flush(2) == 1
    assert "certificate verify failed: self-signed certificate" in caplog.text
    assert producer.close(0) == 1
    assert broker.keys() == []


@pytest.mark.parametrize("said", ["?ssl_cert_reqs=none", "?ssl_ca_certs={}", "?ssl_cert_reqs=required&ssl_ca_certs={}"])
def test_a_broker_that_is_vouched_for_gets_it_or_one_that_need_not_be(
    address: str, said: str, certificate: Path, broker: Broker
) -> None:
    with Producer(address + said.format(certificate)) as producer:
        producer.emit(event())

        assert producer.flush(10) == 0
    assert len(broker.keys()) == 1


@pytest.mark.parametrize("certificate", [ELSEWHERE], indirect=True)
def test_a_certificate_of_another_host_is_refused(
    address: str, certificate: Path, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    producer = Producer(f"{address}?ssl_ca_certs={certificate}")
    producer.emit(event())

    assert producer.flush(2) == 1
    assert "certificate is not valid for '127.0.0.1'" in caplog.text
    assert producer.close(0) == 1
    assert broker.keys() == []


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("redis://a:1/0", "redis://a:1/0"),
        ("amqp://a:1//", "amqp://a:1//"),
        ("amqps://a:1//", "amqps://a:1//?ssl_cert_reqs=required"),
        ("REDISS://a/0", "REDISS://a/0?ssl_cert_reqs=required"),
        ("rediss://a/0?ssl_cert_reqs=none", "rediss://a/0?ssl_cert_reqs=none"),
        (
            "rediss://a/0?ssl_cert_reqs=none;rediss://b/0",
            "rediss://a/0?ssl_cert_reqs=none;rediss://b/0?ssl_cert_reqs=required",
        ),
    ],
)
def test_each_address_says_for_itself(said: str, meant: str) -> None:
    assert verified(said) == meant
    assert verified(meant) == meant
