"""Small envelopes are charged together, and each is finished, lost or poisonous by itself."""

from decimal import Decimal
from pathlib import Path

import pytest

from tests.conftest import WorkerStarter
from tests.factories import a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import rows, wallet
from tests.worker.support import (
    Broker,
    Kept,
    await_charged,
    body_of,
    charged,
    deaths,
    kept_inputs,
    nothing_is_left,
    parked_events,
    task_headers,
)

#: Fewer than are gathered at most, and more than a worker without gathering would take in one transaction.
SMALL = 40


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    """A customer with credit."""
    catalogues()
    a_customer("ana", credit="100")


def transactions() -> int:
    """In how many transactions the events were charged: each has one time for all of its events."""
    return len(rows("SELECT DISTINCT charged_at FROM usage_events WHERE status = 'charged'"))


def test_small_envelopes_share_a_transaction(start_a_worker: WorkerStarter, producer: Broker) -> None:
    producer.send(*[an_envelope(an_event("ana")) for _ in range(SMALL)])

    start_a_worker(queues="usage")

    producer.await_drained()
    assert charged("ana") == SMALL
    assert wallet("ana") == 100 - SMALL * Decimal("0.03")
    assert transactions() < SMALL // 4
    assert nothing_is_left()


def test_one_key_in_several_of_them_is_charged_once(start_a_worker: WorkerStarter, producer: Broker) -> None:
    """The same event again, and another payload under its key."""
    event, other = an_event("ana", key="k"), an_event("ana", [tokens(2000)], key="k")
    producer.send(*[an_envelope(one) for one in (event, event, other, event)])

    start_a_worker(queues="usage")

    producer.await_drained()
    assert charged("ana") == 1
    assert [kept.reason for kept in kept_inputs()] == ["key_conflict"]


def test_what_is_no_envelope_costs_the_others_nothing(start_a_worker: WorkerStarter, producer: Broker) -> None:
    """Text that is no JSON, an empty envelope, and one half of whose events are none."""
    producer.send(
        an_envelope(an_event("ana")),
        b"no envelope",
        an_envelope(),
        an_envelope(an_event("ana"), b'{"tenant_id":1}'),
        an_envelope(an_event("ana")),
    )

    start_a_worker(queues="usage")

    producer.await_drained()
    assert charged("ana") == 3
    assert sorted(kept.reason for kept in kept_inputs()) == [
        "envelope_malformed",
        "envelope_malformed",
        "event_malformed",
    ]


def test_a_poisonous_one_is_found_among_others(
    start_a_worker: WorkerStarter, producer: Broker, fault_dir: Path
) -> None:
    """The death of the child sends all of them back, each by itself."""
    (fault_dir / "poison.event").write_text("poison")
    producer.send(*[an_envelope(an_event("ana")) for _ in range(SMALL // 2)])
    producer.send(an_envelope(an_event("ana", key="poison")))
    producer.send(*[an_envelope(an_event("ana")) for _ in range(SMALL // 2)])

    worker = start_a_worker(queues="usage")

    producer.await_drained()
    assert charged("ana") == SMALL
    assert [(key, reason) for key, reason, _ in parked_events()] == [("poison", "kills_worker")]
    assert deaths(worker) >= 5
    assert rows("SELECT * FROM envelope_attempts") == []


@pytest.mark.parametrize("point", ["usage.before_commit", "usage.after_commit"])
def test_a_child_that_dies_with_several_charges_each_once(
    start_a_worker: WorkerStarter, producer: Broker, fault_dir: Path, point: str
) -> None:
    (fault_dir / f"{point}.0").touch()
    producer.send(*[an_envelope(an_event("ana")) for _ in range(SMALL)])

    worker = start_a_worker(queues="usage")

    producer.await_drained()
    assert (charged("ana"), deaths(worker)) == (SMALL, 1)
    assert wallet("ana") == 100 - SMALL * Decimal("0.03")
    assert nothing_is_left()


def test_a_lonely_one_waits_for_nobody(start_a_worker: WorkerStarter, producer: Broker) -> None:
    start_a_worker(queues="usage")

    producer.send(an_envelope(an_event("ana")))

    await_charged("ana", 1, seconds=5)


def test_the_task_of_the_gathered_parks_what_it_can_not_take(start_a_worker: WorkerStarter, producer: Broker) -> None:
    """Its name is no secret."""
    producer.publish(body_of("{}", 7), {**task_headers(), "task": "centavo.record_together"})

    start_a_worker(queues="usage")

    producer.await_drained()
    [kept] = kept_inputs()
    assert isinstance(kept, Kept)
    assert "record_together takes envelopes" in kept.detail
