"""The price book is added to: in time, all or none, and every process sees it at once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.errors import AlreadyExists, Rejected, TenantNotFound
from billing.prices import LadderSpan, PriceBook
from db.prices import NewPrice
from services.books.tenants import create_tenant
from services.desk.prices import listed, load_prices
from services.metering.usage import Outcome, record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, parked_reasons, wallet

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
LAST_WEEK, TOMORROW = NOW - timedelta(days=7), NOW + timedelta(days=1)


def a_price(unit_price: str = "1", effective_from: datetime = BEGAN, **changes: Any) -> NewPrice:
    """A price of tokens of openai's new."""
    product = ("", "llm_prompt", "openai", "new", "token", "USD")
    price = NewPrice(
        *product, Decimal(unit_price), Decimal(1), (), LadderSpan.EVENT, False, False, effective_from, 0, None
    )
    return price._replace(**changes)


def price_at(moment: datetime, *, tenant: str = TENANT, model: str = "new") -> object:
    price = PriceBook.of(0, listed()).find(tenant, ("llm_prompt", "openai", model, "token"), moment)
    return price.unit_price if price else None


def test_a_first_price_may_start_in_the_past() -> None:
    assert load_prices([a_price()], NOW) == 1

    assert price_at(LAST_WEEK) == 1


def test_what_is_there_already_is_left_alone() -> None:
    """A catalogue may be loaded again, also when numbers are spelled otherwise."""
    load_prices([a_price("1")], NOW)

    assert load_prices([a_price("1.000")], NOW) == 0
    assert len(listed()) == 1


@pytest.mark.parametrize("ahead", [timedelta(days=-7), timedelta(0), timedelta(seconds=59)])
def test_a_change_less_than_a_minute_ahead_is_refused(ahead: timedelta) -> None:
    """A transaction under way may have read the old price: both must agree on the present."""
    load_prices([a_price()], NOW)

    with pytest.raises(Rejected, match=r"llm_prompt/openai/new/token .* 60 seconds ahead"):
        load_prices([a_price("2", NOW + ahead)], NOW)

    assert len(listed()) == 1


def test_a_change_a_minute_ahead_holds_from_then_on() -> None:
    load_prices([a_price()], NOW)
    start = NOW + timedelta(seconds=60)

    load_prices([a_price("2", start)], NOW)

    assert (price_at(start - timedelta(microseconds=1)), price_at(start)) == (1, 2)


def test_another_price_for_the_same_start_needs_to_be_called_a_correction() -> None:
    load_prices([a_price()], NOW)

    with pytest.raises(AlreadyExists, match="correct it"):
        load_prices([a_price("2")], NOW)

    assert price_at(NOW) == 1


def test_a_correction_is_the_next_revision() -> None:
    """The mistake stays on record; the newest revision holds, for the past too."""
    load_prices([a_price()], NOW)

    assert load_prices([a_price("2")], NOW, is_correction=True) == 1
    assert load_prices([a_price("3")], NOW, is_correction=True) == 1
    assert load_prices([a_price("3")], NOW, is_correction=True) == 0

    assert [(price.revision, price.unit_price) for price in listed()] == [
        (0, Decimal(1)),
        (1, Decimal(2)),
        (2, Decimal(3)),
    ]
    assert price_at(LAST_WEEK) == 3


def test_prices_are_loaded_all_or_none() -> None:
    load_prices([a_price()], NOW)

    with pytest.raises(Rejected):
        load_prices([a_price(model="newer"), a_price("2", NOW)], NOW)

    assert len(listed()) == 1


def test_the_history_of_a_new_product_may_be_loaded_at_once() -> None:
    load_prices([a_price("2", LAST_WEEK), a_price("1")], NOW)

    assert (price_at(LAST_WEEK - timedelta(days=1)), price_at(NOW)) == (1, 2)


@pytest.mark.parametrize("is_correction", [False, True])
def test_one_load_cannot_say_two_things_about_one_price(is_correction: bool) -> None:
    """Or the first would win in silence."""
    with pytest.raises(AlreadyExists, match="given twice"):
        load_prices([a_price("1"), a_price("2")], NOW, is_correction=is_correction)

    assert listed() == []


def test_an_earlier_start_than_that_of_the_first_price_changes_nothing_that_is_live() -> None:
    load_prices([a_price("2", TOMORROW)], NOW)

    load_prices([a_price("1", LAST_WEEK)], NOW)

    assert (price_at(NOW), price_at(TOMORROW)) == (1, 2)


def test_a_tenants_first_price_may_not_change_what_it_pays_now() -> None:
    """Everybody's price is live for the tenant: its own takes over with notice."""
    create_tenant(TENANT, "Acme", NOW)
    load_prices([a_price()], NOW)

    with pytest.raises(Rejected, match="60 seconds ahead"):
        load_prices([a_price("2", scope=TENANT)], NOW)
    load_prices([a_price("2", TOMORROW, scope=TENANT)], NOW)

    assert [price_at(TOMORROW, tenant=tenant) for tenant in (TENANT, "other")] == [2, 1]


