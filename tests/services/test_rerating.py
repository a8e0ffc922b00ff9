"""Rating a month again: what differs, corrected once, and told where it belongs."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from billing.errors import CustomerNotFound, Rejected, TenantNotFound
from db.prices import NewPrice
from services.desk.prices import load_prices
from services.metering.rerating import Asked, CustomerResult, Span, Sum, rerate, totals
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event, tokens
from tests.looking import Entry, entries, one, rows, wallet
from tests.services.correcting import (
    DAY,
    DECEMBER,
    MINUTE,
    NOVEMBER,
    OCTOBER,
    a_ladder,
    a_price,
    corrections,
    event,
    given,
    month_turns,
    remaining,
    seconds,
    set_up,
    used,
)

pytestmark = pytest.mark.usefixtures("billing_database")

LATER = OCTOBER + DAY
OCTOBERS = Span.month("2026-10")


def corrected(price: NewPrice) -> None:
    """The book has been wrong, and says what is right."""
    load_prices([price], LATER, is_correction=True)


def rated(*, is_applied: bool = True, now: datetime = LATER, **asked: Any) -> list[CustomerResult]:
    return rerate(replace(Asked(TENANT, OCTOBERS, reason="wrong price"), **asked), now, is_applied=is_applied)


def sums(results: list[CustomerResult]) -> list[tuple[str, Decimal, Decimal]]:
    return [(one_sum.currency, one_sum.old, one_sum.new) for one_sum in totals(results)]


def everything() -> list[Any]:
    tables = ("ledger_entries", "corrections", "wallets", "credit_grants", "usage_events", "periods")
    return [rows(f"SELECT t::text FROM {table} t ORDER BY 1") for table in tables]


def test_a_dry_run_says_what_differs_and_writes_nothing() -> None:
    set_up()
    used("a", 4)
    used("b", 6)
    corrected(a_price("0.5"))
    before = everything()

    (result,) = rated(is_applied=False)

    assert (result.customer_id, result.events, result.changed, dict(result.unrated)) == ("ana", 2, 2, {})
    assert result.sums == [Sum("USD", Decimal(10), Decimal(5))]
    assert result.sums[0].difference == -5
    assert everything() == before


def test_what_cost_too_much_comes_back_in_one_entry() -> None:
    """Originals are untouched, and twice changes nothing."""
    set_up()
    given("7", "g")
    used("a", 4)
    used("b", 6)
    before = (event("a", "*"), event("b", "*"), entries("ana"))
    corrected(a_price("0.5"))

    rated()

    assert entries("ana")[-1] == Entry(4, "correction", Decimal(5), Decimal(2))
    assert one("SELECT reason, event_key FROM ledger_entries WHERE seq = 4") == ("wrong price", None)
    assert corrections("kind, event_key, tokens, cost, seq") == [("rerate", "a", 0, -2, 4), ("rerate", "b", 0, -3, 4)]
    assert (event("a", "*"), event("b", "*"), entries("ana")[:-1]) == before
    assert remaining() == {"g": 2, "debt": 0}
    after = everything()
    assert [one_result.changed for one_result in rated()] == [0]
    assert everything() == after


def test_what_cost_too_little_burns_what_was_valid_when_it_was_used() -> None:
    set_up()
    given("10", "then", valid_from=OCTOBER - DAY, expires_at=OCTOBER + DAY, priority=90)
    given("10", "since", valid_from=OCTOBER + DAY, priority=1)
    used("a", 4)
    corrected(a_price("3"))

    rated(now=LATER + DAY)

    assert remaining() == {"then": 0, "since": 10, "debt": 2}
    assert wallet("ana") == 8


def test_more_and_less_in_one_entry_add_up() -> None:
    set_up(a_price("1"), a_price("1", model="other"))
    given("10", "g")
    both = [an_event("ana", [seconds(5, model=model)], key=model, occurred_at=OCTOBER) for model in ("llama", "other")]
    record_usage(an_envelope(*both), OCTOBER)
    corrected(a_price("0.6"))
    corrected(a_price("1.4", model="other"))

    (result,) = rated()

    assert (result.changed, sums([result])) == (2, [("USD", Decimal(10), Decimal(10))])
    assert entries("ana")[-1] == Entry(4, "correction", Decimal(0), Decimal(0))
    assert remaining() == {"g": 0, "debt": 0}


def test_an_event_that_cost_nothing_is_charged_after_all() -> None:
    set_up(a_price("0"))
    used("a", 4)
    corrected(a_price("1"))

    rated()

    assert wallet("ana") == -4
    assert corrections() == [("rerate", "a", 0, 4)]


def test_a_list_that_is_tried_out_holds_from_ever_and_comes_before_the_book() -> None:
    """Whatever it says of its start; what it does not list is in the book."""
    set_up(a_price("1"), a_price("1", model="other"))
    load_prices([a_price("2", scope=TENANT, effective_from=OCTOBER - DAY)], OCTOBER - 2 * DAY)
    items = [seconds(4), seconds(4, model="other")]
    record_usage(an_envelope(an_event("ana", items, key="a", occurred_at=OCTOBER)), OCTOBER)
    tried = (a_price("5", effective_from=datetime(2030, 1, 1, tzinfo=UTC)),)

    assert sums(rated(is_applied=False, prices=tried)) == [("USD", Decimal(12), Decimal(24))]
    rated(prices=tried)

    assert wallet("ana") == -24
    assert [one_result.changed for one_result in rated(prices=tried)] == [0]
    assert sums(rated()) == [("USD", Decimal(24), Decimal(12))]
    assert wallet("ana") == -12


def test_what_has_no_price_stays_as_it_is_and_is_counted() -> None:
    set_up()
    used("a", 4)
    ended = a_price("0", is_ended=True)
    corrected(ended)

    (result,) = rated()

    assert (result.events, result.changed, dict(result.unrated)) == (1, 0, {"unpriced": 1})
    assert result.sums == [Sum("USD", Decimal(4), Decimal(4))]
    assert wallet("ana") == -4


def test_what_is_priced_in_another_currency_stays_as_it_is() -> None:
    """With a wallet in that currency or without: an event is paid from the wallet that it was charged to."""
    set_up(currencies=("USD", "BRL"))
    used("a", 4)
    corrected(a_price("1", currency="BRL"))

    (result,) = rated()

    assert dict(result.unrated) == {"currency_mismatch": 1}
    assert (wallet("ana"), wallet("ana", "BRL")) == (Decimal(-4), Decimal(0))


def test_what_comes_while_a_run_is_under_way_stays_as_it_was_charged() -> None:
    """At a price that came meanwhile, too: it does not go back to the one of before."""
    set_up()
    a_customer("aaa")
    record_usage(an_envelope(an_event("aaa", [seconds(4)], key="x", occurred_at=OCTOBER)), OCTOBER)
    used("a", 4)
    corrected(a_price("2"))

    def meanwhile(done: int, of: int) -> None:
        if done < of:
            load_prices([a_price("3", effective_from=LATER + 2 * MINUTE)], LATER)
            used("b", 10, LATER + 2 * MINUTE)

    rerate(Asked(TENANT, OCTOBERS), LATER, is_applied=True, on_period=meanwhile)

    assert corrections() == [("rerate", "x", 0, 4), ("rerate", "a", 0, 4)]
    assert (wallet("aaa"), wallet("ana")) == (Decimal(-8), Decimal(-38))


def test_tokens_that_the_plan_covers_have_no_price() -> None:
    set_up(plan="tiers-8m", currencies=("BRL", "USD"))
    record_usage(an_envelope(an_event("ana", [tokens(500), seconds(2)], key="a", occurred_at=OCTOBER)), OCTOBER)
    corrected(a_price("2"))

    rated()

    assert wallet("ana") == -4
    assert one("SELECT tokens FROM periods") == (500,)


def test_only_the_customers_and_the_month_asked_for() -> None:
    set_up()
    a_customer("bob")
    used("a", 4)
    used("n", 4, NOVEMBER)
    record_usage(an_envelope(an_event("bob", [seconds(4)], key="b", occurred_at=OCTOBER)), OCTOBER)
    corrected(a_price("2"))

    done: list[tuple[int, int]] = []
    asked = Asked(TENANT, OCTOBERS, customers=("bob",), reason="wrong price")
    results = rerate(asked, NOVEMBER, is_applied=True, on_period=lambda *how_far: done.append(how_far))

    assert [one_result.customer_id for one_result in results] == ["bob"]
    assert (wallet("ana"), wallet("bob")) == (Decimal(-8), Decimal(-8))
    assert done == [(1, 1)]
    rated(now=NOVEMBER)
    assert (wallet("ana"), wallet("bob")) == (Decimal(-12), Decimal(-8))


def test_a_period_is_in_the_month_that_its_middle_lies_in_by_its_own_clock() -> None:
    """In Tokyo, October begins on the last day of September by the clock of UTC."""
    set_up()
    a_customer("rin", time_zone="Asia/Tokyo")
    first = datetime(2026, 9, 30, 16, tzinfo=UTC)
    record_usage(an_envelope(an_event("rin", [seconds(4)], key="b", occurred_at=first)), first)
    corrected(a_price("2"))

    assert [one_result.customer_id for one_result in rated()] == ["rin"]


def test_a_month_that_is_closed_is_corrected_in_the_open_one() -> None:
    """Its statement stands; the next one tells of it, and adds up."""
    set_up()
    used("a", 4)
    used("b", 6)
    month_turns(NOVEMBER)
    corrected(a_price("2"))

    rated(now=NOVEMBER)
    month_turns(DECEMBER)

    assert corrections("counted_in < told_in, cost") == [(True, 4), (True, 6)]
    lines = rows("SELECT number, kind, amount, events, about->>'cost' FROM statement_lines ORDER BY number, line")
    assert lines == [
        (1, "usage", -10, 2, None),
        (2, "correction", -10, None, None),
        (2, "corrected", 0, 2, "10.000000000000"),
    ]
    balances = rows("SELECT opening, closing FROM statement_balances WHERE currency = 'USD' ORDER BY number")
    assert balances == [(0, -10), (-10, -20)]


FALLS, RISES = (("10", "2"), (None, "1")), (("10", "1"), (None, "2"))


def test_a_ladder_of_the_same_prices_changes_nothing_whatever_the_order_was() -> None:
    """Events were charged in another order than that of their moments: a worker's clock was behind."""
    set_up(a_ladder(*FALLS))
    used("a", 10, now=OCTOBER + 2 * DAY)
    used("b", 10, now=OCTOBER + DAY)

    (result,) = rated(now=OCTOBER + 3 * DAY)

    assert (result.changed, sums([result])) == (0, [("USD", Decimal(30), Decimal(30))])
    assert corrections() == []


