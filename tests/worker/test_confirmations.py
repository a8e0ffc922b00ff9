"""A worker that publishes to RabbitMQ waits for its word, and not without end."""

import kombu
import pytest

from sandbox.process_tree import descendants
from sandbox.rabbitmq import RabbitMQServer
from tests.conftest import emptied
from worker import rabbitmq as transports


def test_a_broker_that_hangs_is_not_waited_for_without_end(
    rabbitmq: RabbitMQServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publication fails, and whoever made it makes it again."""
    monkeypatch.setattr(transports, "CONFIRM_SECONDS_MAX", 0.3)
    emptied(rabbitmq)
    careful = {"transport": transports.CarefulTransport, "transport_options": {"confirm_publish": True}}
    (beam,) = [below for below in descendants(rabbitmq.process.pid) if below.name() == "beam.smp"]
    with kombu.Connection(rabbitmq.url, **careful) as connection:
        producer = connection.Producer()
        producer.publish("first", routing_key="usage")
        beam.suspend()
        try:
            with pytest.raises(TimeoutError):
                producer.publish("second", routing_key="usage")
        finally:
            beam.resume()

    assert rabbitmq.running
