"""That beat ticks, and Stripe is there: through a real broker and a real worker, it stands in the database."""

from datetime import UTC, datetime, timedelta

from celery import Celery

from config.settings import Settings
from sandbox.processes import await_condition
from services.oversight import health
from tasks import names
from tests.conftest import WorkerStarter
from tests.looking import one
from worker.schedule import schedule


def test_a_tick_that_came_through_is_noted(billing_database: str, broker: str, start_a_worker: WorkerStarter) -> None:
    assert billing_database
    begun = datetime.now(UTC)
    assert health.database(begun, begun).ticked_at is None
    start_a_worker(queues="ticks", children=1)

    with Celery(broker=broker, set_as_current=False) as app:
        for _ in range(2):
            app.send_task(names.NOTE_TICK, queue="ticks")
    await_condition(lambda: one("SELECT ticked_at IS NOT NULL FROM last_seen") == (True,), 30, "the tick is noted")

    ticked_at = health.database(datetime.now(UTC), begun).ticked_at
    assert ticked_at is not None
    assert begun <= ticked_at <= begun + timedelta(seconds=60)


def test_stripe_is_noted_when_it_was_reached_and_not_when_it_was_not(
    billing_database: str, broker: str, start_a_worker: WorkerStarter
) -> None:
    """By whoever takes ticks: the API may have no way there."""
    assert billing_database
    away = start_a_worker(queues="ticks", children=1, CENTAVO_STRIPE_API_BASE="http://127.0.0.1:1")

    with Celery(broker=broker, set_as_current=False) as app:
        app.send_task(names.REACH_STRIPE, queue="ticks")
        await_condition(lambda: "stripe can't be reached" in away.log_file.read_text(), 30, "the look to fail")
        assert one("SELECT stripe_reached_at FROM last_seen") == (None,)
        away.stop(grace_seconds=15)
        start_a_worker(queues="ticks", children=1, name="another")
        app.send_task(names.REACH_STRIPE, queue="ticks")
        await_condition(
            lambda: one("SELECT stripe_reached_at IS NOT NULL FROM last_seen") == (True,), 30, "it to be noted"
        )


def test_beat_says_that_it_ticks_every_five_seconds_and_asks_for_stripe_twice_a_minute() -> None:
    """What is much older than that says that something stands still."""
    ticks = {tick["task"]: tick for tick in schedule(Settings()).values()}

    said = [
        (ticks[name]["schedule"], ticks[name]["options"]["queue"]) for name in (names.NOTE_TICK, names.REACH_STRIPE)
    ]
    assert said == [(5.0, "ticks"), (30.0, "ticks")]
