"""The month's ticks on a real worker and a real broker: said twice they do once what is due, and a busy one asks for
help.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from celery import Celery

from config import clock
from config.settings import Settings
from sandbox.processes import await_condition
from services.books.customers import NewCustomer, create_customers
from services.cycle import months
from tasks import names
from tasks.months import turn_months
from tasks.queues import depths
from tests.conftest import WorkerStarter
from tests.factories import TENANT, catalogues
from tests.looking import rows
from worker.schedule import schedule

MONTHS_AGO, GRACE = timedelta(days=100), timedelta(hours=72)
TICKS = (names.TURN_MONTHS, names.BREAK_GRANTS, names.CLOSE_PERIODS, names.ISSUE_STATEMENTS)


@pytest.fixture
def customers(billing_database: str) -> list[str]:
    """Customers of some months ago, at whose months nobody has looked yet."""
    assert billing_database
    found = ["ana", "bia", "eva", "ivo", "rui"]
    catalogues(clock.now() - MONTHS_AGO)
    create_customers([NewCustomer(TENANT, name, "tiers-8m", "UTC") for name in found], clock.now() - MONTHS_AGO)
    return found


@pytest.fixture
def app(broker: str) -> Iterator[Celery]:
    """An app that is current for nobody but who makes it so in a thread of their own."""
    with Celery(broker=broker, set_as_current=False) as made:
        yield made


def test_what_each_tick_does_is_done_once_however_often_it_is_said(
    customers: list[str], app: Celery, start_a_worker: WorkerStarter
) -> None:
    """One fee for every month, and a statement for every one whose grace is over."""
    start_a_worker(queues="ticks", children=2)

    for name in TICKS:
        for _ in range(2):
            app.send_task(name, queue="ticks")
        await_condition(lambda name=name: _is_done(name), 30, f"{name} is done")  # type: ignore[misc]

    begun = rows("SELECT customer_id, starts_at FROM periods ORDER BY 1, 2")
    over = rows(
        "SELECT customer_id, starts_at FROM periods WHERE ends_at < %s ORDER BY 1, 2", clock.now() - timedelta(hours=72)
    )
    fees = rows("SELECT customer_id, period_start FROM payments WHERE kind = 'subscription' ORDER BY 1, 2")
    stated = rows("SELECT customer_id, period_start FROM statements ORDER BY 1, 2")
    assert (fees, stated) == (begun, over)
    assert len(begun) in {len(customers) * 4, len(customers) * 5}


def _is_done(tick: str) -> bool:
    """Whether nothing is left of what a tick looks for."""
    left = {
        names.TURN_MONTHS: ("SELECT 1 FROM month_turns WHERE due_at <= %s", clock.now()),
        names.BREAK_GRANTS: ("SELECT 1 FROM credit_grants WHERE breaks_at <= %s", clock.now()),
        names.CLOSE_PERIODS: ("SELECT 1 FROM periods WHERE closed_at IS NULL AND ends_at < %s", clock.now() - GRACE),
        names.ISSUE_STATEMENTS: (
            "SELECT 1 FROM periods WHERE statement_number IS NULL AND closed_at IS NOT NULL AND ends_at < %s",
            clock.now(),
        ),
    }
    statement, moment = left[tick]
    return not rows(statement, moment) and depths()["ticks"] == 0


@pytest.mark.parametrize(("at_once", "calls"), [(2, 1), (1000, 0)])
def test_a_look_that_finds_a_whole_chunk_calls_for_help(
    at_once: int, calls: int, customers: list[str], app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does what it can meanwhile; one that finds less has found everything."""
    monkeypatch.setattr(months, "TURNED_AT_ONCE", at_once)

    def look() -> int:
        app.set_current()
        number: int = turn_months()
        return number

    with ThreadPoolExecutor(1) as child:
        turned = child.submit(look).result()
        again = child.submit(look).result()

    assert (turned, again) == (len(customers), 0)
    assert depths()["ticks"] == calls


def test_beat_looks_at_the_month_as_often_as_the_setting_says() -> None:
    """At what has ended, a quarter as often."""
    ticks = {tick["task"]: tick for tick in schedule(Settings(month_seconds=8)).values()}

    assert [ticks[name]["schedule"] for name in TICKS] == [8, 32, 32, 32]
    assert {ticks[name]["options"]["queue"] for name in TICKS} == {"ticks"}
