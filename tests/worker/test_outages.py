"""Servers that go away under a running worker: it waits, parks nothing, loses nothing, and goes on.

Each test has a Postgres of its own to stop, and those that stop their broker have one of their own.
"""

import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psutil
import pytest
import redis

from centavo import Producer
from db import session
from sandbox.postgres import PostgresServer
from sandbox.processes import ManagedProcess, await_condition
from sandbox.rabbitmq import RabbitMQServer, rabbitmq_missing
from sandbox.valkey import ValkeyServer
from tests.conftest import WorkerStarter
from tests.factories import a_customer, an_envelope, an_event, catalogues
from tests.looking import wallet
from tests.worker.conftest import copied
from tests.worker.support import (
    Broker,
    await_charged,
    charged,
    children,
    nothing_is_left,
    waits,
    waits_for_a_lock,
    wallets_locked,
)

pytestmark = pytest.mark.faults

#: Two children's tries are 0.1, 0.2, 0.4, 0.8, 1.6 and then 3 s apart, each with up to a second more. Ten are
#: a wait of four seconds or so.
WAIT = 10


@pytest.fixture
def postgres(cluster_at_rest: Path) -> Iterator[PostgresServer]:
    """A server of the test's own, in a folder that the user it runs as may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="centavo-test-"))
    folder.chmod(0o711)
    server = PostgresServer(copied(cluster_at_rest, folder / "pg"))
    server.start()
    yield server
    server.start()
    server.destroy()
    shutil.rmtree(folder)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server of the test's own."""
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def rabbitmq_to_kill(tmp_path: Path) -> Iterator[RabbitMQServer]:
    """A server of the test's own; the others are quicker with the one that all share."""
    if why := rabbitmq_missing():
        pytest.skip(why)
    with RabbitMQServer(tmp_path / "rabbitmq") as server:
        yield server


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    """A customer with credit."""
    catalogues()
    a_customer("ana", credit="100")
    session.close()  # this process holds no connection that could break


@pytest.mark.parametrize(
    ("broker_kind", "visibility_timeout_seconds", "away_seconds"),
    [("valkey", 2, 20.0), ("valkey", 300, 3.0), ("rabbitmq", 300, 3.0)],
)
def test_postgres_away_in_the_middle(
    start_a_worker: WorkerStarter,
    producer: Broker,
    postgres: PostgresServer,
    billing_database: str,
    visibility_timeout_seconds: int,
    away_seconds: float,
) -> None:
    """It crashes, and stays away: the worker waits, nothing is parked, nothing is lost, all is charged.

    Also where the wait is so long that the broker hands out again what is still being waited over.
    """
    worker = start_a_worker(children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS=str(visibility_timeout_seconds))
    pool = children(worker)
    producer.send(an_envelope(*[an_event("ana") for _ in range(20)]))
    await_charged("ana", 20)

    with wallets_locked(billing_database):
        producer.send(*[an_envelope(*[an_event("ana") for _ in range(50)]) for _ in range(39)])
        await_condition(lambda: waits_for_a_lock(billing_database), 30, "a transaction to be in the middle")
        postgres.stop("immediate")
        stopped = time.monotonic()
    await_condition(
        lambda: waits(worker) >= WAIT and time.monotonic() - stopped >= away_seconds,
        40,
        "the children to have waited long",
        log_file=worker.log_file,
    )
    postgres.start()

    producer.await_drained()
    assert charged("ana") == 1970
    assert wallet("ana") == Decimal("40.9")
    assert children(worker) == pool
    assert nothing_is_left()


