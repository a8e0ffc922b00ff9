"""`rediss://` and `amqps://`: from whom a worker takes what it charges."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from billing.errors import BrokerUnavailable
from centavo import Producer
from config.settings import settings
from sandbox.processes import await_condition
from sandbox.rabbitmq import RabbitMQServer
from sandbox.stack import Addresses, start_worker
from sandbox.valkey import ValkeyServer
from tasks.queues import depths
from tests.conftest import WorkerStarter, emptied
from tests.factories import a_customer, an_event, catalogues
from tests.tls import HERE, self_signed, tls_before
from tests.worker.support import Broker, await_charged


@pytest.fixture(params=[HERE])
def certificate(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A test may say for which address it is."""
    return self_signed(tmp_path, request.param)


@pytest.fixture
def address(valkey: ValkeyServer, certificate: Path, billing_database: str) -> Iterator[str]:
    """The broker's address over TLS; nobody vouches for what it shows."""
    del billing_database
    with tls_before(valkey.port, certificate) as port:
        yield f"rediss://{HERE}:{port}/0"


Refusing = Callable[[str, str], None]


@pytest.fixture
def is_refused(billing_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refusing:
    """A worker refuses the broker of an address, says why, and goes on asking. So does whoever looks at the queues."""

    def story(address: str, why: str) -> None:
        env = Addresses(billing_database, address, "http://127.0.0.1:9").as_environment(tmp_path / "home")
        worker = start_worker("refusing", "usage", 1, env, tmp_path)
        try:
            await_condition(lambda: why in worker.log_file.read_text(), 30, "the refusal", log_file=worker.log_file)
            assert worker.alive
        finally:
            worker.kill()

        monkeypatch.setenv("CENTAVO_BROKER_URL", address)
        settings.cache_clear()
        with pytest.raises(BrokerUnavailable, match=why):
            depths()

    return story


def test_a_worker_takes_nothing_from_a_broker_that_nobody_vouches_for(address: str, is_refused: Refusing) -> None:
    is_refused(address, "certificate verify failed: self-signed certificate")


@pytest.mark.parametrize("said", ["?ssl_cert_reqs=none", "?ssl_ca_certs={}"])
def test_usage_travels_over_tls(
    address: str, said: str, certificate: Path, start_a_worker: WorkerStarter, producer: Broker
) -> None:
    """And so do receipts."""
    catalogues()
    a_customer("ana", credit="10")
    told = address + said.format(certificate)
    start_a_worker(CENTAVO_BROKER_URL=told)

    with Producer(told) as emitting:
        emitting.emit(an_event("ana"))

        assert emitting.flush(20, received=True) == 0
    await_charged("ana", 1)
    producer.await_drained()


@pytest.fixture
def amqps(rabbitmq: RabbitMQServer, certificate: Path, billing_database: str) -> Iterator[str]:
    """The address of RabbitMQ over TLS, which knows our queues."""
    del billing_database
    emptied(rabbitmq)
    with tls_before(rabbitmq.port, certificate) as port:
        yield f"amqps://guest:guest@{HERE}:{port}//?ssl_ca_certs={certificate}"


def test_usage_travels_over_tls_by_rabbitmq(amqps: str, start_a_worker: WorkerStarter) -> None:
    """And so do receipts; whoever looks at the queues sees them."""
    catalogues()
    a_customer("ana", credit="10")
    start_a_worker(CENTAVO_BROKER_URL=amqps)

    with Producer(amqps) as emitting:
        emitting.emit(an_event("ana"))

        assert emitting.flush(20, received=True) == 0
    await_charged("ana", 1)


@pytest.mark.parametrize("certificate", ["192.0.2.1"], indirect=True)
def test_a_certificate_of_another_host_is_refused(amqps: str, is_refused: Refusing) -> None:
    """As with Redis."""
    is_refused(amqps, "certificate is not valid for '127.0.0.1'")
