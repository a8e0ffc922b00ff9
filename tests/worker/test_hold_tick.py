"""The tick of holds on a real worker and a real broker: said twice it gives back once what is over."""

from datetime import timedelta
from decimal import Decimal

from celery import Celery

from config import clock
from config.settings import Settings
from sandbox.processes import await_condition
from services.desk.credit_holds import HoldWish, reserve
from tasks import names
from tests.conftest import WorkerStarter
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one, rows
from worker.schedule import schedule


def test_what_is_over_is_given_back_once_however_often_the_tick_is_said(
    billing_database: str, broker: str, start_a_worker: WorkerStarter
) -> None:
    """What lasts is left alone."""
    assert billing_database
    then = clock.now() - timedelta(hours=1)
    catalogues(then)
    a_customer("ana", credit="10", now=then)
    for key, seconds in (("over", 60), ("over, too", 600), ("lasts", 86_400)):
        reserve(HoldWish(TENANT, "ana", key, Decimal(2), "USD", seconds=seconds), then)
    start_a_worker(queues="ticks", children=2)

    with Celery(broker=broker, set_as_current=False) as app:
        for _ in range(2):
            app.send_task(names.SWEEP_HOLDS, queue="ticks")
    await_condition(lambda: one("SELECT reserved FROM wallets") == (2,), 30, "what is over is given back")

    states = rows("SELECT idempotency_key, state FROM credit_holds ORDER BY 1")
    assert states == [("lasts", "open"), ("over", "expired"), ("over, too", "expired")]


def test_beat_looks_at_holds_every_five_seconds() -> None:
    """So long may they stand in the way of a question after their time is over."""
    (tick,) = [tick for tick in schedule(Settings()).values() if tick["task"] == names.SWEEP_HOLDS]

    assert (tick["schedule"], tick["options"]["queue"]) == (5.0, "ticks")
