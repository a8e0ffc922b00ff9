"""Subscriptions change, and every day of every month is paid for once, by what held on it."""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from billing.errors import CustomerNotFound, PlanNotFound, Rejected
from billing.plans import Anchor, Proration
from services.books.credits import break_expired
from services.collecting import cards
from services.collecting.collect import claim_due, collect
from services.collecting.gateways import gateway
from services.collecting.refunds import carry_out
from services.collecting.refunds import claim_due as claim_refunds
from services.cycle import subscriptions
from services.cycle.subscriptions import At
from tests.factories import TENANT, tokens
from tests.looking import entries, one, rows
from tests.services.collecting import captured
from tests.services.monthly import (
    APRIL,
    DAY,
    FEBRUARY,
    FEE,
    GRACE,
    JANUARY,
    MARCH,
    PREPAID,
    a_plan,
    fees,
    grants,
    joined,
    offered,
    periods,
    turned,
    used,
)

pytestmark = pytest.mark.usefixtures("billing_database")

DAILY = a_plan("monthly", proration=Proration.DAILY)
BIG = a_plan("big", fixed_fee_minor=90_000, included_tokens=20_000_000, proration=Proration.DAILY)


def collected(now: datetime) -> None:
    """Everything that is due is collected, and given back."""
    for tenant_id, payment_id in claim_due(now):
        collect(tenant_id, payment_id, gateway(), now)
    for tenant_id, refund_id in claim_refunds(now):
        carry_out(tenant_id, refund_id, gateway(), now)


def test_a_plan_changed_at_the_end_holds_from_the_next_period_on() -> None:
    offered(a_plan(), BIG)
    joined(JANUARY + DAY)

    since = subscriptions.change_plan(TENANT, "ana", "big", JANUARY + 5 * DAY)
    used(JANUARY + 6 * DAY, tokens(9_000_000))
    used(FEBRUARY + DAY, tokens(9_000_000))
    turned(FEBRUARY + DAY)

    assert since == FEBRUARY
    assert fees() == [(JANUARY, 0, FEE, "due"), (FEBRUARY, 0, 90_000, "due")]
    assert rows("SELECT period_start, tier FROM payments WHERE kind = 'tier'") == [(JANUARY, 1)]
    assert one("SELECT plan_id, next_plan_id FROM customers") == ("big", None)


def test_it_holds_even_for_usage_that_begins_the_period_before_any_tick() -> None:
    """Beat is away: the first event of February comes before anybody has looked."""
    offered(a_plan(), BIG)
    joined(JANUARY + DAY)
    subscriptions.change_plan(TENANT, "ana", "big", JANUARY + 5 * DAY)

    used(FEBRUARY + DAY, tokens(9_000_000))

    assert rows("SELECT plan_id FROM periods ORDER BY starts_at") == [("monthly",), ("big",)]
    assert rows("SELECT tier FROM payments WHERE kind = 'tier'") == []


def test_a_plan_changed_now_ends_the_period_and_each_plan_is_paid_for_its_days() -> None:
    """Ten days of January on one plan, 21 on the other; what was not collected yet is replaced by less."""
    offered(DAILY, BIG)
    joined(JANUARY, plan="monthly")
    turned(JANUARY)
    used(JANUARY + DAY, tokens(9_000_000))

    subscriptions.change_plan(TENANT, "ana", "big", JANUARY + 10 * DAY, At.NOW)
    used(JANUARY + 11 * DAY, tokens(9_000_000))

    changed_at = JANUARY + 10 * DAY
    assert periods() == [(JANUARY, changed_at), (changed_at, FEBRUARY)]
    assert fees() == [(JANUARY, 0, FEE, "voided"), (JANUARY, 1, 12_903, "due"), (changed_at, 0, 60_968, "due")]
    assert rows("SELECT period_start, tier FROM payments WHERE kind = 'tier'") == [(JANUARY, 1)]


