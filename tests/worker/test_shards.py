"""Usage in shards: workers take any of them, their number changes, and each event is charged once."""

from collections.abc import Iterator
from pathlib import Path

import kombu
import psycopg
import pytest

from centavo import Producer
from centavo.shards import queue_of, shard_of
from config.settings import settings
from sandbox.processes import await_condition
from sandbox.rabbitmq import RabbitMQServer
from tasks import queues
from tasks.queues import depths, looked_at
from tests.conftest import WorkerStarter, both_brokers
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues
from tests.looking import one, rows
from tests.worker.support import (
    Broker,
    await_charged,
    body_of,
    charged,
    kept_inputs,
    nothing_is_left,
    task_headers,
)

pytestmark = both_brokers

CUSTOMERS = [f"customer-{number}" for number in range(24)]
RECEIVED_SECONDS_MAX = 60.0


@pytest.fixture(autouse=True)
def people(billing_database: str) -> None:
    catalogues()
    for customer in CUSTOMERS:
        a_customer(customer, credit="100")


@pytest.fixture(autouse=True)
def no_shards(broker_server: object) -> Iterator[None]:
    """RabbitMQ outlives a test, and its queues of other tests would, too."""
    yield
    if isinstance(broker_server, RabbitMQServer):
        with kombu.Connection(broker_server.url) as connection:
            for shard in range(8):
                connection.default_channel.queue_delete(queue_of("usage", shard, 8))


def told(monkeypatch: pytest.MonkeyPatch, shards: int) -> None:
    """This process, and the workers that it starts from now on, are told of so many shards."""
    monkeypatch.setenv("CENTAVO_USAGE_SHARDS", str(shards))
    settings.cache_clear()


def of_shard(shard: int, shards: int) -> str:
    """A customer of this shard."""
    return next(customer for customer in CUSTOMERS if shard_of(TENANT, customer, shards) == shard)


def emit(producer: Producer, number: int) -> None:
    for n in range(number):
        producer.emit(an_event(CUSTOMERS[n % len(CUSTOMERS)]))
    assert producer.flush(20) == 0


def all_charged() -> int:
    number = one("SELECT count(*) FROM usage_events WHERE status = 'charged'")[0]
    assert isinstance(number, int)
    assert one("SELECT count(*) FROM ledger_entries WHERE kind = 'usage'") == (number,)
    return number


def await_all_charged(number: int) -> None:
    with psycopg.connect(settings().required("database_url"), autocommit=True) as connection:

        def done() -> bool:
            row = connection.execute("SELECT count(*) FROM usage_events WHERE status = 'charged'").fetchone()
            return row is not None and row[0] >= number

        await_condition(done, RECEIVED_SECONDS_MAX, f"{number} events to be charged")
    assert all_charged() == number


def start(start_a_worker: WorkerStarter, asked: str, name: str = "worker") -> None:
    start_a_worker(queues=asked, name=name, CENTAVO_USAGE_SHARDS=str(settings().usage_shards))


def test_two_workers_on_disjoint_shards_charge_each_event_once(
    start_a_worker: WorkerStarter, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, 3)
    start(start_a_worker, "usage.0,usage.1", "first")
    start(start_a_worker, "usage.2", "second")

    with Producer(broker, shards=3, envelope_events_max=5) as producer:
        emit(producer, 300)
        assert producer.flush(RECEIVED_SECONDS_MAX, received=True) == 0

    assert all_charged() == 300
    assert set(depths().values()) == {0}
    assert {"usage", "usage.0", "usage.1", "usage.2"} <= set(depths())
    assert nothing_is_left()


@pytest.mark.parametrize(("before", "after"), [(3, 5), (3, 2), (3, 0), (0, 3)])
def test_their_number_changes_under_a_journal(
    start_a_worker: WorkerStarter,
    broker: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    before: int,
    after: int,
) -> None:
    """What was sent under another number is charged, though the journal still has it and sends it once more."""
    told(monkeypatch, before)
    declare(broker)
    producer = Producer(broker, journal=tmp_path / "journal", shards=before, envelope_events_max=5)
    emit(producer, 120)
    producer.close()

    told(monkeypatch, after)
    start(start_a_worker, "usage")
    with Producer(broker, journal=tmp_path / "journal", shards=after, envelope_events_max=5) as following:
        assert following.counters.adopted == 120
        emit(following, 60)
        assert following.flush(RECEIVED_SECONDS_MAX, received=True) == 0

    await_condition(lambda: set(depths().values()) == {0}, RECEIVED_SECONDS_MAX, "the queues of both to be empty")
    await_all_charged(180)
    assert nothing_is_left()


