"""What a period owes and gets: covered or not, which share of the fee, and once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.periods import NEAR, Calendar, Period, Terms, calendar_month, missing
from billing.plans import Anchor, Plan, Proration
from billing.subscriptions import Subscription, anchor_day, fee_minor, free_credits_id, prorated

INSTALLATION = UUID(int=7)
FEE = 40_000
WHOLE = Plan("acme", "basic", 1, "Basic", "BRL", FEE, 0, None, 0)
DAILY = replace(WHOLE, proration=Proration.DAILY)
PLAN = ("basic", 1)

ZONES = ["America/Sao_Paulo", "America/Havana", "Europe/Lisbon", "Asia/Kathmandu", "Pacific/Kiritimati", "UTC"]
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
moments = st.integers(0, 20 * 365 * 86_400_000_000).map(lambda micros: EPOCH + timedelta(microseconds=micros))
calendars = st.builds(Calendar, st.sampled_from(ZONES), st.integers(1, 31))
fees = st.integers(0, 10**9)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def month_of(calendar: Calendar, moment: datetime) -> Period:
    return Period(*calendar.month_around(moment), *PLAN, time_zone=calendar.time_zone)


NOVEMBER = month_of(Calendar("UTC"), at("2026-11-20"))


@pytest.mark.parametrize(
    ("subscription", "is_covered"),
    [
        (Subscription(at("2026-01-01")), True),
        (Subscription(at("2026-11-30T23:59:59.999999")), True),
        (Subscription(at("2026-12-01")), False),
        (Subscription(at("2026-01-01"), paused_at=at("2026-11-01T00:00:00.000001")), True),
        (Subscription(at("2026-01-01"), paused_at=at("2026-11-01")), False),
        (Subscription(at("2026-01-01"), ended_at=at("2026-11-01T00:00:00.000001")), True),
        (Subscription(at("2026-01-01"), ended_at=at("2026-11-01")), False),
        (Subscription(at("2026-01-01"), ended_at=at("2026-12-01")), True),
        (Subscription(at("2026-01-01"), paused_at=at("2026-11-10"), ended_at=at("2026-10-10")), False),
        (Subscription(at("2026-11-10"), paused_at=at("2026-11-12")), True),
    ],
)
def test_a_period_is_covered_when_the_subscription_went_on_in_it(subscription: Subscription, is_covered: bool) -> None:
    """A pause or an end waits for the next period; who subscribes on the last day is billed from that day on."""
    assert subscription.covers(NOVEMBER) == is_covered


@given(st.builds(Subscription, moments, st.none() | moments, st.none() | moments), moments, calendars)
def test_what_has_stopped_covers_no_later_period(
    subscription: Subscription, moment: datetime, calendar: Calendar
) -> None:
    """And what has not begun to cover has covered none before: the periods of a subscription follow one another."""
    first = month_of(calendar, moment)
    chain = [first, *missing([first], moment + timedelta(days=90), Terms(calendar, PLAN))]

    covered = [subscription.covers(period) for period in chain]

    begun = covered.index(True) if True in covered else 0
    assert covered[begun:] == sorted(covered[begun:], reverse=True)


@pytest.mark.parametrize(
    ("anchor", "joined_at", "zone", "day"),
    [
        (Anchor.CALENDAR, "2026-11-20", "UTC", 1),
        (Anchor.JOINED, "2026-11-20", "UTC", 20),
        (Anchor.JOINED, "2026-11-01T02:59", "America/Sao_Paulo", 31),
        (Anchor.JOINED, "2026-11-01T03:00", "America/Sao_Paulo", 1),
        (Anchor.JOINED, "2026-11-20T10:00", "Pacific/Kiritimati", 21),
    ],
)
def test_months_begin_on_the_first_or_on_the_day_of_joining_where_the_customer_is(
    anchor: Anchor, joined_at: str, zone: str, day: int
) -> None:
    assert anchor_day(replace(WHOLE, anchor=anchor), at(joined_at), zone) == day


@given(moments, st.sampled_from(ZONES))
def test_who_joins_has_joined_on_the_first_day_of_a_month(joined_at: datetime, zone: str) -> None:
    """So the first month owes the whole fee."""
    plan = replace(DAILY, anchor=Anchor.JOINED)
    calendar = Calendar(zone, anchor_day(plan, joined_at, zone))

    assert fee_minor(plan, month_of(calendar, joined_at), calendar, joined_at) == FEE


@pytest.mark.parametrize(
    ("plan", "since", "fee"),
    [
        (WHOLE, "2026-11-30T23:59", 40_000),
        (DAILY, "2026-10-01", 40_000),
        (DAILY, "2026-11-01", 40_000),
        (DAILY, "2026-11-01T23:59", 40_000),
        (DAILY, "2026-11-02", 38_667),
        (DAILY, "2026-11-16", 20_000),
        (DAILY, "2026-11-16T23:59", 20_000),
        (DAILY, "2026-11-30T23:59", 1_333),
    ],
)
def test_a_fee_is_the_share_of_the_days_from_the_first_that_is_billed(plan: Plan, since: str, fee: int) -> None:
    """The day itself counts, whatever the hour; without proration a day costs the month."""
    assert fee_minor(plan, NOVEMBER, Calendar("UTC"), at(since)) == fee


def test_the_rest_of_a_month_costs_its_days_however_long_the_customer_is_billed() -> None:
    """Who moves to another day of the month owes the days until then."""
    rest = Period(at("2026-11-16"), at("2026-12-01"), *PLAN)

    assert fee_minor(DAILY, rest, Calendar("UTC"), at("2020-01-01")) == FEE // 2


@pytest.mark.parametrize(
    ("fixed_fee", "since", "until", "share"),
    [
        (1, "2026-11-01", "2026-11-16", 0),
        (3, "2026-11-01", "2026-11-16", 2),
        (FEE, "2026-11-16", "2026-11-01", 0),
        (FEE, "2026-11-16", "2026-11-16T23:59", 0),
        (FEE, "2026-10-01", "2027-01-01", FEE),
    ],
)
def test_a_share_is_rounded_half_even_and_lies_between_nothing_and_the_fee(
    fixed_fee: int, since: str, until: str, share: int
) -> None:
    assert prorated(fixed_fee, DAILY, NOVEMBER, Calendar("UTC"), at(since), at(until)) == share


def test_days_are_counted_where_the_period_is() -> None:
    """Two in the morning of the sixteenth in UTC is the fifteenth in São Paulo, and that day counts."""
    calendar = Calendar("America/Sao_Paulo")
    november = month_of(calendar, at("2026-11-20"))

    assert fee_minor(DAILY, november, calendar, at("2026-11-16T02:00")) == 21_333
    assert fee_minor(DAILY, november, calendar, at("2026-11-16T03:00")) == 20_000


@given(fees, moments, calendars, moments, moments)
def test_a_share_never_exceeds_the_fee(
    fee: int, moment: datetime, calendar: Calendar, since: datetime, until: datetime
) -> None:
    assert 0 <= prorated(fee, DAILY, month_of(calendar, moment), calendar, since, until) <= fee


@given(fees, moments, calendars, moments, moments)
def test_who_is_billed_from_an_earlier_day_never_owes_less(
    fee: int, moment: datetime, calendar: Calendar, one: datetime, other: datetime
) -> None:
    plan, period = replace(DAILY, fixed_fee_minor=fee), month_of(calendar, moment)
    earlier, later = sorted(period.starts_at + (one - EPOCH) % timedelta(days=32) for one in (one, other))

    assert fee_minor(plan, period, calendar, earlier) >= fee_minor(plan, period, calendar, later)


@given(fees, moments, calendars, calendars, st.floats(0, 1))
def test_the_parts_of_a_period_add_up_to_what_the_whole_costs(
    fee: int, moment: datetime, calendar: Calendar, moved: Calendar, where: float
) -> None:
    """Wherever it is split, within one minor unit: each day is in one part. Also where a move made it longer."""
    month = month_of(calendar, moment)
    (after,) = missing([month], month.ends_at, Terms(moved, PLAN))
    for period, its_calendar in ((month, calendar), (after, moved)):
        middle = period.starts_at + (period.ends_at - period.starts_at) * where

        first = prorated(fee, DAILY, period, its_calendar, period.starts_at, middle)
        second = prorated(fee, DAILY, period, its_calendar, middle, period.ends_at)

        whole = prorated(fee, DAILY, period, its_calendar, period.starts_at, period.ends_at)
        assert abs(first + second - whole) <= 1


def test_a_whole_month_is_the_whole_fee_in_every_zone() -> None:
    """Also where clocks change in it: two years of each zone of the world, from the first and from the last day."""
    for zone in sorted(available_timezones() - {"localtime", "posixrules", "Factory"}):
        for day in (1, 31):
            calendar = Calendar(zone, day)
            period = month_of(calendar, EPOCH)
            for _ in range(24):
                assert fee_minor(DAILY, period, calendar, period.starts_at) == FEE, (zone, period)
                period = month_of(calendar, period.ends_at)


@given(moments, calendars, calendars, st.integers(0, 100))
def test_a_period_that_holds_a_month_costs_one_fee(
    moment: datetime, calendar: Calendar, moved: Calendar, days: int
) -> None:
    """Longer because the customer moved by hours or to another day: not more, and not the share of another month."""
    first = month_of(calendar, moment)
    chain = missing([first], moment + timedelta(days=days), Terms(moved, PLAN))

    for period in chain:
        start, end = moved.month_around(period.starts_at + NEAR)
        fee = fee_minor(DAILY, period, moved, EPOCH)
        assert fee <= FEE
        if period.starts_at <= start and end <= period.ends_at:
            assert fee == FEE, period


def test_a_february_that_begins_some_hours_early_costs_one_fee() -> None:
    """Its first day is in January, which has more days than it has."""
    january = Period(*calendar_month(at("2026-01-15"), "Pacific/Kiritimati"), *PLAN)
    calendar = Calendar("America/Sao_Paulo")

    (february,) = missing([january], at("2026-02-15"), Terms(calendar, PLAN))

    assert february.starts_at.date().isoformat() == "2026-01-31"
    assert february.ends_at == calendar.month_around(at("2026-02-15"))[1]
    assert fee_minor(DAILY, february, calendar, EPOCH) == FEE


def an_id(**changes: Any) -> UUID:
    fields = {"installation": INSTALLATION, "tenant_id": "ac", "customer_id": "me", "period_start": at("2026-11-01")}
    return free_credits_id(**(fields | changes))  # type: ignore[arg-type]


def test_the_credits_of_a_period_have_one_id_for_ever() -> None:
    """Another one for the same period would be a second gift: a release that changes it gives twice."""
    here = datetime.fromisoformat("2026-10-31T21:00:00-03:00")

    assert an_id() == an_id(period_start=here) == UUID("ea9fda09-31c0-5627-bb65-23ceff69db71")


@pytest.mark.parametrize(
    "changes",
    [
        {"installation": UUID(int=8)},
        {"tenant_id": "a"},
        {"customer_id": "m"},
        {"tenant_id": "a", "customer_id": "cme"},
        {"period_start": at("2026-12-01")},
    ],
)
def test_the_credits_of_another_period_have_another_id(changes: dict[str, Any]) -> None:
    """Of another customer, tenant or database, too."""
    assert an_id(**changes) != an_id()
