"""What usage would cost, and who would pay for it: the rules alone."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing.affordability import Cover
from billing.grants import Source
from billing.money import ZERO
from billing.prices import PriceBook, cost_of
from billing.quotes import BillingMethod, Paid, covered, paid_from, quote
from billing.rating import Rated, climb, rate
from tests.billing.made import PREPAID, TIERS, a_price, an_event, an_item, ladders, quantities
from tests.billing.test_balances import grants as some_grants

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MILLION = 1_000_000


def rated_tokens(tokens: int) -> Rated:
    found = rate(an_event(an_item(tokens)), TIERS, [], PriceBook.of(1, []))
    assert isinstance(found, Rated)
    return found


@given(st.integers(0, 60 * MILLION), st.integers(0, 60 * MILLION))
def test_every_token_is_covered_by_the_fee_by_a_tier_or_begins_one(used: int, tokens: int) -> None:
    found = covered(rated_tokens(tokens), Cover(TIERS, used))

    assert found.in_fee + found.in_tiers + found.further == tokens
    assert min(found.in_fee, found.in_tiers, found.further) >= 0
    assert (found.further > 0) == (found.tiers_begun > 0)
    assert found.tiers_minor == found.tiers_begun * TIERS.tier_fee_minor


@given(some_grants(), st.decimals(0, 5000, places=3))
def test_what_a_wallet_pays_comes_to_the_cost(known: tuple[list[object], dict[str, Source]], cost: Decimal) -> None:
    grants, sources = known

    found = paid_from(cost, grants, sources, NOW)  # type: ignore[arg-type]

    assert sum(found.sources.values(), ZERO) + found.uncovered == cost
    assert all(amount > 0 for amount in found.sources.values())


@given(ladders(), st.lists(quantities, min_size=1, max_size=4), quantities)
def test_a_ladder_goes_on_where_the_period_stands(price: object, parts: list[Decimal], already: Decimal) -> None:
    """Line by line, and in all as one quantity would cost."""
    ladder = price
    book = PriceBook.of(1, [ladder])  # type: ignore[list-item]
    rated = rate(an_event(*(an_item(part, unit="token") for part in map(int, parts))), PREPAID, ["USD"], book)
    assert isinstance(rated, Rated)
    before = {1: already}

    found = climb(rated, before)

    total = Decimal(sum(map(int, parts)))
    assert found.cost == cost_of(ladder, total, already)  # type: ignore[arg-type]
    assert before == {1: already + total}


def test_who_pays_is_told_in_one_word() -> None:
    """Given credits that cover all of it come before the wallet; the plan pays for tokens until a tier begins."""
    book = PriceBook.of(1, [a_price("0.002")])
    priced = rate(an_event(an_item(1000)), PREPAID, ["USD"], book)
    assert isinstance(priced, Rated)
    bare = Cover(PREPAID)
    given_all, given_part = (
        Paid({Source.PROMO: Decimal(2)}),
        Paid({Source.FREE: Decimal(1), Source.PURCHASE: Decimal(1)}),
    )
    wallet, card = BillingMethod.WALLET_DEDUCTION, BillingMethod.PAYMENT_CHARGE
    credit, plan = BillingMethod.CREDIT_CONSUMPTION, BillingMethod.SUBSCRIPTION_INCLUDED

    found = [
        quote(priced, bare, None, 1, has_card=True),
        quote(priced, bare, given_all, 1, has_card=True),
        quote(priced, bare, given_part, 1, has_card=False),
        quote(rated_tokens(1000), Cover(TIERS), None, 1, has_card=True),
        quote(rated_tokens(1000), Cover(TIERS, 8 * MILLION), None, 1, has_card=True),
        quote(rated_tokens(0), Cover(TIERS), None, 1, has_card=True),
    ]

    assert [(one.suggested, one.possible) for one in found] == [
        (wallet, (wallet, card)),
        (credit, (credit, wallet, card)),
        (wallet, (wallet,)),
        (plan, (plan,)),
        (card, (card,)),
        (plan, (plan,)),
    ]
    assert [one.is_included for one in found] == [False, False, False, True, False, False]
    assert not any(one.is_free for one in found)
    assert quote(priced, bare, Paid({Source.FREE: Decimal(2)}), 1, has_card=True).is_free
