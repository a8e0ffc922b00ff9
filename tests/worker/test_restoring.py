"""Who puts back what a killed worker had, and what keeps it from doing so: on Redis, workers do it themselves."""

import time
from contextlib import closing
from typing import Any

import kombu
import pytest
import redis

from sandbox.valkey import ValkeyServer
from tests.worker.support import QUEUE
from worker import frames


def test_a_worker_killed_while_it_puts_messages_back_holds_nobody_up_for_long(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that it would leave behind ends by itself, within seconds."""
    careful = kombu.Connection(valkey.url, transport=frames.CarefulTransport)
    with careful as connection, closing(redis.Redis.from_url(valkey.url)) as client:
        client.flushall()
        channel = connection.default_channel
        queue = kombu.Queue(QUEUE, exchange=kombu.Exchange(""))
        connection.Producer().publish({}, exchange="", routing_key=QUEUE, declare=[queue])
        message = channel.basic_get(QUEUE)
        client.zadd("unacked_index", {message.delivery_tag: time.time() - 86_400})
        ends_in_ms = []
        restore_by_tag = channel.qos.restore_by_tag

        def restore(*told: Any, **named: Any) -> None:
            ends_in_ms.append(client.pttl("unacked_mutex"))
            restore_by_tag(*told, **named)

        monkeypatch.setattr(channel.qos, "restore_by_tag", restore)
        channel.qos.restore_visible(interval=1)

        assert client.llen(QUEUE) == 1
        assert 0 < ends_in_ms[0] <= frames.RESTORING_SECONDS_MAX * 1000
