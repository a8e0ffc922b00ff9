"""Whatever is killed, and whenever: every event is charged once. Real processes, real signals."""

import random
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import kombu
import psutil
import pytest

from config import clock
from sandbox.processes import ConditionNotMet, await_condition
from sandbox.rabbitmq import RabbitMQServer
from services.metering import parked
from tasks.queues import depths
from tests.conftest import WorkerStarter, both_brokers
from tests.factories import a_customer, an_envelope, an_event, catalogues
from tests.looking import one, rows, wallet
from tests.worker.support import (
    DEAD,
    Broker,
    Kept,
    await_charged,
    body_of,
    charged,
    children,
    connected_to,
    deaths,
    kept_inputs,
    nothing_is_left,
    parked_events,
    task_headers,
    waits_for_a_lock,
    wallets_locked,
)

pytestmark = pytest.mark.faults
on_rabbitmq = pytest.mark.parametrize("broker_kind", ["rabbitmq"])
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at or limits processes as only Linux can")

#: Kills that an envelope of 500 needs at most until its one poisonous event stands alone and is parked:
#: 3 as a whole, 1 as all of its parts, 9 as halves of halves, 4 alone.
KILLS_MAX = 17
#: How long RabbitMQ may take to see that a connection is gone.
RETURNED_SECONDS_MAX = 10
POISON = ("poison", "kills_worker", "a worker died 4 times while it recorded this event alone")


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    """A customer with credit."""
    catalogues()
    a_customer("ana", credit="100")


def arm(fault_dir: Path, point: str, times: int) -> Callable[[], int]:
    """Arm a fault point so many times; the function says how often it is still armed."""
    for number in range(times):
        (fault_dir / f"{point}.{number}").touch()
    return lambda: len(list(fault_dir.glob(f"{point}.*")))


@both_brokers
def test_the_same_envelope_delivered_three_times_is_charged_once(
    start_a_worker: WorkerStarter, producer: Broker
) -> None:
    """At the same time, by two children."""
    producer.send(*[an_envelope(*[an_event("ana") for _ in range(50)])] * 3)

    start_a_worker(children=2)

    producer.await_drained()
    assert charged("ana") == 50
    assert wallet("ana") == Decimal("98.5")
    assert nothing_is_left()


@pytest.mark.parametrize(
    ("broker_kind", "point", "events"),
    [
        ("valkey", "usage.before_commit", 1),
        ("valkey", "usage.before_commit", 20),
        ("valkey", "usage.after_commit", 1),
        ("valkey", "usage.after_commit", 20),
        ("rabbitmq", "usage.after_commit", 20),
    ],
)
def test_a_child_killed_five_times_in_a_row_charges_once(
    start_a_worker: WorkerStarter, producer: Broker, fault_dir: Path, point: str, events: int
) -> None:
    """Before the commit nothing had happened, after it everything had; either way the message comes back."""
    still_armed = arm(fault_dir, point, 5)
    worker = start_a_worker()

    producer.send(an_envelope(*[an_event("ana") for _ in range(events)]))

    await_condition(lambda: still_armed() == 0, 30, "five kills")
    producer.await_drained()
    assert charged("ana") == events
    assert wallet("ana") == 100 - events * Decimal("0.03")
    assert deaths(worker) == 5
    assert nothing_is_left()


def test_a_killed_child_costs_no_other_envelope(
    start_a_worker: WorkerStarter, producer: Broker, fault_dir: Path
) -> None:
    """Neither those that its worker had fetched already nor those of the other child."""
    still_armed = arm(fault_dir, "usage.before_commit", 4)
    producer.send(*[an_envelope(*[an_event("ana") for _ in range(5)]) for _ in range(20)])

    worker = start_a_worker(children=2)

    producer.await_drained()
    assert charged("ana") == 100
    assert (still_armed(), deaths(worker)) == (0, 4)
    assert nothing_is_left()


