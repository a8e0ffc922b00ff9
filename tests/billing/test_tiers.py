"""Which tiers so many tokens owe."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import CatalogueMalformed
from billing.plans import Plan
from billing.tiers import nearing, tiers_begun, tiers_owed
from tests.billing.made import PREPAID, TIERS

tokens = st.integers(0, 10**15)
plans = st.builds(
    lambda included, size: replace(TIERS, included_tokens=included, tier_size=size),
    st.integers(0, 10**12),
    st.integers(1, 10**12),
)


@pytest.mark.parametrize(
    ("used", "owed"),
    [
        (0, 0),
        (7_999_999, 0),
        (8_000_000, 0),
        (8_000_001, 1),
        (10_000_000, 1),
        (16_000_000, 1),
        (16_000_001, 2),
        (24_000_000, 2),
        (24_000_001, 3),
    ],
)
def test_each_further_tier_that_is_begun_is_owed(used: int, owed: int) -> None:
    """8M included, tiers of 8M: the boundaries belong to the tier below."""
    assert tiers_owed(used, TIERS) == owed


@given(tokens, plans)
def test_what_is_owed_just_covers_what_was_used(used: int, plan: Plan) -> None:
    """The fewest tiers that, with what is included, hold all the tokens: ceil((used - included) / size)."""
    owed = tiers_owed(used, plan)

    assert plan.tier_size is not None
    assert plan.included_tokens + owed * plan.tier_size >= used
    assert owed == 0 or plan.included_tokens + (owed - 1) * plan.tier_size < used


@given(tokens, tokens, plans)
def test_more_tokens_never_owe_less(used: int, more: int, plan: Plan) -> None:
    assert tiers_owed(used, plan) <= tiers_owed(used + more, plan)


@given(st.lists(st.integers(0, 50_000_000), max_size=12))
def test_crossing_in_steps_begins_each_tier_once(steps: list[int]) -> None:
    """However usage is cut into events, the tiers begun are 1, 2, … up to what the sum owes."""
    begun: list[int] = []
    total = 0
    for step in steps:
        begun += tiers_begun(total, total + step, TIERS)
        total += step

    assert begun == list(range(1, tiers_owed(sum(steps), TIERS) + 1))


@given(tokens)
def test_a_plan_without_tiers_owes_none(used: int) -> None:
    assert tiers_owed(used, PREPAID) == 0


@pytest.mark.parametrize(
    "nonsense",
    [{"tier_size": 0}, {"tier_size": -1}, {"tier_fee_minor": 0}, {"included_tokens": -1}, {"fixed_fee_minor": -1}],
)
def test_a_plan_that_makes_no_sense_cannot_be_made(nonsense: dict[str, int]) -> None:
    with pytest.raises(CatalogueMalformed, match="tiers-8m"):
        replace(TIERS, **nonsense)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        (0, 6_399_999, []),
        (6_399_999, 6_400_000, [(0, 8_000_000, 80)]),
        (6_400_000, 7_999_999, []),
        (7_999_999, 8_000_001, [(0, 8_000_000, 100)]),
        (8_000_000, 14_400_000, [(1, 16_000_000, 80)]),
        (0, 16_000_000, [(0, 8_000_000, 80), (0, 8_000_000, 100), (1, 16_000_000, 80), (1, 16_000_000, 100)]),
    ],
)
def test_a_tier_nears_its_end_at_80_and_100_percent(
    before: int, after: int, passed: list[tuple[int, int, int]]
) -> None:
    assert nearing(before, after, TIERS) == passed


@given(plans, st.integers(0, 10**12), st.lists(st.integers(0, 10**12), max_size=8))
def test_each_threshold_of_a_tier_is_passed_once_however_usage_is_cut(plan: Plan, first: int, steps: list[int]) -> None:
    """Bounded to a few tiers: a period is, too."""
    assert plan.tier_size is not None
    told, used = [], 0
    for step in (first % (plan.included_tokens + 1), *(step % (3 * plan.tier_size) for step in steps)):
        told += nearing(used, used + step, plan)
        used += step

    assert told == nearing(0, used, plan)
    assert len(set(told)) == len(told)
    assert all(one.percent in {80, 100} and one.covered > 0 for one in told)


def test_a_plan_without_tiers_nears_nothing() -> None:
    assert nearing(0, 10**9, PREPAID) == []
