"""Ladders that add up over a month: the order of events and envelopes changes nothing about the sum."""

import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.prices import LadderSpan, Rung
from centavo import Item, UsageEvent
from db.prices import NewPrice
from services.desk import quotas
from services.desk.prices import load_prices
from services.metering.usage import record_usage
from tests.factories import a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows, wallet

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 25, tzinfo=UTC)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def a_ladder(
    *rungs: tuple[str | None, str],
    span: LadderSpan = LadderSpan.PERIOD,
    effective_from: datetime = BEGAN,
    per: str = "1",
    revision: int = 0,
) -> NewPrice:
    """A graduated price of meta's llama, in seconds."""
    ladder = tuple(Rung(None if top is None else Decimal(top), Decimal(price)) for top, price in rungs)
    product = ("", "llm", "meta", "llama", "second", "USD")
    return NewPrice(
        *product, Decimal(0), Decimal(per), ladder, span, False, False, effective_from, revision, "a ladder"
    )


#: Ten at 2, twenty more at 1, the rest at a third: 31 cost 40 and a third.
LADDER = a_ladder(("10", "6"), ("30", "3"), (None, "1"), per="3")


def seconds(quantity: str | int) -> Item:
    return Item(category="llm", provider="meta", model="llama", unit="second", quantity=Decimal(quantity))


def an_event_of(quantity: str | int, **fields: object) -> UsageEvent:
    return an_event("ana", [seconds(quantity)], **({"occurred_at": NOW} | fields))


@pytest.mark.parametrize("seed", range(3))
def test_any_order_in_any_envelopes_costs_what_the_whole_does(seed: int) -> None:
    """Cut into events, shuffled, packed as it comes, some of it twice: the ladder's cost of the sum, exactly."""
    catalogues()
    load_prices([LADDER], NOW)
    a_customer("ana")
    chance = random.Random(seed)
    parts = [Decimal(chance.randrange(1, 9_000_000)).scaleb(-6) for _ in range(40)]
    events = [an_event_of(str(part)) for part in parts]
    chance.shuffle(events)

    while events:
        size = chance.randrange(1, 9)
        envelope, events = events[:size], events[size:]
        record_usage(an_envelope(*envelope), NOW)
        record_usage(an_envelope(*chance.choices(envelope, k=2)), NOW)

    total = sum(parts, Decimal(0))
    assert total > 30
    cost = 40 + (total - 30) / 3
    assert wallet("ana") == -cost.quantize(Decimal("1E-12"))
    assert one("SELECT sum(cost), count(*) FROM usage_events") == (-wallet("ana"), 40)
    assert one("SELECT sum(quantity) FROM period_quantities") == (total,)


def test_one_event_may_climb_several_rungs() -> None:
    catalogues()
    load_prices([LADDER], NOW)
    a_customer("ana")

    record_usage(an_envelope(an_event_of(9), an_event_of(22)), NOW)

    assert [row[0] for row in rows("SELECT cost FROM usage_events ORDER BY cost")] == [
        Decimal(18),
        Decimal("22.333333333333"),
    ]


def test_a_quota_counts_what_it_cost_on_the_ladder() -> None:
    """That is known only under the customer's lock; what would have been a rung lower counts as it was charged."""
    catalogues()
    load_prices([LADDER], NOW)
    a_customer("ana", now=BEGAN)
    quotas.set_cap("acme", "ana", Decimal(30), "USD", BEGAN)

    record_usage(an_envelope(an_event_of(9, key="a")), NOW)
    record_usage(an_envelope(an_event_of(11, key="b"), an_event_of(3, key="c")), NOW)

    assert one("SELECT sum(used) FROM quota_counts") == one("SELECT sum(cost) FROM usage_events") == (33,)
    assert rows("SELECT key FROM usage_events WHERE over_quota") == [("c",)]


def test_each_month_climbs_its_own_ladder() -> None:
    catalogues()
    load_prices([LADDER], NOW)
    a_customer("ana")

    record_usage(an_envelope(an_event_of(10), an_event_of(10, occurred_at=OCTOBER)), NOW)

    assert wallet("ana") == -40
    assert [row[0] for row in rows("SELECT quantity FROM period_quantities")] == [10, 10]


def test_an_event_that_is_late_climbs_the_ladder_of_the_month_it_counts_in() -> None:
    catalogues()
    load_prices([LADDER], NOW)
    a_customer("ana", now=OCTOBER)
    record_usage(an_envelope(an_event_of(10, occurred_at=OCTOBER), an_event_of(10)), NOW)
    one("UPDATE periods SET opened_at = starts_at, closed_at = %s WHERE ends_at < %s RETURNING 1", NOW, NOW)

    record_usage(an_envelope(an_event_of(10, occurred_at=OCTOBER)), NOW)

    assert wallet("ana") == -50
    assert [row[0] for row in rows("SELECT quantity FROM period_quantities ORDER BY period_start")] == [10, 20]


def test_each_customer_climbs_alone() -> None:
    catalogues()
    load_prices([LADDER], NOW)
    for customer in ("ana", "bob"):
        a_customer(customer)

    record_usage(an_envelope(*[an_event(c, [seconds(10)], occurred_at=NOW) for c in ("ana", "bob")]), NOW)

    assert wallet("ana") == wallet("bob") == -20


def test_a_ladder_per_event_starts_over_with_each() -> None:
    catalogues()
    load_prices([a_ladder(("10", "2"), (None, "1"), span=LadderSpan.EVENT)], NOW)
    a_customer("ana")

    record_usage(an_envelope(an_event_of(15), an_event_of(15)), NOW)

    assert wallet("ana") == -50
    assert rows("SELECT 1 FROM period_quantities") == []


def test_the_other_lines_of_an_event_keep_their_cost() -> None:
    """And two lines of one event on the same ladder climb one after the other."""
    catalogues()
    load_prices([LADDER], NOW)
    a_customer("ana")

    record_usage(an_envelope(an_event("ana", [seconds(10), tokens(1000), seconds(20)], occurred_at=NOW)), NOW)

    assert one("SELECT cost, tokens, jsonb_path_query_array(items, '$[*].cost') FROM usage_events") == (
        Decimal("40.03"),
        1000,
        ["20", "0.03", "20"],
    )


def test_what_was_not_used_climbs_nothing() -> None:
    catalogues()
    load_prices([LADDER], NOW)
    a_customer("ana")

    record_usage(an_envelope(an_event_of(0)), NOW)

    assert wallet("ana") == 0
    assert rows("SELECT 1 FROM period_quantities") == []


@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_price_that_changes_within_a_month_costs_the_same_in_any_order(is_reversed: bool) -> None:
    """Each ladder is climbed by what was used while it held."""
    catalogues()
    change = datetime(2026, 11, 15, tzinfo=UTC)
    load_prices([a_ladder(("10", "2"), (None, "1"))], BEGAN)
    load_prices([a_ladder(("10", "5"), (None, "3"), effective_from=change)], BEGAN)
    a_customer("ana")
    events = [an_event_of(10, occurred_at=datetime(2026, 11, 10, tzinfo=UTC)), an_event_of(10)]

    for event in reversed(events) if is_reversed else events:
        record_usage(an_envelope(event), NOW)

    assert wallet("ana") == -70