def test_what_was_collected_already_goes_back_for_the_days_that_were_not_used() -> None:
    offered(DAILY, BIG)
    joined(JANUARY, plan="monthly")
    cards.attach(TENANT, "ana", "pm_card_visa", gateway(), JANUARY)
    turned(JANUARY)
    collected(JANUARY)

    subscriptions.change_plan(TENANT, "ana", "big", JANUARY + 10 * DAY, At.NOW)
    collected(JANUARY + 10 * DAY)

    old, new = rows("SELECT payment_id, state, refunded_minor FROM payments ORDER BY period_start")
    assert (old[1:], new[1:]) == (("partially_refunded", FEE - 12_903), ("succeeded", 0))
    assert {payment_id: minor for payment_id, (minor, _) in captured().items()} == {old[0]: FEE, new[0]: 60_968}


def test_without_proration_each_period_that_begins_costs_its_fee() -> None:
    offered(a_plan(), a_plan("other", fixed_fee_minor=50_000))
    joined(JANUARY)

    subscriptions.change_plan(TENANT, "ana", "other", JANUARY + 10 * DAY, At.NOW)

    assert [amount for _, _, amount, _ in fees()] == [FEE, 50_000]


def test_a_change_that_is_said_twice_without_a_key_costs_one_fee() -> None:
    """The answer was lost, and an operator says it again; a plan that was to follow does so no more."""
    offered(a_plan(), a_plan("other", fixed_fee_minor=50_000), BIG)
    joined(JANUARY)
    changed_at = JANUARY + 10 * DAY
    subscriptions.change_plan(TENANT, "ana", "other", changed_at, At.NOW)

    again = subscriptions.change_plan(TENANT, "ana", "other", JANUARY + 11 * DAY, At.NOW)
    subscriptions.change_plan(TENANT, "ana", "big", JANUARY + 12 * DAY)
    stays = subscriptions.change_plan(TENANT, "ana", "other", JANUARY + 13 * DAY, At.NOW)
    turned(FEBRUARY)

    assert (again, stays) == (changed_at, changed_at)
    assert [(start, amount) for start, _, amount, _ in fees()] == [
        (JANUARY, FEE),
        (changed_at, 50_000),
        (FEBRUARY, 50_000),
    ]


def test_a_plan_of_another_anchor_brings_its_months_along() -> None:
    offered(a_plan(), a_plan("joined", anchor=Anchor.JOINED))
    joined(JANUARY)

    subscriptions.change_plan(TENANT, "ana", "joined", JANUARY + 10 * DAY, At.NOW)
    turned(FEBRUARY + 15 * DAY)

    assert [(start.month, start.day) for start, _ in periods()] == [(1, 1), (1, 11), (2, 11)]


def test_while_it_is_paused_nothing_that_begins_owes_a_fee() -> None:
    offered(a_plan())
    joined(JANUARY + DAY)

    subscriptions.pause(TENANT, "ana", JANUARY + 5 * DAY)
    subscriptions.pause(TENANT, "ana", JANUARY + 6 * DAY)
    turned(MARCH + 5 * DAY)
    subscriptions.resume(TENANT, "ana", MARCH + 5 * DAY)
    subscriptions.resume(TENANT, "ana", MARCH + 6 * DAY)
    turned(APRIL + DAY)

    assert [start for start, *_ in fees()] == [JANUARY, MARCH, APRIL]
    assert [start for start, _ in periods()] == [JANUARY, FEBRUARY, MARCH, APRIL]


def test_a_pause_that_nobody_looked_into_owes_nothing_either() -> None:
    """Beat was away all the time: what held when a period began decides, not when somebody looks."""
    offered(a_plan())
    joined(JANUARY + DAY)

    subscriptions.pause(TENANT, "ana", JANUARY + 5 * DAY)
    subscriptions.resume(TENANT, "ana", MARCH + 5 * DAY)

    assert [start for start, *_ in fees()] == [JANUARY, MARCH]


