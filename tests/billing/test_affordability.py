"""Whether something can be afforded: by a wallet, by a period, and what stops both."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.affordability import (
    FAILED,
    Affordability,
    Check,
    Cover,
    FeeStops,
    Refusal,
    afford_quotas,
    afford_tokens,
    afford_value,
    check_buffer,
    is_fee_missing,
)
from billing.errors import Rejected
from billing.payments import PAID, PaymentState
from billing.quotas import Measure, Per, Quota, QuotaKind, Scope, reached
from billing.tiers import tiers_begun
from tests.billing.made import PREPAID, TIERS

MILLION = 1_000_000
BUFFER = Decimal("1.2")
NONE = Decimal(1)

values = st.decimals(-1000, 1000, places=6)
costs = st.decimals(0, 1000, places=12)
buffers = st.decimals(1, 100, places=3)


@st.composite
def covers(draw: st.DrawFn) -> Cover:
    """A customer on tiers, somewhere in a period, with whatever stands against them."""
    return Cover(
        TIERS,
        draw(st.integers(0, 100 * MILLION)),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, 8)),
        draw(st.none() | st.integers(0, 8)),
        draw(st.booleans()),
    )


@given(values, costs, costs, buffers)
def test_who_affords_a_cost_affords_any_smaller_one(
    available: Decimal, cost: Decimal, other: Decimal, buffer: Decimal
) -> None:
    """And exactly when it is there with the buffer; what costs nothing is always affordable."""
    smaller, larger = sorted((cost, other))

    one, two = (afford_value(available, each, "USD", buffer, Cover(PREPAID)) for each in (smaller, larger))

    assert one.is_affordable or not two.is_affordable
    assert two.is_affordable == (available >= larger * buffer or larger == 0)
    assert two.required == larger * buffer


@given(covers(), st.integers(0, 100 * MILLION), st.integers(0, 100 * MILLION), buffers)
def test_who_affords_tokens_affords_fewer(cover: Cover, tokens: int, other: int, buffer: Decimal) -> None:
    fewer, more = sorted((tokens, other))

    assert afford_tokens(fewer, buffer, cover).is_affordable or not afford_tokens(more, buffer, cover).is_affordable


@given(covers(), st.integers(1, 100 * MILLION))
def test_tokens_that_are_affordable_open_no_more_tiers_than_the_plan_bears(cover: Cover, tokens: int) -> None:
    """Nor more than the caps let through, nor any for who is held; and one that is stopped affords nothing."""
    check = afford_tokens(tokens, NONE, cover)
    begun = len(tiers_begun(cover.tokens, cover.tokens + tokens, TIERS))

    if cover.stop is not None:
        assert check == Check("token", Decimal(0), Decimal(tokens), cover.stop)
        return
    bound = 0 if cover.is_held else TIERS.open_tiers_max - cover.open_tiers
    if cover.tiers_collectable is not None:
        bound = min(bound, cover.tiers_collectable)
    assert check.is_affordable == (begun <= bound)
    assert check.available >= 0


@given(covers(), st.integers(0, 100 * MILLION))
def test_what_stands_against_a_customer_never_helps(cover: Cover, tokens: int) -> None:
    plain = Cover(TIERS, cover.tokens)

    assert afford_tokens(tokens, NONE, cover).available <= afford_tokens(tokens, NONE, plain).available


@pytest.mark.parametrize(
    ("changes", "available", "refusal"),
    [
        ({}, 48 * MILLION, None),
        ({"tokens": 8 * MILLION}, 40 * MILLION, None),
        ({"tokens": 8 * MILLION + 1, "open_tiers": 1}, 40 * MILLION - 1, None),
        ({"tokens": 8 * MILLION, "open_tiers": 4, "is_held": True}, 0, Refusal.HELD),
        ({"tokens": 3 * MILLION, "is_held": True}, 5 * MILLION, None),
        ({"tokens": 8 * MILLION, "tiers_collectable": 0}, 0, Refusal.CAP_REACHED),
        ({"open_tiers": 5}, 0, Refusal.OPEN_TIERS),
        ({"is_fee_missing": True}, 0, Refusal.FEE_UNPAID),
        ({"is_subscribed": False}, 0, Refusal.NOT_SUBSCRIBED),
    ],
)
def test_what_fee_and_tiers_cover(changes: dict[str, Any], available: int, refusal: Refusal | None) -> None:
    """For a million tokens, and a fifth more."""
    found = afford_tokens(MILLION, BUFFER, replace(Cover(TIERS), **changes))

    assert found == Check("token", Decimal(available), Decimal(1_200_000), refusal)


def test_tokens_are_asked_for_whole() -> None:
    """A fifth of one token more is two."""
    assert afford_tokens(1, BUFFER, Cover(TIERS)).required == 2


def test_who_is_stopped_affords_nothing_from_the_wallet_either() -> None:
    stopped = replace(Cover(TIERS), open_tiers=5)

    assert afford_value(Decimal(100), Decimal(1), "BRL", NONE, stopped).refusal is Refusal.OPEN_TIERS
    assert afford_value(Decimal(100), Decimal(1), "BRL", NONE, Cover(PREPAID, is_subscribed=False)).is_affordable


def test_a_fee_stops_as_the_installation_says() -> None:
    """Where none is owed, none is missing."""
    states = {*PaymentState, None} - {PaymentState.VOIDED}
    stopped = {
        stops: {state for state in states if is_fee_missing(stops, TIERS, state, is_opened=True)} for stops in FeeStops
    }

    assert stopped == {
        FeeStops.NEVER: set(),
        FeeStops.FAILED: set(FAILED),
        FeeStops.UNPAID: states - PAID - {None},
    }
    assert is_fee_missing(FeeStops.UNPAID, TIERS, None, is_opened=False)
    assert not is_fee_missing(FeeStops.UNPAID, PREPAID, None, is_opened=False)


def test_an_answer_is_as_its_first_refusal() -> None:
    enough, too_little = Check("token", NONE, NONE, None), Check("USD", NONE, BUFFER, Refusal.INSUFFICIENT)

    answer = Affordability((enough, too_little))

    assert (answer.is_affordable, answer.unit, answer.reason) == (False, "USD", Refusal.INSUFFICIENT)
    assert (answer.available, answer.required) == (NONE, BUFFER)
    assert Affordability((enough,)).is_affordable


@pytest.mark.parametrize("buffer", ["0.99", "-1", "100.1", "NaN", "Infinity"])
def test_a_buffer_is_a_number_of_at_least_one(buffer: str) -> None:
    with pytest.raises(Rejected, match="a buffer lies between 1 and 100"):
        check_buffer(Decimal(buffer))


def a_quota(limit: Decimal, measure: Measure, kind: QuotaKind = QuotaKind.QUOTA) -> Quota:
    currency = "USD" if measure is Measure.COST else None
    whose = ("acme", 1, "q", kind, Scope.CUSTOMER, "ana", None, None)
    return Quota(*whose, Per.MONTH, "UTC", measure, currency, limit, is_hard=True)


@given(costs, costs, st.integers(0, 10**9), costs, st.sampled_from(Measure))
def test_a_quota_leaves_room_exactly_for_what_does_not_go_over_it(
    limit: Decimal, used: Decimal, tokens: int, cost: Decimal, measure: Measure
) -> None:
    """After what was afforded, the counter is at its limit at most; what was refused would be above, or it is full."""
    quota = a_quota(limit, measure)

    (check,) = afford_quotas([(quota, used)], Decimal(tokens), cost, "USD")

    after = used + check.required
    assert check.required == quota.amount(tokens, cost)
    assert check.is_affordable == (after <= limit and used < limit)
    assert check.available == max(Decimal(0), limit - used)
    assert check.is_affordable or after > limit or 100 in reached(used, limit)


def test_a_cap_is_the_customers_and_another_currency_is_none_of_its_business() -> None:
    cap = a_quota(Decimal(1), Measure.COST, QuotaKind.CAP)

    (refused,) = afford_quotas([(cap, Decimal(0))], Decimal(0), Decimal(2), "USD")

    assert (refused.refusal, refused.unit, refused.quota) == (Refusal.CUSTOMER_CAP, "USD", "q")
    assert afford_quotas([(cap, Decimal(0))], Decimal(0), Decimal(2), "BRL") == []
    assert afford_quotas([(cap, Decimal(0))], Decimal(0), Decimal(2), None) == []
