"""What quantities cost, and which price holds."""

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.prices import Price, PriceBook, cost_of
from tests.billing.made import BEGAN, a_ladder, a_price, ladders, packs, quantities, rounded, unit_prices

NOW = BEGAN + timedelta(days=100)
TOKENS = ("llm", "p", "m", "token")
parts = st.lists(st.decimals(0, 10**9, places=12), min_size=1, max_size=6)


@given(quantities, unit_prices, packs)
def test_a_unit_price_is_exact_until_it_is_rounded_once(quantity: Decimal, unit_price: Decimal, per: Decimal) -> None:
    """Thirty digits of quantity times twenty-four of price: nothing is lost before the twelfth place."""
    cost = cost_of(a_price(unit_price, per=per), quantity)

    assert cost == rounded(Fraction(quantity) * Fraction(unit_price) / Fraction(per))


def test_large_quantities_are_exact_in_other_threads() -> None:
    """28 digits would have rounded this product long before its twelfth place."""
    quantity = Decimal("123456789012345678.123456789012")
    found: list[Decimal] = []
    thread = threading.Thread(target=lambda: found.append(cost_of(a_price("999999.000000000001"), quantity)))

    thread.start()
    thread.join()

    assert found == [Decimal("123456665555556665901235.454567556666")]


@pytest.mark.parametrize(
    ("unit_price", "per", "quantity", "cost"),
    [
        ("30", "1000000", "350", "0.0105"),
        ("1", "3", "1", "0.333333333333"),
        ("2", "3", "1", "0.666666666667"),
        ("0.000000000001", "2", "1", "0"),
        ("0.000000000003", "2", "1", "0.000000000002"),
        ("0.00003", "1", "0", "0"),
    ],
)
def test_prices_are_for_so_many_units(unit_price: str, per: str, quantity: str, cost: str) -> None:
    assert cost_of(a_price(unit_price, per=Decimal(per)), Decimal(quantity)) == Decimal(cost)


@pytest.mark.parametrize(
    ("quantity", "cost"),
    [("0", "0"), ("9", "18"), ("10", "20"), ("11", "21"), ("30", "40"), ("31", "40.5"), ("1000", "525")],
)
def test_each_rung_prices_what_lies_on_it(quantity: str, cost: str) -> None:
    """Ten at 2, twenty more at 1, the rest at 0.50."""
    ladder = a_ladder(("10", "2"), ("30", "1"), (None, "0.5"))

    assert cost_of(ladder, Decimal(quantity)) == Decimal(cost)


@given(ladders(), parts)
def test_the_parts_of_a_ladder_cost_what_the_whole_does(ladder: Price, quantities_of_events: list[Decimal]) -> None:
    """However usage is cut, and whichever part comes first."""
    for order in list(permutations(quantities_of_events))[:6]:
        already, spent = Decimal(0), Decimal(0)
        for quantity in order:
            spent += cost_of(ladder, quantity, already)
            already += quantity

        assert spent == cost_of(ladder, sum(order, Decimal(0)))


@given(ladders(), st.decimals(0, 10**9, places=12))
def test_a_ladder_agrees_with_fractions(ladder: Price, quantity: Decimal) -> None:
    owed, floor = Fraction(0), Fraction(0)
    for rung in ladder.ladder:
        top = Fraction(quantity) if rung.up_to is None else min(Fraction(quantity), Fraction(rung.up_to))
        owed += max(Fraction(0), top - floor) * Fraction(rung.unit_price)
        floor = max(floor, top)

    assert cost_of(ladder, quantity) == rounded(owed / Fraction(ladder.per))


@given(st.one_of(ladders(), st.builds(a_price, unit_prices)), st.lists(quantities, min_size=2, max_size=5))
def test_more_never_costs_less(price: Price, some: list[Decimal]) -> None:
    costs = [cost_of(price, quantity) for quantity in sorted(some)]

    assert all(less <= more for less, more in pairwise(costs))
    assert costs[0] >= 0


def found(prices: list[Price], product: tuple[str, str, str, str] = TOKENS, at: datetime = NOW) -> int | None:
    price = PriceBook.of(1, prices).find("acme", product, at)
    return price.price_id if price else None


