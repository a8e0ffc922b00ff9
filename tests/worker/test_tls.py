"""`rediss://`: from whom a worker takes what it charges."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from billing.errors import BrokerUnavailable
from centavo import Producer
from config.settings import settings
from sandbox.processes import await_condition
from sandbox.stack import Addresses, start_worker
from sandbox.valkey import ValkeyServer
from tasks.queues import depths
from tests.conftest import WorkerStarter
from tests.factories import a_customer, an_event, catalogues
from tests.tls import HERE, self_signed, tls_before
from tests.worker.support import Broker, await_charged

REFUSED = "certificate verify failed: self-signed certificate"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path)


@pytest.fixture
def address(valkey: ValkeyServer, certificate: Path, billing_database: str) -> Iterator[str]:
    """The broker's address over TLS; nobody vouches for what it shows."""
    del billing_database
    with tls_before(valkey.port, certificate) as port:
        yield f"rediss://{HERE}:{port}/0"


def test_a_worker_takes_nothing_from_a_broker_that_nobody_vouches_for(
    address: str, billing_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says why, and goes on asking. So does whoever looks at the queues."""
    env = Addresses(billing_database, address, "http://127.0.0.1:9").as_environment(tmp_path / "home")
    worker = start_worker("refusing", "usage", 1, env, tmp_path)
    try:
        await_condition(lambda: REFUSED in worker.log_file.read_text(), 30, "the refusal", log_file=worker.log_file)
        assert worker.alive
    finally:
        worker.kill()

    monkeypatch.setenv("CENTAVO_BROKER_URL", address)
    settings.cache_clear()
    with pytest.raises(BrokerUnavailable, match=REFUSED):
        depths()


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
