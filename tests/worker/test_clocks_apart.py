"""A host whose clock is wrong does nothing that time alone brings about, and says why; usage goes on."""

import importlib
import pkgutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

import tasks as in_tasks
from billing.errors import ClocksDiffer
from config import clock
from config.settings import Settings, settings
from sandbox.processes import ManagedProcess, await_condition
from services.books.customers import NewCustomer, create_customers
from tasks import names
from tests.conftest import WorkerStarter
from tests.elsewhen import be_ahead, host_ahead
from tests.factories import TENANT, an_envelope, an_event, catalogues
from tests.looking import one, rows
from tests.turning import zone_amid_its_month
from tests.worker.support import Broker, await_charged
from worker.schedule import schedule

#: What records usage that has happened, or counts what was recorded, whatever time it is here.
GOES_ON = {
    names.DRAIN_INBOX: (),
    names.REPLAY_PRICED: (),
    names.RATE_SHADOW_PRICES: (),
    names.LOOK_AT_QUOTAS: (),
}
RECORDING = {names.RECORD_USAGE, names.RECORD_TOGETHER, names.PARK_MESSAGE}
AN_ID = str(uuid.UUID(int=7))
ARGUMENTS: dict[str, tuple[str, ...]] = {
    names.COLLECT_PAYMENT: (TENANT, AN_ID),
    names.LOOK_AT_PAYMENT: (TENANT, AN_ID),
    names.CARRY_OUT_REFUND: (TENANT, AN_ID),
    names.WORK_WEBHOOK: ("evt_7",),
    names.DELIVER_ALERTS: (TENANT,),
}
ALL = sorted(value for name, value in vars(names).items() if name.isupper())
BY_THE_CLOCK = [name for name in ALL if name not in {*GOES_ON, *RECORDING}]
#: The month has turned, and usage of now is not too old yet.
A_MONTH = timedelta(days=32)
YEAR = timedelta(days=365)


@pytest.fixture
def customer(billing_database: str) -> str:
    """A customer who has just joined, whose first month nobody has looked at."""
    assert billing_database
    now = datetime.now(UTC)
    catalogues(now - timedelta(days=1))
    zone = zone_amid_its_month(now, timedelta(minutes=6))
    create_customers([NewCustomer(TENANT, "rui", "tiers-8m", zone, ("BRL", "USD"))], now)
    return "rui"


@pytest.fixture
def tasks(broker: str) -> Iterator[Any]:
    """Every task that a worker knows, by name."""
    with Celery(broker=broker, set_as_current=False) as app:
        for module in pkgutil.iter_modules(in_tasks.__path__):
            importlib.import_module(f"tasks.{module.name}")
        app.finalize()
        yield app.tasks


def fees() -> list[tuple[Any, ...]]:
    return rows("SELECT kind, state FROM payments")


def contents() -> list[list[tuple[Any, ...]]]:
    """What time alone would change."""
    return [rows(f"SELECT * FROM {table}") for table in ("payments", "periods", "last_seen", "audit_turn")]


def failures(worker: ManagedProcess) -> list[str]:
    """What a worker has said of ticks that it refused."""
    return [line for line in worker.log_file.read_text().splitlines() if "ClocksDiffer(" in line]


def test_a_worker_that_is_a_month_ahead_makes_no_fees_and_charges_usage(
    customer: str, broker: str, producer: Broker, start_a_worker: WorkerStarter, tmp_path: Path
) -> None:
    """Its ticks fail visibly, and the error names both times; a host whose clock is right does what is due."""
    wrong = start_a_worker(children=1, name="wrong", **host_ahead(tmp_path / "site", A_MONTH))

    with Celery(broker=broker, set_as_current=False) as app:
        for name in (names.TURN_MONTHS, names.CLOSE_PERIODS, names.NOTE_TICK):
            app.send_task(name, queue="ticks")
        producer.send(an_envelope(an_event(customer)))
        await_condition(lambda: len(failures(wrong)) >= 3, 30, "all ticks to fail", log_file=wrong.log_file)
        await_charged(customer, 1)
        assert (fees(), one("SELECT ticked_at FROM last_seen")) == ([], (None,))

        wrong.kill()
        start_a_worker(queues="ticks", children=1, name="right")
        app.send_task(names.TURN_MONTHS, queue="ticks")
        await_condition(lambda: fees() == [("subscription", "due")], 30, "the one fee to fall due")

    now = datetime.now(UTC)
    assert all(f"it is {now + A_MONTH:%Y-%m-%d}" in said and f"{now:%Y-%m-%d}" in said for said in failures(wrong))


@pytest.mark.parametrize("by", [A_MONTH, -A_MONTH, timedelta(seconds=310)])
def test_on_a_host_whose_clock_is_wrong_each_task_but_those_of_usage_refuses(
    by: timedelta, customer: str, tasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert customer
    before = contents()
    be_ahead(monkeypatch, by)

    for name in BY_THE_CLOCK:
        with pytest.raises(ClocksDiffer, match=r"set the clock that is wrong"):
            tasks[name](*ARGUMENTS.get(name, ()))
    assert contents() == before
    for name in GOES_ON:
        tasks[name]()


def test_every_tick_is_known_to_go_by_the_clock_or_not_to() -> None:
    assert {tick["task"] for tick in schedule(Settings()).values()} <= {*BY_THE_CLOCK, *GOES_ON}


@pytest.mark.parametrize("seconds", [-290, 240, 290])
def test_clocks_that_are_apart_by_minutes_are_believed(
    seconds: int, customer: str, tasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert customer
    be_ahead(monkeypatch, timedelta(seconds=seconds))

    assert tasks[names.TURN_MONTHS]() == 1
    assert fees() == [("subscription", "due")]


def test_how_far_they_may_be_apart_is_a_setting(customer: str, tasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert customer
    monkeypatch.setenv("CENTAVO_CLOCKS_APART_SECONDS_MAX", "60")
    settings.cache_clear()
    be_ahead(monkeypatch, timedelta(seconds=70))

    with pytest.raises(ClocksDiffer, match=r"this host is (69|70) s ahead of Postgres, and 60 s are allowed"):
        tasks[names.TURN_MONTHS]()


def test_a_clock_that_was_moved_on_purpose_is_not_compared(customer: str, tasks: Any) -> None:
    """A sandbox lets a year pass, and a year of fees falls due."""
    assert customer
    clock.advance(YEAR)

    tasks[names.TURN_MONTHS]()

    assert len(fees()) == 13