def test_what_is_used_after_a_new_rating_climbs_on_from_where_that_put_it() -> None:
    """On the ladder as corrected; the one that was left is climbed no more."""
    set_up(a_ladder(*FALLS))
    used("a", 10)
    corrected(a_ladder(*RISES))
    rated()
    assert rows("SELECT quantity FROM period_quantities") == [(10,)]

    used("b", 10)

    assert wallet("ana") == -30
    assert [one_result.changed for one_result in rated()] == [0]


def test_a_ladder_that_is_corrected_is_climbed_from_its_foot() -> None:
    set_up(a_ladder(*FALLS))
    for key in "abc":
        used(key, 10)
    corrected(a_ladder(("15", "2"), (None, "1")))

    rated()

    assert corrections() == [("rerate", "a", 0, 0), ("rerate", "b", 0, 5), ("rerate", "c", 0, 0)]
    assert wallet("ana") == -45
    after = everything()
    rated()
    assert everything() == after


@pytest.mark.parametrize("rungs", [FALLS, RISES])
@pytest.mark.parametrize("key", "abc")
def test_void_after_a_new_rating_takes_back_what_it_costs_by_that(
    rungs: tuple[tuple[str | None, str], ...], key: str
) -> None:
    """Of a ladder, what the month costs less without it."""
    set_up(a_ladder(("10", "7"), (None, "9")))
    given("30", "g")
    for one_key in "abc":
        used(one_key, 10)
    corrected(a_ladder(*rungs))
    rated()
    assert wallet("ana") == 30 - (40 if rungs is FALLS else 50)

    void(TENANT, key, "a mistake", LATER + DAY)

    assert wallet("ana") == 0
    assert sums(rated(now=LATER + DAY)) == [("USD", Decimal(30), Decimal(30))]
    for other in sorted({*"abc"} - {key}):
        void(TENANT, other, "a mistake", LATER + DAY)
    assert remaining() == {"g": 30, "debt": 0}