@both_brokers
def test_an_event_that_kills_every_child_is_found_and_parked(
    start_a_worker: WorkerStarter, producer: Broker, fault_dir: Path
) -> None:
    """Within a bounded number of kills; the other 499 of its envelope are charged, and so is what comes after."""
    (fault_dir / "poison.event").write_text("poison")
    good = [an_event("ana") for _ in range(499)]
    worker = start_a_worker()

    producer.send(an_envelope(*good[:166], an_event("ana", key="poison"), *good[166:]))
    producer.send(an_envelope(an_event("ana")))

    producer.await_drained()
    assert charged("ana") == 500
    assert parked_events() == [POISON]
    assert deaths(worker) <= KILLS_MAX
    assert kept_inputs() == []
    assert rows("SELECT * FROM envelope_attempts") == []


def test_poison_alone_is_parked_once_however_often_it_comes(
    start_a_worker: WorkerStarter, producer: Broker, fault_dir: Path
) -> None:
    """Each delivery ends after seven kills: two as it came, one as a redelivery counted, four alone."""
    (fault_dir / "poison.event").write_text("poison")
    envelope = an_envelope(an_event("ana", key="poison"))
    worker = start_a_worker()

    for _ in range(2):
        producer.send(envelope)
        producer.await_drained()

    assert parked_events() == [POISON]
    assert (charged("ana"), wallet("ana")) == (0, Decimal(100))
    assert deaths(worker) == 14
    assert kept_inputs() == []
    assert rows("SELECT * FROM envelope_attempts") == []


def test_an_envelope_that_kills_whoever_looks_into_it_is_parked_whole(
    start_a_worker: WorkerStarter, producer: Broker, fault_dir: Path
) -> None:
    """Its events can't be told apart then; the next envelope is charged."""
    still_armed = arm(fault_dir, "usage.split", 7)
    envelope = an_envelope(an_event("ana"), an_event("ana"))
    worker = start_a_worker()

    producer.send(envelope)
    await_condition(lambda: still_armed() == 0, 30, "seven kills")
    producer.send(an_envelope(an_event("ana")))

    producer.await_drained()
    detail = "a worker died 4 times while it looked for the events in this envelope"
    assert kept_inputs() == [Kept("kills_worker", detail, 1, envelope)]
    assert charged("ana") == 1
    assert deaths(worker) == 7
    assert rows("SELECT * FROM envelope_attempts") == []


def test_a_killed_main_process_loses_nothing(
    start_a_worker: WorkerStarter, producer: Broker, billing_database: str
) -> None:
    """What it had fetched comes back after the visibility timeout, to whoever is there; its children end too."""
    producer.send(*[an_envelope(*[an_event("ana") for _ in range(5)]) for _ in range(12)])
    with wallets_locked(billing_database):
        worker = start_a_worker(children=2, CENTAVO_VISIBILITY_TIMEOUT_SECONDS="2")
        await_condition(lambda: producer.unacknowledged >= 8, 30, "the worker to fetch its fill")
        pool = children(worker)
        worker.send_signal(signal.SIGKILL)
        await_condition(lambda: not worker.alive, 30, "the main process to be gone")
        held = producer.unacknowledged
    await_condition(lambda: not any(map(psutil.pid_exists, pool)), 30, "its children to be gone")

    start_a_worker(name="second", CENTAVO_VISIBILITY_TIMEOUT_SECONDS="2")

    producer.await_drained()
    assert held >= 8
    assert charged("ana") == 60
    assert wallet("ana") == Decimal("98.2")
    assert nothing_is_left()


