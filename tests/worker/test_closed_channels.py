"""A child that is done when the connection of its message is gone: to the worker that is a broken connection."""

import logging
from typing import Any

import kombu
import pytest
import redis

from sandbox.valkey import ValkeyServer
from worker import frames

QUEUE = "usage"


@pytest.fixture
def taken(valkey: ValkeyServer) -> Any:
    """A message that was taken from the broker, over a connection that is closed since."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with kombu.Connection(valkey.url, transport=frames.CarefulTransport) as connection:
        with connection.Producer() as producer:
            producer.publish({"a": 1}, routing_key=QUEUE, declare=[kombu.Queue(QUEUE)])
        message = connection.default_channel.basic_get(QUEUE)
        channel = connection.default_channel
        connection.collect()
        channel._disconnect_pools()  # as a connection that breaks does
    return message


@pytest.mark.parametrize("finish", ["ack_log_error", "reject_log_error"])
def test_finishing_on_a_closed_channel_is_a_broken_connection(
    taken: Any, valkey: ValkeyServer, finish: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As Celery finishes: what is no error of the connection would end the worker."""
    with kombu.Connection(valkey.url) as connection:
        known = connection.connection_errors

    getattr(taken, finish)(logging.getLogger("finishing"), known)

    assert "this channel is closed" in caplog.text
    with redis.Redis.from_url(valkey.url) as client:
        assert client.llen(QUEUE) + client.hlen("unacked") == 1
