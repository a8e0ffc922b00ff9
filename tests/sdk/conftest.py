from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk.support import Broker


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