@on_rabbitmq
def test_rabbitmq_takes_back_at_once_what_a_killed_main_process_held(
    start_a_worker: WorkerStarter, producer: Broker, billing_database: str
) -> None:
    """Not after a time-out, and though its children have not ended yet: the next worker gets it all.

    Also when a child began after there was a connection, of which a fork gave it a copy.
    """
    worker = start_a_worker(children=2)
    first = children(worker)
    psutil.Process(first[0]).kill()
    await_condition(lambda: len({*children(worker)} - {*first}) == 1, 30, "a new child")
    with wallets_locked(billing_database):
        producer.send(*[an_envelope(*[an_event("ana") for _ in range(5)]) for _ in range(12)])
        producer.await_taken(8, worker)
        await_condition(lambda: waits_for_a_lock(billing_database), 30, "a child to be in the middle")
        pool = [psutil.Process(child) for child in children(worker)]
        port = urlsplit(producer.url).port
        assert port in connected_to(psutil.Process(worker.pid))
        assert [port in connected_to(child) for child in pool] == [False, False]
        for child in pool:
            child.suspend()  # it can't notice
        worker.send_signal(signal.SIGKILL)
        await_condition(lambda: producer.waiting == 12, RETURNED_SECONDS_MAX, "all to be back")
        for child in pool:
            child.resume()
    start_a_worker(name="second")

    producer.await_drained()
    assert charged("ana") == 60
    assert wallet("ana") == Decimal("98.2")
    assert nothing_is_left()


@on_rabbitmq
def test_what_rabbitmq_gives_up_on_is_charged_or_parked(
    start_a_worker: WorkerStarter, producer: Broker, broker_server: RabbitMQServer
) -> None:
    """What a careless producer had expire is charged; what was rejected once too often is parked, as an envelope."""
    rejected = an_envelope(an_event("ana"))
    with kombu.Connection(producer.url) as connection:
        producer.send(rejected)
        channel = connection.default_channel
        channel.basic_reject(channel.basic_get("usage").delivery_tag, requeue=False)
        producer.publish(body_of(an_envelope(an_event("ana")).decode()), task_headers(), expiration=0.001)
        await_condition(lambda: getattr(broker_server.lengths(DEAD), "ready", 0) == 2, 30, "both to be given up on")

    start_a_worker(queues="usage")

    await_charged("ana", 1)
    producer.await_drained()
    detail = "RabbitMQ gave up on this message of the queue 'usage': rejected"
    assert kept_inputs() == [Kept("kills_worker", detail, 1, rejected)]
    assert depths() == dict.fromkeys(("usage", "payments", "ticks", "usage.dead"), 0)
    (row,) = parked.waiting()
    assert parked.replay(row.parked_id, clock.now()).charged == 1
    assert charged("ana") == 2


def test_two_workers_racing_on_one_customer_charge_each_event_once(
    start_a_worker: WorkerStarter, producer: Broker
) -> None:
    """Envelopes that overlap in every way, each delivered twice, in any order, to four children."""
    events = [an_event("ana") for _ in range(300)]
    shuffled = random.Random(7)
    envelopes = [an_envelope(*shuffled.sample(events, 60)) for _ in range(15)]
    envelopes += [an_envelope(*events[first : first + 100]) for first in range(0, 300, 100)]
    producer.send(*shuffled.sample(envelopes * 2, len(envelopes) * 2))

    workers = [start_a_worker(name=name, children=2) for name in ("one", "two")]

    producer.await_drained()
    assert charged("ana") == 300
    assert wallet("ana") == Decimal(91)
    assert one("SELECT count(*) FROM ledger_entries WHERE kind = 'usage'") == (300,)
    assert [deaths(worker) for worker in workers] == [0, 0]
    assert nothing_is_left()


def test_a_child_out_of_memory_takes_nobody_with_it(
    start_a_worker: WorkerStarter, producer: Broker, fault_dir: Path
) -> None:
    """The envelope comes back to a fresh child; the main process goes on."""
    still_armed = arm(fault_dir, "usage.memory", 3)
    worker = start_a_worker()

    producer.send(an_envelope(*[an_event("ana") for _ in range(5)]))

    producer.await_drained()
    assert charged("ana") == 5
    assert (still_armed(), deaths(worker), worker.alive) == (0, 3, True)
    assert nothing_is_left()


