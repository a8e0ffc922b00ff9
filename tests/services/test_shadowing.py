"""A price list beside the live one: usage is rated by both, sums differ by what the prices do, and nothing is moved."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery

from billing.errors import AlreadyExists, CursorMalformed, DatabaseBusy, DatabaseSlow, Rejected, TenantNotFound
from config.settings import Settings
from db.prices import NewPrice
from sandbox.processes import await_condition
from services.metering import shadowing
from services.metering.rerating import Asked, Span, rated_pages, rerate, totals
from services.metering.shadowing import AGAIN_AFTER, STALE_AFTER, ShadowNotFound, lists_of, rate_some, show, start, stop
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tasks import names
from tests.conftest import WorkerStarter
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows, wallet
from tests.services.correcting import a_ladder
from tests.services.test_parked import a_price
from worker.schedule import schedule

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
LATER = NOW + AGAIN_AFTER
DAY = timedelta(days=1)
TWICE = Decimal("0.00006")


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    """Ten dollars; a token of gpt-4 costs 0.00003."""
    assert billing_database
    catalogues(BEFORE)
    a_customer("ana", credit="10", time_zone="UTC", now=BEFORE)


def begin(name: str = "next", at: datetime = NOW, **fields: Any) -> shadowing.Shadow:
    said: dict[str, Any] = {"model": "gpt-4", "unit_price": TWICE} | fields
    return start(TENANT, name, [a_price(**said)], at)


def use(quantity: int = 10_000, key: str = "k", at: datetime = NOW, customer: str = "ana", **fields: Any) -> None:
    event = an_event(customer, [tokens(quantity, **fields)], key=key, occurred_at=at)
    assert record_usage(an_envelope(event), at).charged == 1


def look(now: datetime = LATER) -> int:
    """A tick, until nothing is due."""
    total = 0
    while done := rate_some(now):
        total += done
    return total


def days(name: str = "next") -> list[tuple[object, ...]]:
    found = show(TENANT, name).page.rows
    return [(day.customer_id, day.day.day, day.currency, day.events, day.live, day.shadow) for day in found]


def test_what_is_charged_is_rated_by_both() -> None:
    """By customer and day, in all by currency; wallets and events are as they were."""
    a_customer("bob", credit="10", time_zone="UTC", now=BEFORE)
    begin()
    use()
    use(key="more", at=NOW + timedelta(hours=1))
    use(key="tomorrow", at=NOW + DAY)
    use(20_000, key="bob's", customer="bob")
    before = rows("SELECT * FROM usage_events ORDER BY key"), rows("SELECT * FROM wallets ORDER BY wallet_id")

    assert look(NOW + DAY) == 2

    assert days() == [
        ("ana", 20, "USD", 2, Decimal("0.6"), Decimal("1.2")),
        ("ana", 21, "USD", 1, Decimal("0.3"), Decimal("0.6")),
        ("bob", 20, "USD", 1, Decimal("0.6"), Decimal("1.2")),
    ]
    (total,) = show(TENANT, "next").totals
    assert (total.events, total.live, total.shadow, total.difference) == (
        4,
        Decimal("1.5"),
        Decimal(3),
        Decimal("1.5"),
    )
    assert before == (rows("SELECT * FROM usage_events ORDER BY key"), rows("SELECT * FROM wallets ORDER BY wallet_id"))


def test_a_period_is_rated_when_something_was_charged_in_it_and_not_before_its_time() -> None:
    begin()
    use()
    assert [look(NOW), look(NOW)] == [1, 0]
    use(key="more")

    assert [look(NOW), look(LATER - timedelta(seconds=1)), look(LATER), look(LATER + AGAIN_AFTER)] == [0, 0, 1, 0]
    assert days() == [("ana", 20, "USD", 2, Decimal("0.6"), Decimal("1.2"))]


def test_what_was_charged_before_the_start_or_after_the_stop_does_not_count() -> None:
    use(key="before", at=NOW - timedelta(minutes=1))
    begin()
    use(key="within")
    stop(TENANT, "next", NOW + timedelta(minutes=1))
    use(key="after", at=NOW + timedelta(minutes=1))

    assert look() == 1
    assert days() == [("ana", 20, "USD", 1, Decimal("0.3"), Decimal("0.6"))]
    use(key="long after", at=NOW + 2 * DAY)
    assert look(NOW + 2 * DAY) == 0


def test_what_was_voided_counts_no_more() -> None:
    begin()
    use()
    use(key="other")
    look()
    void(TENANT, "k", "sent by mistake", LATER)

    look(LATER + AGAIN_AFTER)

    assert days() == [("ana", 20, "USD", 1, Decimal("0.3"), Decimal("0.6"))]


def test_what_leaves_no_trace_in_counters_is_found_within_a_day() -> None:
    """A void and another event in its place."""
    begin()
    use()
    look(NOW)
    void(TENANT, "k", "sent by mistake", NOW)
    use(key="tomorrow", at=NOW + timedelta(hours=1), model="gpt-4")

    assert look(NOW + STALE_AFTER - timedelta(seconds=1)) == 0
    look(NOW + STALE_AFTER)
    assert one("SELECT sum(events) FROM shadow_sums") == (1,)


def test_the_sums_are_those_of_rating_the_month_again() -> None:
    """A ladder that adds up over the month; the list was there from its first event on."""
    product = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token"}
    ladder = a_ladder(("20000", "0.0003"), ("50000", "0.0002"), (None, "0.0001"), **product)
    start(TENANT, "next", [ladder], NOW)
    for number in range(5):
        use(13_000, key=f"k{number}", at=NOW + timedelta(hours=number))
    look(NOW + DAY)

    asked = Asked(TENANT, Span.month("2026-11"), (ladder,))
    expected = [(one.currency, one.old, one.new) for one in totals(rerate(asked, NOW + DAY, is_applied=False))]
    assert [(one.currency, one.live, one.shadow) for one in show(TENANT, "next").totals] == expected


def test_what_the_list_can_not_rate_counts_as_it_was_charged() -> None:
    """Its price is in a currency that the customer has no wallet in."""
    begin(currency="EUR")
    use()
    look()

    (total,) = show(TENANT, "next").totals
    assert (total.currency, total.events, total.unrated, total.live, total.shadow) == (
        "USD",
        1,
        1,
        Decimal("0.3"),
        Decimal("0.3"),
    )


@pytest.mark.parametrize("error", [RuntimeError("broken"), DatabaseSlow(), DatabaseBusy()])
def test_one_that_can_not_be_rated_at_all_keeps_nobody_back(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    a_customer("bob", credit="10", time_zone="UTC", now=BEFORE)
    begin()
    use()
    use(key="bob's", customer="bob")
    whole = rated_pages

    def failing(period: Any, connection: Any) -> Any:
        if period.customer_id == "ana":
            raise error
        return whole(period, connection)

    monkeypatch.setattr(shadowing, "rated_pages", failing)
    assert look(NOW) == 2
    assert [day[0] for day in days()] == ["bob"]
    monkeypatch.undo()

    assert look(NOW + shadowing.FAILED_AGAIN_AFTER) == 1
    assert [day[0] for day in days()] == ["ana", "bob"]


def test_a_list_is_started_once_and_stopped_for_good() -> None:
    first, again = begin(), begin(at=LATER)
    with pytest.raises(AlreadyExists):
        begin(unit_price=Decimal(1))
    stopped, twice = stop(TENANT, "next", LATER), stop(TENANT, "next", LATER + DAY)

    assert first == again
    assert (first.prices, first.started_at, first.stopped_at) == (1, NOW, None)
    assert stopped.stopped_at == twice.stopped_at == LATER
    with pytest.raises(AlreadyExists):
        begin()
    assert [one.name for one in lists_of(TENANT)] == ["next"]


def test_what_can_not_be_is_refused() -> None:
    price = a_price()
    refused: list[tuple[str, str, list[NewPrice], type[Exception]]] = [
        (TENANT, "", [price], Rejected),
        (TENANT, "\0", [price], Rejected),
        (TENANT, "n" * 65, [price], Rejected),
        (TENANT, "next", [], Rejected),
        ("nobody", "next", [price], TenantNotFound),
    ]
    for tenant_id, name, prices, error in refused:
        with pytest.raises(error):
            start(tenant_id, name, prices, NOW)
    for asking in (lambda: stop(TENANT, "next", NOW), lambda: show(TENANT, "next")):
        with pytest.raises(ShadowNotFound):
            asking()
    with pytest.raises(TenantNotFound):
        lists_of("nobody")


def test_days_come_in_pages_each_once() -> None:
    begin()
    for number in range(5):
        use(key=f"k{number}", at=NOW + number * DAY)
    look(NOW + 5 * DAY)

    seen, cursor = [], None
    while True:
        page = show(TENANT, "next", "ana", limit=2, at=cursor).page
        seen += [day.day.day for day in page.rows]
        if (cursor := page.next) is None:
            break

    assert seen == [20, 21, 22, 23, 24]
    with pytest.raises(CursorMalformed):
        show(TENANT, "next", at=show(TENANT, "next", "ana", limit=2).page.next)


def test_the_tick_rates_on_a_worker(broker: str, start_a_worker: WorkerStarter) -> None:
    now = datetime.now(UTC)
    begin(at=now - timedelta(minutes=5))
    use(at=now - timedelta(minutes=1))
    start_a_worker(queues="ticks", children=1)

    with Celery(broker=broker, set_as_current=False) as app:
        for _ in range(2):
            app.send_task(names.RATE_SHADOW_PRICES, queue="ticks")
    await_condition(lambda: bool(show(TENANT, "next").totals), 30, "it is rated")

    (total,) = show(TENANT, "next").totals
    assert (total.live, total.shadow) == (Decimal("0.3"), Decimal("0.6"))
    (tick,) = [tick for tick in schedule(Settings()).values() if tick["task"] == names.RATE_SHADOW_PRICES]
    assert (tick["schedule"], tick["options"]["queue"]) == (60.0, "ticks")
    assert wallet("ana") == Decimal("9.7")
