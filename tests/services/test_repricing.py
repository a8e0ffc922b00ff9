"""What waited for a price goes on by itself: once, what the price is for, and without trying the rest for ever."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from db import session
from db.session import in_transaction
from services.books import tenants
from services.books.catalogue_files import read_plans
from services.books.customers import NewCustomer, create_customers
from services.desk.prices import end, load_prices
from services.metering import repricing
from services.metering.repricing import replay_priced
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import entries, one, parked_reasons, rows, wallet
from tests.services.test_parked import a_price

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
SETTLED = NOW + repricing.SETTLES


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    """Ten dollars, and whatever waits for the shipped prices has been looked for."""
    assert billing_database
    catalogues(BEFORE)
    a_customer("ana", credit="10", time_zone="UTC", now=BEFORE)
    look(BEFORE)
    look(BEFORE + repricing.SETTLES)


def look(now: datetime = NOW) -> int:
    """A tick: until nothing is left; how many events were tried."""
    total = 0
    while tried := replay_priced(now):
        total += tried
    return total


def park(key: str = "k", model: str = "gpt-99", at: datetime = NOW, **fields: Any) -> None:
    event = an_event("ana", [tokens(100, model=model)], key=key, occurred_at=at, **fields)
    assert record_usage(an_envelope(event), NOW).charged == 0


def test_it_is_charged_once_however_often_the_tick_comes() -> None:
    """At the price of when it occurred, and with its trail; never at nothing."""
    park()
    assert look() == 0
    load_prices([a_price()], NOW)

    assert [look(), look(), look(SETTLED), look(SETTLED)] == [1, 0, 0, 0]

    assert wallet("ana") == 9
    assert [entry.amount for entry in entries("ana")] == [10, -1]
    assert rows("SELECT step FROM usage_log") == [("replayed",)]
    assert parked_reasons() == {}


def test_only_what_the_price_may_be_for_is_tried() -> None:
    """Not another model, not what occurred before the price holds; a provider's default is for every model."""
    load_prices([a_price("gpt-98", effective_from=NOW)], NOW)
    park("other", "gpt-97")
    park("early", "gpt-98", NOW - timedelta(minutes=1))
    assert look(SETTLED) + look(SETTLED + repricing.SETTLES) == 0

    later = SETTLED + 2 * repricing.SETTLES
    load_prices([a_price("gpt-96", is_provider_default=True)], later)

    assert look(later) == 2
    assert wallet("ana") == 8


def test_a_tenants_own_price_is_for_its_events_alone() -> None:
    tenants.create_tenant("beta", "Beta", BEFORE)
    tenants.load_plans("beta", read_plans("default"), BEFORE)
    create_customers([NewCustomer("beta", "ana", "prepaid", "UTC", ("USD",))], BEFORE)
    park()
    park("b", tenant_id="beta")

    load_prices([a_price(scope=TENANT)], NOW)

    assert look() == 1
    assert rows("SELECT tenant_id FROM usage_events WHERE status = 'parked'") == [("beta",)]


def test_what_still_has_no_price_is_not_tried_again_until_one_comes() -> None:
    """One of two products has a price: tried for it twice at most, and then left alone."""
    both = [tokens(100, model="gpt-98"), tokens(100, model="gpt-99")]
    assert record_usage(an_envelope(an_event("ana", both, key="two", occurred_at=NOW)), NOW).charged == 0
    load_prices([a_price("gpt-98")], NOW)

    assert [look(), look(), look(SETTLED), look(SETTLED), look(SETTLED + timedelta(days=1))] == [1, 0, 1, 0, 0]
    assert wallet("ana") == 10
    load_prices([a_price("gpt-99")], SETTLED)

    assert look(SETTLED) == 1
    assert wallet("ana") == 8


def test_what_was_parked_behind_the_back_of_a_pass_is_found_by_the_next() -> None:
    """A transaction that had read the book before the price came, and commits after the pass."""
    load_prices([a_price()], NOW)
    assert look() == 0
    park_as_by_the_old_book()

    assert [look(), look(SETTLED - timedelta(seconds=1)), look(SETTLED)] == [0, 0, 1]
    assert wallet("ana") == 9


def park_as_by_the_old_book() -> None:
    """An event of the product, parked as it was before there was a price."""
    park("late", "gpt-97")
    rows("UPDATE usage_events SET items = replace(items::text, 'gpt-97', 'gpt-99')::jsonb RETURNING 1")


def test_a_price_that_ends_something_is_for_nothing() -> None:
    load_prices([a_price(scope=TENANT, effective_from=NOW - timedelta(hours=1))], NOW)
    (price_id,) = one("SELECT max(price_id) FROM prices")
    look()
    look(SETTLED)
    end(TENANT, price_id, SETTLED + timedelta(hours=1), SETTLED)
    later = SETTLED + timedelta(hours=2)
    event = an_event("ana", [tokens(100, model="gpt-99")], key="k", occurred_at=later)
    assert record_usage(an_envelope(event), later).charged == 0

    assert look(later) == 0
    assert parked_reasons() == {"unpriced": 1}


def test_a_pass_goes_on_where_it_stood_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded at once; what still waits does not keep it from coming to its end."""
    monkeypatch.setattr(repricing, "TRIED_AT_ONCE", 2)
    for number in range(5):
        park(f"k{number}")
    load_prices([a_price(currency="EUR")], NOW)

    assert [replay_priced(NOW) for _ in range(5)] == [2, 2, 1, 0, 0]
    assert parked_reasons() == {"currency_mismatch": 5}


def test_ticks_that_meet_charge_once() -> None:
    for number in range(20):
        park(f"k{number}")
    load_prices([a_price("gpt-99", unit_price=Decimal("0.001"))], NOW)
    session.allow(4)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: look(), range(4)))
    finally:
        session.allow(1)

    assert wallet("ana") == 8
    assert one("SELECT count(*) FROM usage_events WHERE status = 'charged'") == (20,)


def test_one_that_cannot_be_recorded_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays parked, and the pass goes on behind it."""
    monkeypatch.setattr(repricing, "TRIED_AT_ONCE", 1)
    park("a")
    park("b")
    rows("UPDATE usage_events SET items = items || '[{\"unit\": 1}]' WHERE key = 'a' RETURNING 1")
    load_prices([a_price()], NOW)

    assert look() == 2
    assert rows("SELECT key FROM usage_events WHERE status = 'charged'") == [("b",)]
    in_transaction(lambda connection: connection.execute("DELETE FROM usage_events WHERE key = 'a'"))
