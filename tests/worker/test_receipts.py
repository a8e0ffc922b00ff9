"""Every event is charged exactly once although the broker loses messages: a real producer, broker and worker."""

import base64
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from centavo import Producer
from sandbox.processes import await_condition
from tests.conftest import WorkerStarter
from tests.factories import a_customer, an_envelope, an_event, catalogues
from tests.looking import one
from tests.worker.support import Broker, body_of, charged, nothing_is_left, task_headers

pytestmark = pytest.mark.faults

RECEIPTS = "centavo.receipts."


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    catalogues()
    a_customer("ana", credit="100")


@pytest.fixture
def server(broker: str) -> Iterator[redis.Redis]:
    client: redis.Redis = redis.Redis.from_url(broker)
    yield client
    client.close()


def emitting(broker: str, **options: Any) -> Producer:
    """A producer that loses patience soon, with ten events in an envelope."""
    return Producer(broker, **{"envelope_events_max": 10, "resend_seconds": 1.0, **options})


def emit(producer: Producer, number: int) -> None:
    for _ in range(number):
        producer.emit(an_event("ana"))
    assert producer.flush(10) == 0


def start(start_a_worker: WorkerStarter) -> Any:
    return start_a_worker(queues="usage", CENTAVO_VISIBILITY_TIMEOUT_SECONDS="1")


def test_a_producer_learns_that_its_events_are_charged(
    start_a_worker: WorkerStarter, broker: str, server: redis.Redis
) -> None:
    start(start_a_worker)
    with emitting(broker, resend_seconds=600) as producer:
        emit(producer, 25)
        producer.emit(an_event("nobody we know"))

        assert producer.flush(20, received=True) == 0
        counters = producer.counters

    assert (counters.received, counters.unreceipted, counters.resent) == (26, 0, 0)
    assert charged("ana") == 25
    assert server.keys(f"{RECEIPTS}*") == []


def test_envelopes_that_were_gathered_have_a_receipt_each(start_a_worker: WorkerStarter, broker: str) -> None:
    with emitting(broker, envelope_events_max=1, resend_seconds=600) as producer:
        emit(producer, 25)
        start(start_a_worker)

        assert producer.flush(20, received=True) == 0
        counters = producer.counters

    assert (counters.received, counters.unreceipted, counters.resent) == (25, 0, 0)
    assert charged("ana") == 25
    assert one("SELECT count(DISTINCT charged_at) < 25 FROM usage_events") == (True,)


def test_receipts_that_nobody_takes_expire(
    start_a_worker: WorkerStarter, producer: Broker, server: redis.Redis
) -> None:
    queue = f"{RECEIPTS}{uuid.uuid4()}"
    headers = task_headers()
    start(start_a_worker)

    producer.publish(body_of(an_envelope(an_event("ana")).decode()), headers, reply_to=queue)

    await_condition(lambda: server.llen(queue) == 1, 30, "a receipt")
    assert 0 < server.ttl(queue) <= 3600
    item = server.rpop(queue)
    assert isinstance(item, bytes)
    assert json.loads(base64.b64decode(json.loads(item)["body"])) == {"v": 1, "ids": [headers["id"]]}


@pytest.mark.parametrize("named", ["", "payments", f"{RECEIPTS}../usage", "centavo.receipts"])
def test_no_message_makes_a_worker_write_elsewhere(
    start_a_worker: WorkerStarter, producer: Broker, server: redis.Redis, named: str
) -> None:
    """Those of producers that know of no receipts name none."""
    start(start_a_worker)
    known = f"{RECEIPTS}{uuid.uuid4()}"

    producer.publish(body_of(an_envelope(an_event("ana")).decode()), task_headers(), reply_to=named)
    producer.publish(body_of(an_envelope(an_event("ana")).decode()), task_headers(), reply_to=known)

    await_condition(lambda: server.llen(known) == 1, 30, "the receipt of the second")
    producer.await_drained()
    assert charged("ana") == 2
    assert not named or server.exists(named) == 0


def test_a_receipt_that_cannot_be_sent_harms_nobody(
    start_a_worker: WorkerStarter, producer: Broker, server: redis.Redis
) -> None:
    queue = f"{RECEIPTS}{uuid.uuid4()}"
    server.set(queue, "no list")
    start(start_a_worker)

    for _ in range(3):
        producer.publish(body_of(an_envelope(an_event("ana")).decode()), task_headers(), reply_to=queue)

    producer.await_drained()
    assert charged("ana") == 3
    assert nothing_is_left()


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_a_wiped_broker_lost_is_charged_once(
    start_a_worker: WorkerStarter, broker: str, server: redis.Redis, tmp_path: Path, on_disk: bool
) -> None:
    """Nothing else is emitted, and nothing tells the producer but the silence."""
    with emitting(broker, journal=tmp_path / "journal" if on_disk else None) as producer:
        emit(producer, 50)
        server.flushall()

        start(start_a_worker)

        assert producer.flush(40, received=True) == 0
        assert producer.counters.resent >= 5
    assert charged("ana") == 50
    assert nothing_is_left()


def test_what_a_worker_had_taken_and_not_noted_when_it_was_killed_is_charged_once(
    start_a_worker: WorkerStarter, broker: str
) -> None:
    taking = "import os, redis, signal, sys; redis.Redis.from_url(sys.argv[1]).brpop('usage'); os.kill(0, 0)"
    taking = taking.replace("os.kill(0, 0)", "os.kill(os.getpid(), signal.SIGKILL)")
    with emitting(broker) as producer:
        emit(producer, 30)
        killed = subprocess.run([sys.executable, "-c", taking, broker], check=False)
        assert killed.returncode == -signal.SIGKILL

        start(start_a_worker)

        assert producer.flush(40, received=True) == 0
    assert charged("ana") == 30


def test_envelopes_whose_receipts_are_lost_are_sent_again_and_charged_once(
    start_a_worker: WorkerStarter, broker: str, server: redis.Redis
) -> None:
    with emitting(broker) as producer:
        emit(producer, 30)
        for _ in range(3):
            item = server.rpop("usage")
            assert isinstance(item, bytes)
            message = json.loads(item)
            message["properties"]["reply_to"] = f"{RECEIPTS}{uuid.uuid4()}"  # goes astray
            server.lpush("usage", json.dumps(message))

        start(start_a_worker)

        assert producer.flush(40, received=True) == 0
        assert producer.counters.resent >= 3
    assert charged("ana") == 30
    assert nothing_is_left()


def test_a_killed_producers_journal_is_charged_once_whatever_was_sent_already(
    start_a_worker: WorkerStarter, broker: str, tmp_path: Path
) -> None:
    program = """
import os, signal, sys
from centavo import Producer
from tests.factories import an_event
producer = Producer(sys.argv[1], journal=sys.argv[2], envelope_events_max=10, linger_seconds=3600)
for number in range(47):
    producer.emit(an_event("ana"))
while producer.counters.published < 40:
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    ran = subprocess.run([sys.executable, "-c", program, broker, str(tmp_path / "journal")], check=False)
    assert ran.returncode == -signal.SIGKILL
    start(start_a_worker)

    with emitting(broker, journal=tmp_path / "journal") as producer:
        emit(producer, 3)
        assert producer.flush(40, received=True) == 0
        assert producer.counters.adopted == 47

    await_condition(lambda: charged("ana") >= 50, 30, "all events")
    assert charged("ana") == 50
    assert list((tmp_path / "journal").iterdir()) == []