def test_it_may_not_either_where_everybodys_began_after_it() -> None:
    """The tenant's own would reach from before into what is charged now."""
    create_tenant(TENANT, "Acme", NOW)
    load_prices([a_price("1", LAST_WEEK)], NOW)

    with pytest.raises(Rejected, match="60 seconds ahead"):
        load_prices([a_price("2", BEGAN, scope=TENANT)], NOW)


def test_history_may_be_added_before_what_is_live() -> None:
    load_prices([a_price("2", LAST_WEEK)], NOW)

    load_prices([a_price("1", BEGAN)], NOW)

    assert (price_at(LAST_WEEK - timedelta(days=1)), price_at(NOW)) == (1, 2)


def test_everybodys_price_may_not_change_what_a_tenants_default_charges_now() -> None:
    """The exact model comes before any default."""
    create_tenant(TENANT, "Acme", NOW)
    load_prices([a_price("1", model="old", scope=TENANT, is_provider_default=True)], NOW)

    with pytest.raises(Rejected, match="60 seconds ahead"):
        load_prices([a_price("2")], NOW)

    assert price_at(NOW) == 1


def test_a_models_first_price_may_not_change_what_a_default_charges_now() -> None:
    load_prices([a_price(model="old", is_provider_default=True)], NOW)

    with pytest.raises(Rejected, match="60 seconds ahead"):
        load_prices([a_price("2")], NOW)
    load_prices([a_price("2", TOMORROW)], NOW)

    assert (price_at(NOW), price_at(TOMORROW)) == (1, 2)


def test_a_new_default_may_not_change_what_unknown_models_cost_now() -> None:
    load_prices([a_price(model="old", is_provider_default=True)], NOW)

    with pytest.raises(Rejected, match="60 seconds ahead"):
        load_prices([a_price("2", LAST_WEEK, model="newest", unit="token", is_provider_default=True)], NOW)

    assert price_at(NOW, model="unheard-of") == 1


def test_an_ended_price_ends_with_notice() -> None:
    load_prices([a_price()], NOW)

    with pytest.raises(Rejected):
        load_prices([a_price("0", NOW, is_ended=True)], NOW)
    load_prices([a_price("0", TOMORROW, is_ended=True)], NOW)

    assert (price_at(NOW), price_at(TOMORROW)) == (1, None)


def test_after_an_end_a_price_may_begin_in_what_was_unpriced() -> None:
    """Since then events were parked; nothing that was charged changes."""
    load_prices([a_price(), a_price("0", LAST_WEEK, is_ended=True)], NOW)

    load_prices([a_price("3", NOW - timedelta(days=2))], NOW)

    assert [price_at(moment) for moment in (LAST_WEEK - timedelta(days=1), LAST_WEEK, NOW)] == [1, None, 3]


def test_prices_of_a_tenant_that_does_not_exist_are_refused() -> None:
    """A misspelt tenant would never be charged by them."""
    with pytest.raises(TenantNotFound):
        load_prices([a_price(scope="acem")], NOW)


def test_a_process_that_keeps_prices_sees_a_new_one_at_once() -> None:
    """The revision of the book is compared in every transaction; what was parked stays parked until replayed."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", credit="10")
    unpriced = an_envelope(an_event("ana", [tokens(1, model="new")], key="before"))
    assert record_usage(unpriced, now) == Outcome(received=1, parked=1)
    load_prices([a_price("0.5")], now)

    after = record_usage(an_envelope(an_event("ana", [tokens(1, model="new")], key="after")), now)

    assert after == Outcome(received=1, charged=1)
    assert record_usage(unpriced, now) == Outcome(received=1, duplicates=1)
    assert wallet("ana") == Decimal("9.5")
    assert parked_reasons() == {"unpriced": 1}


def test_each_line_keeps_the_price_it_was_charged_at() -> None:
    """Also after a correction: what was charged stays, and says by which price."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana")
    load_prices([a_price("1")], now)
    record_usage(an_envelope(an_event("ana", [tokens(2, model="new")], key="a")), now)
    load_prices([a_price("3")], now, is_correction=True)
    record_usage(an_envelope(an_event("ana", [tokens(2, model="new")], key="b")), now)

    charged = {
        key: one(
            "SELECT p.unit_price, p.revision, (u.items->0->>'cost')::numeric FROM usage_events u"
            " JOIN prices p ON p.price_id = (u.items->0->>'price_id')::bigint WHERE u.key = %s",
            key,
        )
        for key in ("a", "b")
    }

    assert charged == {"a": (1, 0, 2), "b": (3, 1, 6)}
    assert wallet("ana") == -8