def test_a_price_holds_from_its_start_until_the_next_one() -> None:
    old, new = a_price(price_id=1), a_price(price_id=2, effective_from=NOW)

    starts = [NOW - timedelta(microseconds=1), NOW, NOW + timedelta(days=1)]

    assert [found([new, old], at=at) for at in starts] == [1, 2, 2]
    assert found([new, old], at=BEGAN - timedelta(microseconds=1)) is None


def test_the_highest_revision_of_a_start_holds() -> None:
    mistaken, corrected = a_price(price_id=1), a_price(price_id=2, revision=1)

    assert found([mistaken, corrected]) == found([corrected, mistaken]) == 2


def test_a_revision_of_an_old_price_does_not_end_a_newer_one() -> None:
    newer, corrected = a_price(price_id=1, effective_from=NOW), a_price(price_id=2, revision=9)

    assert found([newer, corrected]) == 1


def test_a_tenants_own_price_comes_before_everybodys() -> None:
    everybodys, own = a_price(price_id=1), a_price(price_id=2, scope="acme")
    another = a_price(price_id=3, scope="other")

    assert found([everybodys, own, another]) == 2
    assert found([everybodys, another]) == 1
    assert found([another]) is None


def test_a_tenants_own_price_that_has_not_begun_changes_nothing_yet() -> None:
    everybodys, own = a_price(price_id=1), a_price(price_id=2, scope="acme", effective_from=NOW + timedelta(days=1))

    assert found([everybodys, own]) == 1


def test_the_exact_model_comes_before_any_default() -> None:
    """Even before the tenant's own default."""
    exact = a_price(price_id=1)
    default = a_price(price_id=2, scope="acme", model="other", is_provider_default=True)

    assert found([exact, default]) == 1


def test_an_unknown_model_has_a_price_only_if_one_says_so() -> None:
    opted_in = a_price(price_id=1, model="other", is_provider_default=True)

    assert found([opted_in]) == 1
    assert found([replace(opted_in, is_provider_default=False)]) is None


@pytest.mark.parametrize(
    "product", [("llm", "p", "m", "second"), ("llm", "q", "m", "token"), ("tts", "p", "m", "token")]
)
def test_a_default_serves_its_own_unit_provider_and_category(product: tuple[str, str, str, str]) -> None:
    assert found([a_price(model="other", is_provider_default=True)], product) is None


def test_a_tenants_default_comes_before_everybodys() -> None:
    everybodys = a_price(price_id=1, model="a", is_provider_default=True)
    own = a_price(price_id=2, scope="acme", model="b", is_provider_default=True)

    assert found([everybodys, own]) == 2


def test_an_ended_price_ends_what_its_scope_charged() -> None:
    """The tenant's own falls back to everybody's; everybody's to nothing."""
    everybodys, own = a_price(price_id=1), a_price(price_id=2, scope="acme")
    own_ended = a_price(price_id=3, scope="acme", effective_from=NOW, is_ended=True)
    ended = a_price(price_id=4, effective_from=NOW, is_ended=True)

    assert found([everybodys, own, own_ended]) == 1
    assert found([everybodys, ended]) is None
    assert found([everybodys, ended], at=NOW - timedelta(seconds=1)) == 1


def test_an_ended_default_serves_nobody_and_uncovers_no_older_revision() -> None:
    default = a_price(price_id=1, model="other", is_provider_default=True)
    ended = a_price(price_id=2, model="other", is_provider_default=True, effective_from=NOW, is_ended=True)
    withdrawn = a_price(price_id=3, model="other", is_provider_default=False, revision=1)

    assert found([default, ended]) is None
    assert found([default, withdrawn]) is None


def test_of_two_defaults_the_one_that_began_last_serves() -> None:
    first = a_price(price_id=1, model="a", is_provider_default=True)
    last = a_price(price_id=2, model="b", is_provider_default=True, effective_from=NOW)

    assert found([first, last]) == found([last, first]) == 2


def test_of_two_defaults_that_began_together_every_process_takes_the_same() -> None:
    """Rows come from the database in no particular order."""
    one = a_price(price_id=1, model="a", is_provider_default=True)
    other = a_price(price_id=2, model="b", is_provider_default=True)

    assert found([one, other]) == found([other, one])


def test_only_a_ladder_that_says_so_adds_up_over_the_period() -> None:
    climbing = a_ladder((None, "1"))

    assert climbing.adds_up_over_period
    assert not replace(climbing, ladder=()).adds_up_over_period
