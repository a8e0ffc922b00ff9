"""What a hold keeps back is given once: to the usage that names it, or back."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.credit_holds import CaptureMark, Hold, HoldState, capture, to_reserve
from billing.grants import Grant, Standing, broken, burn, burn_kept, in_burn_order
from billing.money import ZERO

NOW = datetime(2026, 11, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ENDS = NOW + 10 * MINUTE
WALLET, OTHER = 1, 2

amounts = st.decimals("0.000000000001", 10**9, places=12)
costs = st.just(ZERO) | amounts
#: Some before the hold's end, some at it, some after it.
minutes = st.integers(0, 12).map(lambda minute: NOW + minute * MINUTE)


def a_hold(amount: Decimal = Decimal(5), state: HoldState = HoldState.OPEN) -> Hold:
    captured = amount if state is HoldState.USED_UP else ZERO
    return Hold(WALLET, amount, captured, state, NOW, ENDS)


class Use(NamedTuple):
    """Usage that names the hold: what it costs, in which wallet, recorded when."""

    cost: Decimal
    wallet_id: int | None
    at: datetime


uses = st.builds(Use, costs, st.sampled_from([WALLET, WALLET, OTHER]), minutes)


@given(amounts, st.lists(uses, max_size=12))
def test_a_hold_gives_no_more_than_it_kept_back_and_each_capture_says_if_it_was_less(
    amount: Decimal, used: list[Use]
) -> None:
    """After each: what was taken and what is still reserved is the amount, and only what fell short is marked."""
    hold = a_hold(amount)

    total = ZERO
    for one in used:
        is_before_the_end = one.at < ENDS
        was = hold.reserved
        found = capture(hold, one.wallet_id, one.cost, one.at)
        total += found.taken

        assert hold.captured == total
        assert hold.reserved == amount - total
        assert (hold.state is HoldState.USED_UP) == (total == amount)
        may = one.wallet_id == WALLET and is_before_the_end
        assert found.taken == (min(one.cost, was) if may else ZERO)
        assert found.taken == one.cost if found.mark is None else found.taken <= one.cost


@given(amounts, st.lists(costs, max_size=12), st.randoms(use_true_random=False))
def test_in_whatever_order_usage_comes_a_hold_gives_the_same_in_all(
    amount: Decimal, used: list[Decimal], chance: object
) -> None:
    """The lesser of what it kept back and what was used."""
    shuffled = list(used)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]

    taken = sum((capture(hold, WALLET, cost, NOW).taken for hold in [a_hold(amount)] for cost in shuffled), ZERO)

    assert taken == min(amount, sum(used, ZERO))


@pytest.mark.parametrize(
    ("hold", "wallet_id", "now", "mark"),
    [
        (None, WALLET, NOW, CaptureMark.UNKNOWN),
        (a_hold(), OTHER, NOW, CaptureMark.OTHER_WALLET),
        (a_hold(), WALLET, ENDS, CaptureMark.EXPIRED),
        (a_hold(state=HoldState.EXPIRED), WALLET, NOW, CaptureMark.EXPIRED),
        (a_hold(state=HoldState.RELEASED), WALLET, NOW, CaptureMark.RELEASED),
        (a_hold(state=HoldState.USED_UP), WALLET, NOW, CaptureMark.BEYOND),
    ],
)
def test_usage_that_has_no_claim_takes_nothing_and_is_marked(
    hold: Hold | None, wallet_id: int, now: datetime, mark: CaptureMark
) -> None:
    before = hold and hold.reserved

    assert capture(hold, wallet_id, Decimal(3), now) == (ZERO, mark, None)
    assert (hold and hold.reserved) == before


def test_usage_that_a_plan_covers_takes_nothing_and_is_not_marked() -> None:
    assert capture(a_hold(), None, ZERO, NOW) == (ZERO, None, NOW)


@given(st.decimals(0, 10**9, places=18))
def test_what_is_reserved_has_the_places_of_a_wallet_and_is_enough(required: Decimal) -> None:
    reserved = to_reserve(required)

    assert required <= reserved < required + Decimal("1e-12")
    assert reserved.as_tuple().exponent == -12


class Kept(NamedTuple):
    """A grant that was valid when the hold was opened, and until when."""

    amount: Decimal
    expires_at: datetime | None


kept_grants = st.builds(Kept, amounts, st.none() | st.integers(1, 8).map(lambda minute: NOW + minute * MINUTE))


@given(st.lists(kept_grants, min_size=1, max_size=5), st.data())
def test_what_was_kept_back_is_never_debt_whatever_ends_meanwhile(known: list[Kept], data: st.DataObject) -> None:
    """Others may use what was not kept back, at any time; grants may end: the hold's usage finds its value."""
    grants = [Grant(f"g{n}", one.amount, None, one.expires_at, number=n) for n, one in enumerate(known)]
    total = sum((one.amount for one in known), ZERO)
    wallet = Standing(total, 0, grants=in_burn_order(grants))
    amount = to_reserve(
        total * data.draw(st.fractions(0, 1).map(lambda part: Decimal(part.numerator) / part.denominator))
    )
    amount = min(amount, total)
    wallet.reserved = amount
    others = data.draw(st.lists(minutes, max_size=3))
    for at in others:
        valid = sum((grant.remaining for grant in grants if grant.pays_for(at)), ZERO)
        spare = sum((grant.remaining for grant in grants), ZERO) - amount
        burn(wallet, min(valid, spare), at)
    cost = min(amount, data.draw(costs))

    change = burn_kept(wallet, cost, data.draw(minutes), amount, NOW)

    assert wallet.debt == 0
    assert sum(change.of(-cost).values(), ZERO) == -cost
    assert sum((grant.remaining for grant in grants), ZERO) >= amount - cost
    assert all(grant.remaining >= 0 for grant in grants)


def test_only_so_much_of_what_has_ended_is_taken_as_was_kept_back() -> None:
    """The rest of the usage is as any: it burns what is valid, and is debt beyond that."""
    ended = Grant("ended", Decimal(10), None, NOW + MINUTE)
    valid = Grant("valid", Decimal(1), number=1)
    wallet = Standing(Decimal(11), 0, grants=[ended, valid])

    change = burn_kept(wallet, Decimal(7), NOW + MINUTE, Decimal(4), NOW)

    assert change.parts == {"ended": Decimal(-4), "valid": Decimal(-1), "debt": Decimal(2)}
    assert (ended.remaining, valid.remaining, wallet.debt) == (Decimal(6), Decimal(0), Decimal(2))


def test_what_had_ended_before_the_hold_pays_for_nothing() -> None:
    ended = Grant("ended", Decimal(10), None, NOW)
    wallet = Standing(Decimal(10), 0, grants=[ended])

    change = burn_kept(wallet, Decimal(3), NOW + MINUTE, Decimal(3), NOW)

    assert change.of(Decimal(-3)) == {"debt": Decimal(3)}
    assert broken(wallet, ended) == 10
