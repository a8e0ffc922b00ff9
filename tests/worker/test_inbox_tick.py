"""The inbox's tick on real workers: whatever kills them, what was written by SQL is recorded once."""

from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from sandbox.processes import await_condition
from tasks import names
from tests.conftest import WorkerStarter
from tests.factories import a_customer, catalogues
from tests.looking import one, parked_reasons, rows

pytestmark = pytest.mark.faults

RECORD = "SELECT record_token_consumption('ana', 1000, key => %s)"
TOKENS = "SELECT tokens FROM periods"


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    """A customer whose tokens are metered."""
    catalogues()
    a_customer("ana", plan="tiers-8m", currencies=("BRL",))


@pytest.fixture
def say(broker: str) -> Callable[[], None]:
    """Beat, saying the tick once."""

    def tick() -> None:
        with Celery(broker=broker, set_as_current=False) as app:
            app.send_task(names.DRAIN_INBOX, queue="ticks")

    return tick


def is_empty() -> bool:
    return rows("SELECT * FROM usage_inbox") == []


@pytest.mark.parametrize("point", ["usage.before_commit", "usage.after_commit", "inbox.recorded"])
def test_who_dies_on_the_way_charges_nothing_twice(
    start_a_worker: WorkerStarter, say: Callable[[], None], fault_dir: Path, point: str
) -> None:
    """Before and after the events are committed, and before the rows are removed."""
    for key in ("a", "b", "c"):
        one(RECORD, key)
    (fault_dir / f"{point}.1").touch()
    start_a_worker(queues="ticks", children=1)

    say()
    await_condition(is_empty, 60, "the inbox was drained")

    assert list(fault_dir.iterdir()) == []
    assert one(TOKENS) == (3000,)
    assert one("SELECT count(*) FROM usage_events WHERE status = 'charged'") == (3,)
    assert parked_reasons() == {}


def test_an_event_that_kills_is_parked_and_the_others_are_charged(
    start_a_worker: WorkerStarter, say: Callable[[], None], fault_dir: Path
) -> None:
    for key in ("a", "poison", "c"):
        one(RECORD, key)
    (fault_dir / "poison.event").write_text("poison")
    start_a_worker(queues="ticks", children=1)

    say()
    await_condition(is_empty, 120, "the inbox was drained")

    assert one(TOKENS) == (2000,)
    assert parked_reasons() == {"kills_worker": 1}
