"""What a wallet has at a moment, of grants that are valid then, and of those that are not."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing.balances import SourceBalance, weigh
from billing.grants import Grant, Source, Standing, burn, in_burn_order

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WEEK = 7 * DAY
ZERO = Decimal(0)

amounts = st.decimals(0, 1000, places=3)
moments = st.none() | st.integers(-40, 40).map(lambda days: NOW + days * DAY)


@st.composite
def grants(draw: st.DrawFn) -> tuple[list[Grant], dict[str, Source]]:
    """Some grants in burn order, with any validity, and where they came from."""
    found = [
        Grant(str(number), draw(amounts), draw(moments), draw(moments), number=number)
        for number in range(draw(st.integers(0, 6)))
    ]
    return in_burn_order(found), {one.grant_id: draw(st.sampled_from(Source)) for one in found}


@given(grants(), amounts, amounts)
def test_nothing_is_told_twice_or_left_out(
    known: tuple[list[Grant], dict[str, Source]], debt: Decimal, reserved: Decimal
) -> None:
    """What is available, reserved, for later and over comes to the balance; and sources to what is available."""
    open_grants, sources = known

    found = weigh(open_grants, sources, debt, reserved, NOW, WEEK)

    assert found.balance == sum((one.remaining for one in open_grants), ZERO) - debt
    assert found.balance == found.available + found.reserved + found.upcoming + found.ended
    assert sum((one.remaining for one in found.sources), ZERO) == found.available + debt + reserved
    assert ZERO <= found.expiring_soon <= found.available + debt + reserved


@given(grants(), amounts)
def test_what_is_available_can_be_used_without_debt(
    known: tuple[list[Grant], dict[str, Source]], beyond: Decimal
) -> None:
    """The rule that burns agrees: exactly so much is covered, and whatever is beyond it is debt."""
    open_grants, sources = known
    available = weigh(open_grants, sources, ZERO, ZERO, NOW, WEEK).available
    wallet = Standing(ZERO, 0, grants=open_grants)

    burn(wallet, available + beyond, NOW)

    assert wallet.debt == beyond


def test_each_source_says_what_remains_and_what_ends_first() -> None:
    open_grants = [
        Grant("free", Decimal(10), NOW - DAY, NOW + 30 * DAY),
        Grant("may", Decimal(3), None, NOW + WEEK),
        Grant("late", Decimal(4), None, NOW + WEEK + timedelta(microseconds=1)),
        Grant("over", Decimal(5), None, NOW),
        Grant("next", Decimal(6), NOW + timedelta(microseconds=1), None),
        Grant("bought", Decimal(7)),
    ]
    promo = dict.fromkeys(["may", "late", "over", "next"], Source.PROMO)
    sources = promo | {"free": Source.FREE, "bought": Source.PURCHASE}

    found = weigh(open_grants, sources, Decimal(2), Decimal(1), NOW, WEEK)

    assert found.sources == (
        SourceBalance(Source.FREE, Decimal(10), NOW + 30 * DAY, ZERO),
        SourceBalance(Source.PROMO, Decimal(7), NOW + WEEK, Decimal(3)),
        SourceBalance(Source.PURCHASE, Decimal(7), None, ZERO),
    )
    assert [found.available, found.reserved, found.debt] == [Decimal(21), Decimal(1), Decimal(2)]
    assert [found.upcoming, found.ended, found.balance] == [Decimal(6), Decimal(5), Decimal(33)]
    assert (found.expiring_soon, found.expires_at) == (Decimal(3), NOW + WEEK)
