"""Periods close while usage of the old month and of the new one pours in: each event is told, and in one statement."""

import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from centavo import UsageEvent
from sandbox.processes import await_condition
from services.books.customers import NewCustomer, create_customers
from services.cycle import closing, months, statements
from tests.conftest import WorkerStarter
from tests.factories import TENANT, an_envelope, catalogues, tokens
from tests.looking import one, rows
from tests.worker.support import Broker

pytestmark = pytest.mark.faults

CUSTOMERS = [f"c{number:03}" for number in range(100)]
EVENTS, PER_ENVELOPE = 12_000, 200
#: The tenth of a month, whatever day it is.
NOW = (datetime.now(UTC).replace(day=1, hour=12, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(
    day=10
)
MONTH = NOW.replace(day=1, hour=0, microsecond=0)


def test_statements_equal_the_events_although_both_pour_in_from_two_workers(
    start_a_worker: WorkerStarter, producer: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred customers, closed ten at a time while the old month's events and the new one's are recorded."""
    catalogues(NOW - timedelta(days=60))
    zone = [NewCustomer(TENANT, name, "tiers-8m", "UTC", ("BRL",)) for name in CUSTOMERS]
    create_customers(zone, NOW - timedelta(days=45))
    while months.turn_due(NOW).customers:
        pass
    # The months before the last one are out of the way.
    monkeypatch.setattr(closing, "CLOSED_AT_ONCE", 10)
    while rows("SELECT 1 FROM periods WHERE closed_at IS NULL AND ends_at < %s LIMIT 1", MONTH):
        closing.close_due(NOW)
    emitted = _events()
    clock = tmp_path / "clock.json"
    clock.write_text(json.dumps({"offset_seconds": round((NOW - datetime.now(UTC)).total_seconds())}))
    for number in range(2):
        start_a_worker(queues="usage", name=f"worker{number}", CENTAVO_CLOCK_FILE=str(clock))

    producer.send(*(an_envelope(*emitted[n : n + PER_ENVELOPE]) for n in range(0, EVENTS, PER_ENVELOPE)))
    for tenth in range(1, 11):
        _await_recorded(EVENTS * tenth // 12)
        assert closing.close_due(NOW) == 10
    _await_recorded(EVENTS)
    while statements.issue_due(NOW):
        pass

    late = _tokens("SELECT customer_id, sum(tokens)::bigint FROM usage_events WHERE is_late GROUP BY 1")
    told = _tokens("SELECT customer_id, tokens FROM statements WHERE period_end = %s", MONTH)
    old: Counter[str] = Counter()
    for event in emitted:
        if event.occurred_at < MONTH:
            old[event.customer_id] += int(event.items[0].quantity)
    assert told + late == old
    assert 0 < sum(late.values()) < sum(old.values())
    assert one("SELECT count(*) FROM statements WHERE period_end = %s", MONTH) == (100,)
    assert one("SELECT count(*) FROM usage_events WHERE is_late AND period_start <> %s", MONTH) == (0,)


def _tokens(statement: str, *parameters: object) -> Counter[str]:
    return Counter(dict(rows(statement, *parameters)))


def _await_recorded(events: int) -> None:
    await_condition(lambda: _recorded() >= events, 60, f"{events} events are recorded")


def _recorded() -> int:
    (number,) = one("SELECT coalesce(sum(events), 0)::bigint FROM periods")
    assert isinstance(number, int)
    return number


def _events() -> list[UsageEvent]:
    """Half of the last hours of the old month, half of the new one, shuffled."""
    chance = random.Random(20)
    events = []
    for number in range(EVENTS):
        moment = MONTH - timedelta(seconds=chance.randrange(1, 86_400))
        if number % 2:
            moment = MONTH + timedelta(seconds=chance.randrange(0, 86_400))
        events.append(
            UsageEvent(
                tenant_id=TENANT,
                customer_id=chance.choice(CUSTOMERS),
                key=f"e{number:05}",
                occurred_at=moment,
                items=(tokens(chance.randrange(1, 2000)),),
            )
        )
    chance.shuffle(events)
    return events
