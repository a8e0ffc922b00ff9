"""The order of a payment's life, and the id that follows from what it is for."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import payments
from billing.payments import (
    COLLECTABLE,
    PAID,
    RANKS,
    WAITING,
    WAITS_FOR_CARD,
    PaymentKind,
    PaymentState,
    is_forward,
    payment_id,
)

places = st.tuples(st.integers(0, 4), st.sampled_from(PaymentState))
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
NATURAL: dict[str, Any] = {
    "installation": UUID(int=1),
    "tenant_id": "acme",
    "customer_id": "ana",
    "period_start": datetime(2026, 11, 1, 3, tzinfo=UTC),
    "kind": PaymentKind.TIER,
    "tier": 2,
    "generation": 0,
}


def drawn() -> dict[PaymentState, int]:
    """The ranks as the module's docstring draws them: a number, and the states named after it."""
    assert payments.__doc__
    ranks: dict[PaymentState, int] = {}
    for number, words in re.findall(r"^ {4}(\d)  (.+(?:\n {6,}.+)*)", payments.__doc__, re.MULTILINE):
        for state in PaymentState:
            if re.search(rf"\b{state}\b", words):
                assert state not in ranks, f"{state} is drawn twice"
                ranks[state] = int(number)
    return ranks


def test_the_drawing_shows_every_state_at_its_rank() -> None:
    assert drawn() == RANKS


@given(places, places)
def test_forward_is_what_the_drawing_says(before: tuple[int, PaymentState], after: tuple[int, PaymentState]) -> None:
    """What is over stays over, but for money that moved; until then more attempts are further on, then the rank."""
    ranks = drawn()
    open_at_most = ranks[PaymentState.DUE]
    was_over, is_over = ranks[before[1]] > open_at_most, ranks[after[1]] > open_at_most
    if after[0] < before[0]:
        expected = False
    elif was_over or is_over:
        expected = is_over and ranks[before[1]] <= ranks[after[1]]
    else:
        expected = after[0] > before[0] or ranks[before[1]] <= ranks[after[1]]

    assert is_forward(before, after) == expected


@given(places, places, places)
def test_forward_is_a_preorder(
    one: tuple[int, PaymentState], two: tuple[int, PaymentState], three: tuple[int, PaymentState]
) -> None:
    """Staying is forward, and two moves make one."""
    assert is_forward(one, one)
    assert is_forward(one, three) or not (is_forward(one, two) and is_forward(two, three))


@given(st.lists(places, min_size=1, max_size=20))
def test_whoever_follows_only_forward_moves_never_loses_money_that_moved(told: list[tuple[int, PaymentState]]) -> None:
    """However disordered the news: what is paid stays paid."""
    at = told[0]
    for news in told[1:]:
        if is_forward(at, news):
            assert at[1] not in PAID or news[1] in PAID
            at = news

    assert at[1] in PAID or not any(news[1] in PAID and news[0] >= at[0] for news in told)


@pytest.mark.parametrize(
    ("before", "after", "is_right"),
    [
        ((0, "due"), (1, "submitting"), True),
        ((1, "submitting"), (1, "unknown"), True),
        ((1, "unknown"), (1, "processing"), True),
        ((1, "processing"), (1, "retry_scheduled"), True),
        ((1, "retry_scheduled"), (1, "needs_payment_method"), True),
        ((1, "needs_payment_method"), (1, "due"), True),
        ((1, "retry_scheduled"), (2, "submitting"), True),
        ((1, "voided"), (1, "succeeded"), True),
        ((1, "disputed"), (1, "succeeded"), True),
        ((1, "succeeded"), (1, "refunded"), True),
        ((1, "succeeded"), (1, "voided"), False),
        ((1, "succeeded"), (1, "due"), False),
        ((1, "voided"), (1, "due"), False),
        ((1, "retry_scheduled"), (1, "submitting"), False),
        ((1, "processing"), (1, "submitting"), False),
        ((2, "submitting"), (1, "succeeded"), False),
        ((1, "succeeded"), (2, "submitting"), False),
        ((1, "voided"), (2, "submitting"), False),
    ],
)
def test_moves_that_happen_and_moves_that_must_not(
    before: tuple[int, str], after: tuple[int, str], is_right: bool
) -> None:
    assert is_forward((before[0], PaymentState(before[1])), (after[0], PaymentState(after[1]))) is is_right


def test_what_waits_what_is_collected_and_what_is_paid_are_kept_apart() -> None:
    """Every state is in one group of the drawing; a new card helps only what waits, a sweep never what is over."""
    over = PAID | {PaymentState.VOIDED}

    assert WAITING.isdisjoint(over)
    assert COLLECTABLE.isdisjoint(over)
    assert WAITS_FOR_CARD < WAITING
    assert set(PaymentState) == over | WAITING | {
        PaymentState.SUBMITTING,
        PaymentState.UNKNOWN,
        PaymentState.PROCESSING,
    }


def test_a_payment_without_reference_is_called_as_it_always_was() -> None:
    """Ids that are written at Stripe must come out the same for ever."""
    known = UUID("0301179c-ac9d-5f12-9f1e-73af95461c6b")

    assert payment_id(**NATURAL) == payment_id(**NATURAL, reference="") == known


@given(names, names)
def test_a_reference_makes_another_payment(one: str, two: str) -> None:
    ids = {payment_id(**NATURAL), payment_id(**NATURAL, reference=one), payment_id(**NATURAL, reference=two)}

    assert len(ids) == (2 if one == two else 3)


@pytest.mark.parametrize(
    "change",
    [
        {"installation": UUID(int=2)},
        {"tenant_id": "other"},
        {"customer_id": "bob"},
        {"period_start": datetime(2026, 12, 1, 3, tzinfo=UTC)},
        {"kind": PaymentKind.SUBSCRIPTION},
        {"tier": 3},
        {"generation": 1},
        {"tenant_id": "ac", "customer_id": "meana"},
        {"tier": 20, "generation": 0},
    ],
)
def test_another_debt_has_another_id(change: dict[str, Any]) -> None:
    assert payment_id(**(NATURAL | change)) != payment_id(**NATURAL)


@given(st.integers(-14 * 60, 14 * 60))
def test_the_same_moment_is_the_same_debt_however_it_is_written(minutes: int) -> None:
    there = NATURAL["period_start"].astimezone(timezone(timedelta(minutes=minutes)))

    assert payment_id(**(NATURAL | {"period_start": there})) == payment_id(**NATURAL)
