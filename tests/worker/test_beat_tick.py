"""That beat ticks: its tick, through a real broker and a real worker, stands in the database."""

from datetime import UTC, datetime, timedelta

from celery import Celery

from config.settings import Settings
from sandbox.processes import await_condition
from services import health
from tasks import names
from tests.conftest import WorkerStarter
from tests.looking import one
from worker.schedule import schedule


def test_a_tick_that_came_through_is_noted(billing_database: str, broker: str, start_a_worker: WorkerStarter) -> None:
    assert billing_database
    begun = datetime.now(UTC)
    assert health.database(begun).ticked_at is None
    start_a_worker(queues="ticks", children=1)

    with Celery(broker=broker, set_as_current=False) as app:
        for _ in range(2):
            app.send_task(names.NOTE_TICK, queue="ticks")
    await_condition(lambda: one("SELECT ticked_at IS NOT NULL FROM last_tick") == (True,), 30, "the tick is noted")

    ticked_at = health.database(datetime.now(UTC)).ticked_at
    assert ticked_at is not None
    assert begun <= ticked_at <= begun + timedelta(seconds=60)


def test_beat_says_that_it_ticks_every_five_seconds() -> None:
    """What is much older than that says that something stands still."""
    (tick,) = [tick for tick in schedule(Settings()).values() if tick["task"] == names.NOTE_TICK]

    assert (tick["schedule"], tick["options"]["queue"]) == (5.0, "ticks")
