"""Who puts back what a killed worker had, and what keeps it from doing so: on Redis, workers do it themselves."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import kombu
import pytest
import redis
from kombu.transport.redis import Transport as OrdinaryTransport

from sandbox.valkey import ValkeyServer
from tasks import queues
from tests.conftest import WorkerStarter
from tests.factories import a_customer, an_envelope, an_event, catalogues
from tests.worker.support import QUEUE, Broker, await_charged, body_of, nothing_is_left, task_headers, wallets_locked
from worker import frames

#: kombu's own names, which every Celery application uses that does not choose others.
ORDINARY, ORDINARY_INDEX = "unacked", "unacked_index"
DAY_SECONDS = 86_400


def test_a_worker_killed_while_it_puts_messages_back_holds_nobody_up_for_long(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock that it would leave behind ends by itself, within seconds."""
    careful = kombu.Connection(valkey.url, transport=frames.CarefulTransport, transport_options=queues.UNACKED_KEYS)
    with careful as connection, closing(redis.Redis.from_url(valkey.url)) as client:
        client.flushall()
        channel = connection.default_channel
        queue = kombu.Queue(QUEUE, exchange=kombu.Exchange(""))
        connection.Producer().publish({}, exchange="", routing_key=QUEUE, declare=[queue])
        message = channel.basic_get(QUEUE)
        client.zadd(queues.UNACKED_KEYS["unacked_index_key"], {message.delivery_tag: time.time() - DAY_SECONDS})
        ends_in_ms = []
        restore_by_tag = channel.qos.restore_by_tag

        def restore(*told: Any, **named: Any) -> None:
            ends_in_ms.append(client.pttl(queues.UNACKED_KEYS["unacked_mutex_key"]))
            restore_by_tag(*told, **named)

        monkeypatch.setattr(channel.qos, "restore_by_tag", restore)
        channel.qos.restore_visible(interval=1)

        assert client.llen(QUEUE) == 1
        assert 0 < ends_in_ms[0] <= frames.RESTORING_SECONDS_MAX * 1000


@contextmanager
def taken_by_another(url: str, body: bytes, headers: dict[str, Any], queue: str) -> Iterator[kombu.Connection]:
    """Another program of this Redis has taken a message from its queue, a day ago, and has not acknowledged it."""
    with kombu.Connection(url, transport=OrdinaryTransport) as connection, redis.Redis.from_url(url) as client:
        said = {"content_type": "application/json", "content_encoding": "utf-8"}
        connection.Producer().publish(body, exchange="", routing_key=queue, headers=headers, **said)
        tag = connection.default_channel.basic_get(queue).delivery_tag
        client.zadd(ORDINARY_INDEX, {tag: time.time() - DAY_SECONDS})
        yield connection


@pytest.fixture
def ana(billing_database: str) -> str:
    del billing_database
    catalogues()
    return a_customer("ana", credit="10")


def test_what_an_earlier_release_had_taken_comes_back_and_what_another_application_has_taken_does_not(
    start_a_worker: WorkerStarter, producer: Broker, ana: str
) -> None:
    """Both lie under the same keys of Redis. The other application's may be due in hours, and only it knows that."""
    envelope, foreign = body_of(an_envelope(an_event(ana)).decode()), {**task_headers(), "task": "shop.remind"}
    with taken_by_another(producer.url, envelope, task_headers(), QUEUE) as earlier_release:
        earlier_release.default_channel.do_restore = False  # it is killed, and gives nothing back
    elsewhere = taken_by_another(producer.url, body_of(1), foreign, "emails")
    under_our_name = taken_by_another(producer.url, body_of(2), foreign, "payments")
    with elsewhere, under_our_name, redis.Redis.from_url(producer.url) as client:
        assert client.hlen(ORDINARY) == 3
        start_a_worker()
        await_charged(ana, 1)
        producer.await_drained()

        assert (client.llen("emails"), client.llen("payments")) == (0, 0)
        assert (client.hlen(ORDINARY), client.zcard(ORDINARY_INDEX)) == (2, 2)
        assert nothing_is_left()


def test_what_another_application_takes_while_a_worker_runs_is_left_to_it(
    start_a_worker: WorkerStarter, producer: Broker, ana: str, billing_database: str
) -> None:
    """The worker puts back what a killed one of its own kind had meanwhile."""
    worker = start_a_worker(CENTAVO_VISIBILITY_TIMEOUT_SECONDS="1")
    foreign = taken_by_another(producer.url, body_of(1), {**task_headers(), "task": "shop.remind"}, "emails")
    with foreign, redis.Redis.from_url(producer.url) as client:
        with wallets_locked(billing_database):
            producer.send(an_envelope(an_event(ana)))
            producer.await_taken(1, worker)
            worker.kill()
        start_a_worker(CENTAVO_VISIBILITY_TIMEOUT_SECONDS="1", name="successor")
        await_charged(ana, 1)
        producer.await_drained()

        assert client.llen("emails") == 0
        assert (client.hlen(ORDINARY), client.zcard(ORDINARY_INDEX)) == (1, 1)


def test_another_application_does_not_put_back_what_a_worker_has_taken(
    start_a_worker: WorkerStarter, producer: Broker, ana: str, billing_database: str
) -> None:
    """However short its visibility timeout is."""
    worker = start_a_worker(CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")
    options = {"visibility_timeout": 0}
    shop = kombu.Connection(producer.url, transport=OrdinaryTransport, transport_options=options)
    with shop, wallets_locked(billing_database):
        producer.send(an_envelope(an_event(ana)))
        producer.await_taken(1, worker)

        shop.default_channel.qos.restore_visible(num=None, interval=1)

        assert (producer.waiting, producer.unacknowledged) == (0, 1)
    producer.await_drained()
    await_charged(ana, 1)