def declare(broker: str) -> None:
    """Have all queues of the settings, as a worker would have declared them."""
    with kombu.Connection(broker) as connection:
        for name in queues.names(settings()):
            queues.declared(name, settings())(connection.default_channel).declare()


def test_an_event_in_the_wrong_shard_is_charged_all_the_same(
    start_a_worker: WorkerStarter, producer: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, 3)
    declare(producer.url)
    everybody = [an_event(customer) for customer in CUSTOMERS]
    for name in ("usage.0", "usage.2", "usage"):
        producer.send(an_envelope(*everybody), queue=name)
    producer.send(an_envelope(an_event(CUSTOMERS[0])), queue="usage.1")

    start(start_a_worker, "usage.0,usage.1,usage.2")

    await_all_charged(len(CUSTOMERS) + 1)
    await_condition(lambda: set(depths().values()) == {0}, 30, "the queues to be empty")
    assert nothing_is_left()


def test_small_envelopes_of_several_shards_are_gathered_together(
    start_a_worker: WorkerStarter, producer: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, 4)
    declare(producer.url)
    for number in range(40):
        producer.send(an_envelope(an_event(of_shard(number % 4, 4))), queue=f"usage.{number % 4}")

    start(start_a_worker, "usage")

    await_all_charged(40)
    assert len(rows("SELECT DISTINCT charged_at FROM usage_events")) < 15
    assert nothing_is_left()


def test_what_is_no_usage_is_parked_by_a_worker_of_shards_alone(
    start_a_worker: WorkerStarter, producer: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes through the plain queue, which nobody had to name."""
    told(monkeypatch, 2)
    declare(producer.url)
    producer.publish(body_of("{}"), {**task_headers(), "task": "nobody.knows"}, queue="usage.1")
    producer.send(an_envelope(an_event(CUSTOMERS[0])), queue="usage")

    start(start_a_worker, "usage.1")

    await_charged(CUSTOMERS[0], 1)
    await_condition(lambda: len(kept_inputs()) == 1, 30, "the message to be parked")
    assert kept_inputs()[0].reason == "task_unknown"


def test_a_queue_that_nobody_takes_is_shown(producer: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of shards that are no more; RabbitMQ knows it of the others as well."""
    told(monkeypatch, 3)
    declare(producer.url)
    for name in ("usage.1", "usage.2"):
        producer.send(an_envelope(an_event(CUSTOMERS[0])), queue=name)
    told(monkeypatch, 2)

    found = looked_at()

    knows = queues.is_rabbitmq(producer.url)
    assert {name: (depth.messages, depth.is_untaken) for name, depth in found.items() if depth.messages} == {
        "usage.1": (1, knows),
        "usage.2": (1, True),
    }
    assert queues.left(settings()) == ("usage.2",)


def test_a_worker_takes_a_shard_that_its_settings_do_not_know(start_a_worker: WorkerStarter, producer: Broker) -> None:
    """The way to drain what is left of a larger number, and what producers were told of too soon."""
    start(start_a_worker, "usage.0,usage.6")
    producer.send(an_envelope(an_event(CUSTOMERS[0])), queue="usage.6")
    producer.send(an_envelope(an_event(CUSTOMERS[1])), queue="usage.0")

    await_charged(CUSTOMERS[0], 1)
    await_charged(CUSTOMERS[1], 1)


def test_a_producer_whose_shards_no_worker_knows_is_held_up_by_none(
    start_a_worker: WorkerStarter, broker: str, broker_server: object
) -> None:
    """On RabbitMQ they do not exist: their usage goes to the plain queue. Redis makes them; they are shown."""
    start(start_a_worker, "usage")

    with Producer(broker, shards=2, envelope_events_max=5) as producer:
        emit(producer, 60)
        if isinstance(broker_server, RabbitMQServer):
            assert producer.flush(RECEIVED_SECONDS_MAX, received=True) == 0
            assert (all_charged(), producer.counters.failures) == (60, 0)
        else:
            assert looked_at().keys() >= {"usage.0", "usage.1"}
            start(start_a_worker, "usage", "second")
            assert producer.flush(RECEIVED_SECONDS_MAX, received=True) == 0
            assert all_charged() == 60


def test_a_child_that_dies_loses_nothing_of_any_shard(
    start_a_worker: WorkerStarter, broker: str, fault_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(monkeypatch, 3)
    for point in ("usage.before_commit", "usage.after_commit"):
        (fault_dir / f"{point}.0").touch()
    start(start_a_worker, "usage")

    with Producer(broker, shards=3, envelope_events_max=5) as producer:
        emit(producer, 90)
        assert producer.flush(RECEIVED_SECONDS_MAX, received=True) == 0

    assert all_charged() == 90
    assert charged(CUSTOMERS[0]) > 0
    assert nothing_is_left()