@needs_linux
def test_a_child_that_really_has_no_memory_takes_nobody_with_it(
    start_a_worker: WorkerStarter, producer: Broker
) -> None:
    """Wherever it runs out: in our code, in Celery's, or in a library that can't say so."""
    worker = start_a_worker()
    producer.send(an_envelope(an_event("ana")))
    await_charged("ana", 1)
    (child,) = children(worker)
    used_bytes = psutil.Process(child).memory_info().vms
    resource.prlimit(child, resource.RLIMIT_AS, (used_bytes + 1_000_000, used_bytes + 1_000_000))

    producer.send(an_envelope(*[an_event("ana") for _ in range(5_000)]))

    await_charged("ana", 5_001)
    producer.await_drained()
    assert worker.alive
    assert children(worker) != [child]
    assert nothing_is_left()


def test_a_child_killed_while_itwaits_for_a_lock_loses_nothing(
    start_a_worker: WorkerStarter, producer: Broker, billing_database: str
) -> None:
    """The message comes back at once, to the child that takes its place."""
    with wallets_locked(billing_database):
        worker = start_a_worker()
        producer.send(an_envelope(*[an_event("ana") for _ in range(5)]))
        await_condition(lambda: waits_for_a_lock(billing_database), 30, "the child to wait")
        (child,) = children(worker)
        psutil.Process(child).kill()
        await_condition(lambda: children(worker) not in ([], [child]), 30, "a new child")

    producer.await_drained()
    assert charged("ana") == 5
    assert nothing_is_left()


@both_brokers
def test_a_stopped_worker_leaves_no_child_behind(start_a_worker: WorkerStarter, producer: Broker) -> None:
    """SIGTERM, with work at hand: what was begun is finished, what was not comes back."""
    producer.send(*[an_envelope(*[an_event("ana") for _ in range(20)]) for _ in range(30)])
    assert producer.waiting == 30
    worker = start_a_worker(children=2)
    pool = children(worker)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(10) == 0
    assert not any(map(psutil.pid_exists, pool))
    start_a_worker(name="second")
    producer.await_drained()
    await_condition(lambda: charged("ana") == 600 or bool(kept_inputs()), 30, "all to be charged, or some to be parked")
    assert kept_inputs() == []
    assert charged("ana") == 600
    assert nothing_is_left()


@needs_linux
@pytest.mark.parametrize(("random_bytes", "handed_over_bytes"), [(7_000, 60_000), (10, 1_000)])
def test_a_worker_stops_although_a_child_was_just_handed_an_envelope(
    start_a_worker: WorkerStarter, producer: Broker, random_bytes: int, handed_over_bytes: int
) -> None:
    """Half of it, as much as a pipe takes, or all of it; the child has not said yet that it has it."""
    worker = start_a_worker()
    producer.send(an_envelope(an_event("ana")))
    producer.await_drained()
    (child,), main = children(worker), psutil.Process(worker.pid)
    psutil.Process(child).suspend()
    written = main.io_counters().write_chars
    some = [an_event("ana", metadata={"a": random.randbytes(random_bytes).hex()}) for _ in range(15)]
    producer.send(an_envelope(*some))
    await_condition(
        lambda: main.io_counters().write_chars > written + handed_over_bytes,
        10,
        "the envelope to be handed over",
    )

    worker.send_signal(signal.SIGTERM)
    with suppress(ConditionNotMet):  # it joins its children, in a second thread, when it has no more to hand over
        await_condition(lambda: main.num_threads() > 1, 1, "the main process to join its children")
    psutil.Process(child).resume()

    assert worker.wait(10) == 0
    start_a_worker(name="second")
    producer.await_drained()
    assert charged("ana") == 16
    assert nothing_is_left()
