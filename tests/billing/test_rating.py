"""From an event to its lines, or the reason why it is parked."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.plans import Plan
from billing.prices import Price, PriceBook
from billing.rating import Bounds, Line, Parking, ParkReason, Rated, rate, too_many_tiers
from centavo import Item
from tests.billing.made import PREPAID, TIERS, a_price, an_event, an_item, quantities, unit_prices

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOKENS, SECONDS, MINUTES = (
    a_price("0.00003", price_id=1),
    a_price("0.0001", price_id=2, unit="second"),
    a_price("0.10", price_id=3, unit="minute", currency="BRL"),
)


def book(*prices: Price) -> PriceBook:
    return PriceBook.of(1, prices)


@given(st.lists(st.tuples(quantities, unit_prices), min_size=1, max_size=8))
def test_the_lines_of_an_event_sum_to_its_cost(used: list[tuple[Decimal, Decimal]]) -> None:
    """Each line is rounded once; their sum is never rounded again."""
    prices = [a_price(price, price_id=n, model=f"m{n}", unit="second") for n, (_, price) in enumerate(used)]
    items = [an_item(quantity, model=f"m{n}", unit="second") for n, (quantity, _) in enumerate(used)]

    rated = rate(an_event(*items), PREPAID, ["USD"], book(*prices))

    assert isinstance(rated, Rated)
    assert [(line.item, line.price) for line in rated.lines] == list(zip(items, prices, strict=True))
    assert sum(line.cost for line in rated.lines) == rated.cost
    assert all(line.cost == line.cost.quantize(Decimal("1E-12")) for line in rated.lines)


def test_prepaid_tokens_are_priced_and_counted() -> None:
    rated = rate(an_event(an_item(350), an_item(60, unit="second")), PREPAID, ["USD"], book(TOKENS, SECONDS))

    assert isinstance(rated, Rated)
    assert (rated.tokens, rated.cost, rated.currency) == (350, Decimal("0.0165"), "USD")


def test_tokens_on_a_plan_with_tiers_need_no_price() -> None:
    """Fee and tiers cover them: they are counted, and cost nothing here."""
    item = an_item(9_000_000)

    rated = rate(an_event(item), TIERS, [], book())

    assert rated == Rated((Line(item, None, Decimal(0)),), 9_000_000, Decimal(0), None)


def test_every_other_unit_on_a_plan_with_tiers_is_debited() -> None:
    rated = rate(an_event(an_item(5), an_item(60, unit="second")), TIERS, ["USD"], book(TOKENS, SECONDS))

    assert isinstance(rated, Rated)
    assert (rated.tokens, rated.cost, rated.currency) == (5, Decimal("0.006"), "USD")


@pytest.mark.parametrize(
    ("items", "plan", "currencies", "reason", "said"),
    [
        ([an_item(1, model="x")], PREPAID, ["USD"], ParkReason.UNPRICED, "llm/p/x/token"),
        ([an_item(1), an_item(1, unit="hour")], TIERS, ["USD"], ParkReason.UNPRICED, "items[1] llm/p/m/hour"),
        (
            [an_item(1), an_item(1, unit="minute")],
            PREPAID,
            ["USD", "BRL"],
            ParkReason.MIXED_CURRENCIES,
            "in USD and in BRL",
        ),
        ([an_item(1)], PREPAID, ["BRL"], ParkReason.CURRENCY_MISMATCH, "priced in USD"),
        ([an_item(0)], PREPAID, [], ParkReason.CURRENCY_MISMATCH, "priced in USD"),
        ([an_item("1.5")], PREPAID, ["USD"], ParkReason.IMPLAUSIBLE, "tokens are counted whole"),
        ([an_item("0.5")], TIERS, [], ParkReason.IMPLAUSIBLE, "tokens are counted whole"),
    ],
)
def test_what_cannot_be_charged_is_parked_whole(
    items: list[Item], plan: object, currencies: list[str], reason: ParkReason, said: str
) -> None:
    """Never free, never in part: one line without a price parks the event."""
    parking = rate(an_event(*items), plan, currencies, book(TOKENS, SECONDS, MINUTES))  # type: ignore[arg-type]

    assert isinstance(parking, Parking)
    assert parking.reason is reason
    assert said in parking.detail


def test_the_price_is_that_of_the_moment_it_occurred() -> None:
    old = a_price("1", price_id=1, unit="second")
    new = a_price("2", price_id=2, unit="second", effective_from=NOW)
    item = an_item(10, unit="second")

    costs = [
        rate(an_event(item, occurred_at=at), PREPAID, ["USD"], book(old, new))
        for at in (NOW - timedelta(seconds=1), NOW)
    ]

    assert [rated.cost for rated in costs if isinstance(rated, Rated)] == [10, 20]


@pytest.mark.parametrize(
    ("changes", "item", "reason"),
    [
        ({}, an_item(100_000_000), None),
        ({}, an_item("100000000.000000000001", unit="second"), ParkReason.IMPLAUSIBLE),
        ({}, an_item("1.5", unit="second"), None),
        ({"occurred_at": NOW + timedelta(hours=1)}, an_item(), None),
        ({"occurred_at": NOW + timedelta(hours=1, microseconds=1)}, an_item(), ParkReason.IMPLAUSIBLE),
        ({"occurred_at": NOW - timedelta(days=35)}, an_item(), None),
        ({"occurred_at": NOW - timedelta(days=35, microseconds=1)}, an_item(), ParkReason.TOO_OLD),
        ({"occurred_at": datetime(1, 1, 1, tzinfo=UTC)}, an_item(), ParkReason.TOO_OLD),
        ({"occurred_at": datetime(9999, 12, 31, tzinfo=UTC)}, an_item(), ParkReason.IMPLAUSIBLE),
    ],
)
def test_what_no_one_would_believe_waits_for_a_person(
    changes: dict[str, datetime], item: Item, reason: ParkReason | None
) -> None:
    """The bounds themselves are still believed."""
    parking = Bounds().at(NOW).implausible(an_event(item, **changes))

    assert (parking.reason if parking else None) == reason


@given(quantities)
def test_quantities_above_the_bound_are_named_in_the_reason(quantity: Decimal) -> None:
    parking = Bounds(quantity_max=Decimal(1000)).at(NOW).implausible(an_event(an_item(quantity, unit="second")))

    assert (parking is not None) == (quantity > 1000)
    assert parking is None or "items[0].quantity" in parking.detail


@pytest.mark.parametrize(
    ("plan", "tokens", "is_believed"),
    [
        (TIERS, 800_000_000, True),
        (TIERS, 800_000_001, False),
        (replace(TIERS, tier_size=8), 800, True),
        (replace(TIERS, tier_size=8), 801, False),
        (PREPAID, 10**12, True),
    ],
)
def test_a_plan_whose_tiers_are_too_small_waits_for_a_person(plan: Plan, tokens: int, is_believed: bool) -> None:
    """Its size was meant in millions, maybe: each tier would be a payment."""
    parking = too_many_tiers(plan, tokens)

    assert (parking is None) == is_believed
    assert parking is None or (parking.reason is ParkReason.IMPLAUSIBLE and "tier_size" in parking.detail)
