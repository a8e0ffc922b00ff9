"""Subscriptions change, and every day of every month is paid for once, by what held on it."""

from datetime import datetime, timedelta

import pytest

from billing.errors import CustomerNotFound, PlanNotFound, Rejected
from billing.plans import Anchor, Proration
from services.collecting import cards
from services.collecting.collect import claim_due, collect
from services.collecting.gateways import gateway
from services.collecting.refunds import carry_out
from services.collecting.refunds import claim_due as claim_refunds
from services.cycle import subscriptions
from services.cycle.subscriptions import At
from tests.factories import TENANT, tokens
from tests.looking import one, rows
from tests.services.collecting import captured
from tests.services.monthly import (
    APRIL,
    DAY,
    FEBRUARY,
    FEE,
    JANUARY,
    MARCH,
    a_plan,
    fees,
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