def test_a_new_rating_after_a_void_leaves_the_voided_alone() -> None:
    set_up(a_ladder(*FALLS))
    for key in "abc":
        used(key, 10)
    void(TENANT, "a", "a mistake", LATER)
    assert [one_result.changed for one_result in rated()] == [0]
    corrected(a_price("3"))

    rated()

    assert wallet("ana") == -60


def test_a_ladder_that_is_tried_out_can_be_voided_too() -> None:
    """It is in no book: what it was is kept with the rating."""
    set_up()
    for key in "abc":
        used(key, 10)
    rated(prices=(a_ladder(*RISES),))
    assert wallet("ana") == -50

    void(TENANT, "a", "a mistake", LATER)

    assert wallet("ana") == -30


def test_rated_again_and_again_then_voided_ends_where_it_began() -> None:
    """Debt that was paid, grants that split, dearer and cheaper: each knows what it has burned by then."""
    set_up()
    given("3", "first")
    used("a", 5)
    for number, price in enumerate(("2", "0.5", "1.3", "0", "4")):
        corrected(a_price(price))
        rated()
        given("1", f"later-{number}", LATER)
        assert wallet("ana") == 3 + number + 1 - 5 * Decimal(price)

    void(TENANT, "a", "a mistake", LATER)

    assert remaining() == {"first": 3, "debt": 0} | {f"later-{number}": 1 for number in range(5)}


def test_more_events_than_a_page_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(a_ladder(*RISES))
    monkeypatch.setattr("db.corrections.PAGE", 3)
    monkeypatch.setattr("db.corrections.LAST_PAGE", 2)
    for number in range(10):
        used(f"k{number}", 2)
    corrected(a_ladder(*FALLS))

    rated()
    void(TENANT, "k0", "a mistake", LATER)

    assert wallet("ana") == -(20 + 8)


def test_whom_nobody_knows_and_what_is_no_month() -> None:
    set_up()
    with pytest.raises(TenantNotFound):
        rated(tenant_id="nobody")
    with pytest.raises(CustomerNotFound):
        rated(customers=("nobody",))
    with pytest.raises(Rejected, match="a reason has"):
        rated(reason="")
    for text in ("2026", "2026-13", "0000-01", "2026-1", "x"):
        with pytest.raises(Rejected, match="is not a month"):
            Span.month(text)
    assert Span.month("2026-12") == Span(date(2026, 12, 1), date(2027, 1, 1))