def test_a_worker_told_to_stop_while_it_waits_stops_and_gives_back(
    start_a_worker: WorkerStarter, producer: Broker, postgres: PostgresServer
) -> None:
    """SIGTERM, with Postgres away: within ten seconds, and every message is there for the next worker."""
    worker = start_a_worker(children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")
    postgres.stop("immediate")
    producer.send(*[an_envelope(*[an_event("ana") for _ in range(5)]) for _ in range(12)])
    await_condition(lambda: waits(worker) >= 6, 30, "the children to wait")

    worker.send_signal(signal.SIGTERM)
    exit_code = worker.wait(10)
    given_back = (producer.waiting, producer.unacknowledged)
    postgres.start()
    start_a_worker(name="second", CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")

    producer.await_drained()
    assert exit_code == 0
    assert given_back == (12, 0)
    assert charged("ana") == 60
    assert nothing_is_left()


def test_a_child_killed_while_it_waits_for_postgres_loses_nothing(
    start_a_worker: WorkerStarter, producer: Broker, postgres: PostgresServer
) -> None:
    """The next child takes the envelope and waits in its turn."""
    worker = start_a_worker(CENTAVO_VISIBILITY_TIMEOUT_SECONDS="300")
    postgres.stop("immediate")
    producer.send(an_envelope(*[an_event("ana") for _ in range(5)]))
    for killed in range(3):
        seen = waits(worker)
        await_condition(lambda seen=seen: waits(worker) > seen, 30, "a child to wait")  # type: ignore[misc]
        (child,) = children(worker)
        psutil.Process(child).kill()
        await_condition(lambda child=child: children(worker) not in ([], [child]), 30, f"child {killed} to be replaced")  # type: ignore[misc]
    postgres.start()

    producer.await_drained()
    assert charged("ana") == 5
    assert nothing_is_left()


@pytest.mark.parametrize("broker_kind", ["valkey", "rabbitmq_to_kill"])
def test_the_broker_away_in_the_middle(
    start_a_worker: WorkerStarter,
    producer: Broker,
    broker_server: ValkeyServer | RabbitMQServer,
    billing_database: str,
) -> None:
    """It crashes while the worker has its hands full, and can't be told what is done: all goes on when it is back.

    Also for who emits meanwhile. However long it is away, the worker looks for it every second at least.
    """
    worker = start_a_worker(children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS="2")
    with wallets_locked(billing_database):
        producer.send(*[an_envelope(*[an_event("ana") for _ in range(20)]) for _ in range(50)])
        producer.await_taken(8, worker)
        broker_server.kill()
    await_condition(lambda: charged("ana") >= 40, 30, "both children to be done", log_file=worker.log_file)
    await_condition(lambda: has_noticed(worker), 30, "the worker to notice", log_file=worker.log_file)
    with Producer(producer.url) as emitting:
        for _ in range(100):
            emitting.emit(an_event("ana"))
        await_condition(lambda: emitting.counters.failures > 0, 30, "the producer to notice")
        await_condition(lambda: len(looks_for_its_broker(worker)) > 18, 60, "many looks", log_file=worker.log_file)
        broker_server.start()
        assert emitting.flush(30) == 0

    producer.await_drained()
    assert charged("ana") == 1100
    assert wallet("ana") == Decimal(67)
    assert max(looks_for_its_broker(worker)) == 1
    assert worker.alive
    assert nothing_is_left()


def test_a_full_broker_loses_nothing(
    start_a_worker: WorkerStarter, producer: Broker, valkey: ValkeyServer, billing_database: str
) -> None:
    """It lets a worker pop a message and then refuses the note that it has; the message is put back later.

    What the worker had at hand can't be given back then, either: it comes back after the visibility timeout.
    """
    worker = start_a_worker(CENTAVO_VISIBILITY_TIMEOUT_SECONDS="2")
    with redis.Redis.from_url(valkey.url) as client:
        with wallets_locked(billing_database):
            producer.send(*[an_envelope(*[an_event("ana") for _ in range(5)]) for _ in range(10)])
            producer.await_taken(4, worker)
            client.config_set("maxmemory", "1")
        await_condition(lambda: has_noticed(worker), 30, "the worker to notice", log_file=worker.log_file)
        client.config_set("maxmemory", "0")

    producer.await_drained()
    assert charged("ana") == 50
    assert worker.alive
    assert nothing_is_left()


def has_noticed(worker: ManagedProcess) -> bool:
    """Whether a worker has said that its broker is away."""
    said = worker.log_file.read_text()
    return "Connection to broker lost" in said or "Couldn't ack" in said


def looks_for_its_broker(worker: ManagedProcess) -> list[float]:
    """After how many seconds each time a worker has looked for its broker again."""
    said = re.findall(r'"retry_in_seconds": ([\d.]+), "event": "the broker is away"', worker.log_file.read_text())
    return [float(seconds) for seconds in said]
