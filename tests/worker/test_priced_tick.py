"""The tick of what has its price at last, on a real worker and a real broker: said twice it charges once."""

from datetime import UTC, datetime

from celery import Celery

from config.settings import Settings
from sandbox.processes import await_condition
from services.desk.prices import load_prices
from services.metering.usage import record_usage
from tasks import names
from tests.conftest import WorkerStarter
from tests.factories import a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, wallet
from tests.services.test_parked import a_price
from worker.schedule import schedule


def test_what_waited_is_charged_once_however_often_the_tick_is_said(
    billing_database: str, broker: str, start_a_worker: WorkerStarter
) -> None:
    assert billing_database
    catalogues()
    a_customer("ana", credit="10")
    event = an_event("ana", [tokens(100, model="gpt-99")], key="k")
    assert record_usage(an_envelope(event), datetime.now(UTC)).charged == 0
    load_prices([a_price()], datetime.now(UTC))
    start_a_worker(queues="ticks", children=2)

    with Celery(broker=broker, set_as_current=False) as app:
        for _ in range(3):
            app.send_task(names.REPLAY_PRICED, queue="ticks")
    await_condition(lambda: one("SELECT status FROM usage_events") == ("charged",), 30, "it is charged")

    assert wallet("ana") == 9


def test_beat_looks_every_ten_seconds() -> None:
    (tick,) = [tick for tick in schedule(Settings()).values() if tick["task"] == names.REPLAY_PRICED]

    assert (tick["schedule"], tick["options"]["queue"]) == (10.0, "ticks")
