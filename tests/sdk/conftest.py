from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk.support import Broker
from tests.tls import HERE, self_signed


@pytest.fixture
def stopped_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that is down until the test starts it."""
    broker = Broker(tmp_path / "valkey")
    yield broker
    broker.kill()


@pytest.fixture
def broker(stopped_broker: Broker) -> Broker:
    stopped_broker.start()
    return stopped_broker


@pytest.fixture(params=[HERE])
def certificate(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What a broker shows over TLS: nobody vouches for it. A test may say for which address it is."""
    return self_signed(tmp_path, request.param)