def test_resumed_within_the_period_it_was_paused_in_it_owes_nothing_more() -> None:
    offered(a_plan())
    joined(JANUARY + DAY)

    subscriptions.pause(TENANT, "ana", JANUARY + 5 * DAY)
    subscriptions.resume(TENANT, "ana", JANUARY + 6 * DAY)

    assert [start for start, *_ in fees()] == [JANUARY]


def test_a_pause_within_the_period_leaves_each_day_of_it_to_be_paid() -> None:
    """The old plan for ten days, four of which it was paused: its fee had fallen due, and stands."""
    offered(DAILY, BIG)
    joined(JANUARY, plan="monthly")
    subscriptions.pause(TENANT, "ana", JANUARY + 5 * DAY)
    subscriptions.resume(TENANT, "ana", JANUARY + 9 * DAY)

    subscriptions.change_plan(TENANT, "ana", "big", JANUARY + 10 * DAY, At.NOW)

    assert fees() == [
        (JANUARY, 0, FEE, "voided"),
        (JANUARY, 1, 12_903, "due"),
        (JANUARY + 10 * DAY, 0, 60_968, "due"),
    ]


def test_resumed_in_the_middle_it_owes_the_days_that_are_left_where_the_plan_prorates() -> None:
    offered(DAILY)
    joined(JANUARY, plan="monthly")
    subscriptions.pause(TENANT, "ana", JANUARY + DAY)

    subscriptions.resume(TENANT, "ana", FEBRUARY + 14 * DAY)

    assert fees()[1:] == [(FEBRUARY, 0, FEE // 2, "due")]


def test_ended_at_the_end_of_the_period_nothing_follows() -> None:
    offered(a_plan())
    joined(JANUARY + DAY)

    ends_at = subscriptions.end(TENANT, "ana", JANUARY + 5 * DAY)
    turned(APRIL)

    assert ends_at == FEBRUARY
    assert [start for start, *_ in fees()] == [JANUARY]
    assert periods() == [(JANUARY, FEBRUARY)]


def test_ended_now_the_rest_is_not_collected_where_the_plan_prorates() -> None:
    offered(DAILY)
    joined(JANUARY, plan="monthly")

    subscriptions.end(TENANT, "ana", JANUARY + 10 * DAY, At.NOW)
    subscriptions.end(TENANT, "ana", JANUARY + 11 * DAY, At.NOW)
    turned(MARCH)

    assert fees() == [(JANUARY, 0, FEE, "voided"), (JANUARY, 1, 12_903, "due")]
    assert periods() == [(JANUARY, FEBRUARY)]


def test_usage_after_the_end_is_counted_without_a_gap_and_owes_no_fee() -> None:
    offered(a_plan())
    joined(JANUARY + DAY)
    subscriptions.end(TENANT, "ana", JANUARY + 5 * DAY)
    turned(FEBRUARY + DAY)

    used(APRIL + DAY, tokens(9_000_000))
    turned(APRIL + DAY)

    assert [start for start, _ in periods()] == [JANUARY, FEBRUARY, MARCH, APRIL]
    assert [start for start, *_ in fees()] == [JANUARY]
    assert rows("SELECT period_start, tier FROM payments WHERE kind = 'tier'") == [(APRIL, 1)]


def test_begun_again_a_new_period_begins_now() -> None:
    offered(a_plan(), BIG)
    joined(JANUARY + DAY)
    subscriptions.end(TENANT, "ana", JANUARY + 5 * DAY)

    subscriptions.subscribe(TENANT, "ana", "big", MARCH + 10 * DAY)
    turned(APRIL)

    assert [start for start, _ in periods()] == [JANUARY, FEBRUARY, MARCH, MARCH + 10 * DAY, APRIL]
    assert [(start, amount) for start, _, amount, _ in fees()] == [
        (JANUARY, FEE),
        (MARCH + 10 * DAY, 60_968),
        (APRIL, 90_000),
    ]


@pytest.mark.parametrize("is_collected", [True, False])
def test_begun_again_within_the_period_what_was_used_before_the_end_stays_paid_for(is_collected: bool) -> None:
    """Ten days, then five without a subscription, then the rest of the month on another plan."""
    offered(DAILY, BIG)
    joined(JANUARY, plan="monthly")
    cards.attach(TENANT, "ana", "pm_card_visa", gateway(), JANUARY)
    turned(JANUARY)
    subscriptions.end(TENANT, "ana", JANUARY + 10 * DAY, At.NOW)
    if is_collected:
        collected(JANUARY + 10 * DAY)

    subscriptions.subscribe(TENANT, "ana", "big", JANUARY + 15 * DAY)
    collected(JANUARY + 15 * DAY)

    state = "succeeded"
    assert fees() == [
        (JANUARY, 0, FEE, "voided"),
        (JANUARY, 1, 12_903, state),
        (JANUARY + 15 * DAY, 0, 46_452, state),
    ]
    assert sorted(minor for minor, _ in captured().values()) == [12_903, 46_452]
    assert rows("SELECT refund_id FROM refunds") == []


def test_free_credits_end_with_the_period_that_a_change_has_cut() -> None:
    """Whoever changes plans five times a day has those of the last one, and what was used of the others."""
    month = replace(PREPAID, plan_id="monthly", free_credits=Decimal(10), free_credits_currency="USD")
    offered(month, replace(month, plan_id="other", free_credits=Decimal(20)))
    joined(JANUARY)
    used(JANUARY + timedelta(minutes=5), tokens(100_000))  # USD 3.00

    for hour in range(1, 6):
        plan = "other" if hour % 2 else "monthly"
        subscriptions.change_plan(TENANT, "ana", plan, JANUARY + timedelta(hours=hour), At.NOW)
    used(JANUARY + timedelta(minutes=30), tokens(100_000), came=JANUARY + DAY)  # late: of the first
    used(JANUARY + DAY, tokens(1_000_000))  # USD 30.00
    break_expired(JANUARY + DAY + GRACE)

    given = [amount for amount, _ in grants()]
    assert given == [Decimal(amount) for amount in (10, 20, 10, 20, 10, 20)]
    assert [left for _, left in grants()] == [Decimal(0)] * 6
    assert one("SELECT balance, debt FROM wallets WHERE currency = 'USD'") == (Decimal(-10), Decimal(10))
    broken = [entry.amount for entry in entries("ana") if entry.kind == "breakage"]
    assert sorted(broken) == [Decimal(-20), Decimal(-20), Decimal(-10), Decimal(-10), Decimal(-4)]


def test_paused_at_the_very_turn_the_days_of_the_month_that_has_begun_stay_paid_for() -> None:
    """Its fee had fallen due; half of it is owed when the plan is changed in the middle."""
    offered(DAILY, BIG)
    joined(JANUARY, plan="monthly")
    subscriptions.pause(TENANT, "ana", FEBRUARY)
    subscriptions.resume(TENANT, "ana", FEBRUARY + 5 * DAY)

    subscriptions.change_plan(TENANT, "ana", "big", FEBRUARY + 14 * DAY, At.NOW)

    assert fees()[1:] == [
        (FEBRUARY, 0, FEE, "voided"),
        (FEBRUARY, 1, FEE // 2, "due"),
        (FEBRUARY + 14 * DAY, 0, 45_000, "due"),
    ]


def test_no_plan_follows_on_a_subscription_that_ends_with_its_period() -> None:
    offered(a_plan(), BIG)
    joined(JANUARY)
    subscriptions.end(TENANT, "ana", JANUARY + DAY)

    with pytest.raises(Rejected, match="ends at 2026-02-01T03:00:00"):
        subscriptions.change_plan(TENANT, "ana", "big", JANUARY + 2 * DAY)

    assert one("SELECT plan_id, next_plan_id FROM customers") == ("monthly", None)


def test_changed_now_a_subscription_that_was_to_end_ends_with_the_new_period() -> None:
    """Each day is paid for once, also when it is begun again before that."""
    offered(DAILY, BIG, a_plan("joined", anchor=Anchor.JOINED, proration=Proration.DAILY))
    joined(JANUARY, plan="monthly")
    subscriptions.end(TENANT, "ana", JANUARY + 5 * DAY)
    subscriptions.change_plan(TENANT, "ana", "joined", JANUARY + 10 * DAY, At.NOW)

    changed_at = JANUARY + 10 * DAY
    turned(FEBRUARY + 5 * DAY)
    with pytest.raises(Rejected, match="change the plan instead"):
        subscriptions.subscribe(TENANT, "ana", "big", FEBRUARY + 5 * DAY)
    turned(MARCH)

    assert one("SELECT ended_at FROM customers") == (FEBRUARY + 10 * DAY,)
    assert [(start, amount) for start, _, amount, state in fees() if state == "due"] == [
        (JANUARY, 12_903),
        (changed_at, FEE),
    ]


def test_what_a_subscription_went_through_is_written_down() -> None:
    offered(a_plan(), BIG)
    joined(JANUARY)
    subscriptions.change_plan(TENANT, "ana", "big", JANUARY + DAY)
    subscriptions.change_zone(TENANT, "ana", "Asia/Tokyo", JANUARY + 2 * DAY)
    subscriptions.end(TENANT, "ana", JANUARY + 3 * DAY)

    history = subscriptions.history(TENANT, "ana")

    assert [(one.at, one.move, one.effective_at) for one in history] == [
        (JANUARY + DAY, "plan_changed", FEBRUARY),
        (JANUARY + 2 * DAY, "zone_changed", FEBRUARY),
        (JANUARY + 3 * DAY, "ended", FEBRUARY),
    ]


def test_what_can_not_be_is_refused_in_a_sentence() -> None:
    offered(a_plan(), BIG)
    joined(JANUARY)
    subscriptions.end(TENANT, "ana", JANUARY + DAY)

    with pytest.raises(Rejected, match="has ended; begin another"):
        subscriptions.pause(TENANT, "ana", FEBRUARY + DAY)
    with pytest.raises(Rejected, match="not a time zone"):
        subscriptions.change_zone(TENANT, "ana", "Mars/Olympus", JANUARY + DAY)
    with pytest.raises(PlanNotFound):
        subscriptions.change_plan(TENANT, "ana", "nothing", JANUARY + DAY)
    with pytest.raises(CustomerNotFound):
        subscriptions.pause(TENANT, "nobody", JANUARY + DAY)
    with pytest.raises(Rejected, match="change the plan instead"):
        subscriptions.subscribe(TENANT, "ana", "big", JANUARY + DAY)


def test_a_plan_is_not_changed_under_a_period_that_has_begun_ahead() -> None:
    """An event that was half an hour ahead has begun February on the plan of now."""
    offered(a_plan(), BIG)
    joined(JANUARY)
    now = FEBRUARY - timedelta(minutes=10)
    used(FEBRUARY + timedelta(minutes=20), tokens(1), came=now)

    with pytest.raises(Rejected, match="ahead of its time"):
        subscriptions.change_plan(TENANT, "ana", "big", now)

    assert one("SELECT tokens, plan_id FROM periods WHERE starts_at = %s", FEBRUARY) == (1, "monthly")


def test_what_was_asked_for_before_the_turn_and_comes_after_it_is_refused_in_a_sentence() -> None:
    """It waited for the tick, which has let February's fee fall due."""
    offered(a_plan())
    joined(JANUARY)
    turned(FEBRUARY)

    with pytest.raises(Rejected, match="has begun while this waited"):
        subscriptions.pause(TENANT, "ana", FEBRUARY - timedelta(milliseconds=10))

    assert one("SELECT paused_at FROM customers") == (None,)
    assert subscriptions.pause(TENANT, "ana", FEBRUARY + DAY) == FEBRUARY + DAY
