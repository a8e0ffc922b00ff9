"""Months in every zone, and the one an event counts in."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import BrokenInvariant
from billing.periods import NEAR, Calendar, Period, Terms, begin, calendar_month, missing, place

ZONES = [
    "America/Sao_Paulo",
    "Europe/Lisbon",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "America/Havana",  # on the first of November 2026 midnight comes twice
    "Africa/Cairo",  # on the last of October 2030 the hour before midnight comes twice
    "Australia/Lord_Howe",
    "America/St_Johns",
    "UTC",
]
PLAN = ("tiers-8m", 1)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
#: The longest: 31 days in which clocks go back.
A_MONTH = timedelta(days=31, hours=2)


def on(zone: str = "UTC", plan: tuple[str, int] = PLAN) -> Terms:
    """The terms of a customer of calendar months."""
    return Terms(Calendar(zone), plan)


EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
moments = st.integers(0, 50 * 365 * 86_400_000_000).map(lambda micros: EPOCH + timedelta(microseconds=micros))


#: The days of the month that not every month has, and two that each has.
ANCHORS = [1, 28, 29, 30, 31]
#: Fifty years of them, from 2015 on: number and days.
MONTHS = [(month, monthrange(year, month)[1]) for year in range(2015, 2065) for month in range(1, 13)]
calendars = st.builds(Calendar, st.sampled_from(ZONES), st.sampled_from(ANCHORS))
TICK = timedelta(microseconds=1)


@given(moments, calendars)
def test_a_month_holds_its_moment_and_the_next_begins_where_it_ends(moment: datetime, calendar: Calendar) -> None:
    """After ninety minutes, too: by then midnight may have come a second time."""
    start, end = calendar.month_around(moment)

    assert start <= moment < end
    for inside in (start, start + timedelta(minutes=90), end - TICK):
        assert calendar.month_around(inside) == (start, end)
    assert calendar.month_around(end)[0] == end
    assert timedelta(days=27) < end - start <= A_MONTH


def test_no_zone_of_the_world_loses_or_doubles_a_moment() -> None:
    """Every zone, fifty years, every day to begin on: each month starts where the last ended, on its day."""
    for name in sorted(available_timezones() - {"localtime", "posixrules", "Factory"}):
        zone = ZoneInfo(name)
        for anchor in ANCHORS:
            calendar = Calendar(name, anchor)
            end = calendar.month_around(datetime(2015, 1, 15, tzinfo=UTC))[1]
            local = end.astimezone(zone)
            for month, days in MONTHS[local.month - 1 :]:
                start, following = calendar.month_around(end)
                assert start == end < following, (calendar, end)
                local = start.astimezone(zone)
                assert (local.month, local.day) == (month, min(anchor, days)), (calendar, start)
                end = following


@pytest.mark.parametrize(
    ("anchor", "days"),
    [
        (31, "01-31 02-29 03-31 04-30 05-31 06-30 07-31 08-31 09-30 10-31 11-30 12-31"),
        (30, "01-30 02-29 03-30 04-30 05-30 06-30 07-30 08-30 09-30 10-30 11-30 12-30"),
        (29, "01-29 02-29 03-29 04-29 05-29 06-29 07-29 08-29 09-29 10-29 11-29 12-29"),
        (28, "01-28 02-28 03-28 04-28 05-28 06-28 07-28 08-28 09-28 10-28 11-28 12-28"),
    ],
)
def test_a_day_that_a_month_lacks_is_its_last_and_comes_back(anchor: int, days: str) -> None:
    """The 31st stays the 31st: a short month does not move those behind it. 2028 has a 29 February, 2027 has none."""
    calendar = Calendar("UTC", anchor)

    starts = [calendar.month_around(datetime(2028, month, 1, tzinfo=UTC))[1] for month in range(1, 13)]

    assert " ".join(f"{start:%m-%d}" for start in starts) == days
    assert calendar.month_around(datetime(2027, 2, 1, tzinfo=UTC))[1].isoformat() == "2027-02-28T00:00:00+00:00"


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        ("UTC", "2026-11-01T00:00:00+00:00"),
        ("America/Sao_Paulo", "2026-11-01T03:00:00+00:00"),
        ("Asia/Kathmandu", "2026-10-31T18:15:00+00:00"),
        ("Pacific/Apia", "2026-10-31T11:00:00+00:00"),
        ("America/Havana", "2026-11-01T04:00:00+00:00"),
    ],
)
def test_a_month_begins_at_the_first_midnight_of_its_zone(zone: str, start: str) -> None:
    assert calendar_month(datetime(2026, 11, 20, tzinfo=UTC), zone)[0].isoformat() == start


class Step(NamedTuple):
    """Something that happens to a customer: a moment seen, on a calendar that may have changed meanwhile."""

    moment: datetime
    calendar: Calendar
    is_followed: bool


steps = st.builds(
    Step,
    # Near each other, so that months meet; and now and then at a boundary itself.
    st.one_of(
        st.integers(0, 150 * 24).map(lambda hours: BEGAN + timedelta(hours=hours)),
        st.builds(lambda c, n: c.month_around(BEGAN + n * timedelta(days=29))[1], calendars, st.integers(0, 5)),
        moments,
    ),
    st.builds(Calendar, st.sampled_from(ZONES), st.just(1) | st.integers(1, 31)),
    st.booleans(),
)


def happened(customer: list[Step]) -> list[Period]:
    """The rows that a customer has after it: each moment is placed, or the rows are followed up to it."""
    known: list[Period] = []
    for moment, calendar, is_followed in customer:
        terms = Terms(calendar, PLAN)
        if is_followed and known:
            known += missing(known, moment, terms)
        else:
            placed = place(moment, known, moment, terms)
            assert placed.period.holds(moment)
            assert not placed.is_late
            known += [placed.period] if placed.period not in known else []
    return sorted(known)


@given(st.lists(steps, min_size=1, max_size=12))
def test_periods_begun_in_any_order_never_overlap_and_are_about_a_month(customer: list[Step]) -> None:
    """Whatever zones and days they moved to on the way: no month of some hours, which would have a fee of its own.

    Longer than a month and `NEAR` is only what lies between two rows, neither of which can be moved.
    """
    known = happened(customer)

    gaps = [later.starts_at - earlier.ends_at for earlier, later in pairwise(known)]
    assert all(not gap or gap >= NEAR for gap in gaps)
    assert min(period.ends_at - period.starts_at for period in known) >= NEAR
    ends, starts = {period.ends_at for period in known}, {period.starts_at for period in known}
    for period in known:
        is_between = period.starts_at in ends and period.ends_at in starts
        assert period.ends_at - period.starts_at < A_MONTH + (2 * NEAR if is_between else NEAR)


@given(st.lists(steps, min_size=1, max_size=8), steps)
def test_what_follows_leaves_no_gap(customer: list[Step], last: Step) -> None:
    """From the first row to the moment asked for, and nothing begins after that, whatever rows of later there are.

    The rows that were there stay as they were.
    """
    known = happened(customer)
    terms = Terms(last.calendar, PLAN)

    begun = missing(known, last.moment, terms)

    chain = sorted([*known, *begun])
    by_then = [period for period in chain if period.starts_at <= last.moment]
    assert all(earlier.ends_at == later.starts_at for earlier, later in pairwise(by_then))
    gaps = [later.starts_at - earlier.ends_at for earlier, later in pairwise(chain)]
    assert all(not gap or gap >= NEAR for gap in gaps)
    assert chain[-1].ends_at > last.moment
    assert all(period.is_new for period in begun)
    assert begun == sorted(begun)
    assert not any(period.starts_at > last.moment for period in begun)
    assert missing(chain, last.moment, terms) == []


@given(st.lists(steps, max_size=8), steps, moments)
def test_a_period_is_on_the_plan_of_the_moment_it_begins(customer: list[Step], last: Step, next_at: datetime) -> None:
    """A change of plan waits for the next period: one that begins at that very moment is on it."""
    known = happened(customer)
    terms = Terms(last.calendar, PLAN, ("prepaid", 2), next_at)

    begun = [*missing(known, last.moment, terms), place(last.moment, known, last.moment, terms).period]

    for period in begun:
        if period.is_new and period not in known:
            assert period.plan_key == (("prepaid", 2) if period.starts_at >= next_at else PLAN)
            assert period.time_zone == last.calendar.time_zone
    assert terms.plan_at(next_at) == ("prepaid", 2)
    assert terms.plan_at(next_at - TICK) == PLAN


@given(st.lists(steps, min_size=1, max_size=8), st.integers(0, 8), steps)
def test_what_is_before_a_closed_period_is_late(customer: list[Step], closed: int, seen: Step) -> None:
    """Row or no row: its time is over. It counts in the current period."""
    rows = happened(customer)
    known = [period._replace(is_closed=number < closed) for number, period in enumerate(rows)]
    now = max(known[-1].ends_at, seen.moment) + A_MONTH
    terms = Terms(seen.calendar, PLAN)

    placed = place(seen.moment, known, now, terms)

    over = max((period.ends_at for period in known if period.is_closed), default=BEGAN - 30 * 366 * timedelta(days=1))
    assert placed.is_late == (seen.moment < over)
    assert placed.period.holds(now if placed.is_late else seen.moment)
    assert not placed.period.is_closed


def test_the_rest_of_a_month_before_a_row_that_begins_in_it_joins_the_month_before() -> None:
    """Who moved west of where their month began: late on the last of October there is no month of three hours."""
    november = Period(*calendar_month(datetime(2026, 11, 15, tzinfo=UTC), "America/Sao_Paulo"), *PLAN)

    begun = begin(datetime(2026, 11, 1, 1, tzinfo=UTC), [november], on("UTC"))

    assert (begun.starts_at, begun.ends_at) == (datetime(2026, 10, 1, tzinfo=UTC), november.starts_at)


def test_who_moves_east_gets_no_month_of_some_hours() -> None:
    """The month that a zone begins earlier is cut by the row that is there, and so is not begun for its rest."""
    november = Period(*calendar_month(datetime(2026, 11, 15, tzinfo=UTC), "America/Sao_Paulo"), *PLAN)

    begun = missing([november], november.ends_at, on("Pacific/Kiritimati"))

    assert [(period.starts_at, period.ends_at) for period in begun] == [
        (november.ends_at, calendar_month(datetime(2026, 12, 15, tzinfo=UTC), "Pacific/Kiritimati")[1])
    ]


def a_month(month: int, *, is_closed: bool = False) -> Period:
    start, end = calendar_month(datetime(2026, month, 15, tzinfo=UTC), "America/Sao_Paulo")
    return Period(start, end, *PLAN, is_closed=is_closed)


def test_an_event_counts_in_the_period_it_occurred_in_while_that_is_open() -> None:
    october, november = a_month(10), a_month(11)

    placed = place(datetime(2026, 10, 31, tzinfo=UTC), [october, november], datetime(2026, 11, 2, tzinfo=UTC), on())

    assert (placed.period, placed.is_late) == (october, False)


def test_after_that_it_counts_in_the_current_one_and_is_late() -> None:
    october, november = a_month(10, is_closed=True), a_month(11)

    placed = place(datetime(2026, 10, 31, tzinfo=UTC), [october, november], datetime(2026, 11, 6, tzinfo=UTC), on())

    assert (placed.period, placed.is_late) == (november, True)


def test_the_current_period_is_begun_when_the_one_it_occurred_in_is_closed_and_it_is_the_first() -> None:
    october = a_month(10, is_closed=True)

    placed = place(
        datetime(2026, 10, 31, tzinfo=UTC), [october], datetime(2026, 11, 6, tzinfo=UTC), on("America/Sao_Paulo")
    )

    assert (placed.period.starts_at, placed.period.is_new, placed.is_late) == (october.ends_at, True, True)


def test_bounds_are_half_open() -> None:
    """The first moment belongs to a period, the last one to the next."""
    october, november = a_month(10), a_month(11)
    first = november.starts_at

    before = place(first - timedelta(microseconds=1), [october, november], first, on())

    assert before.period == october
    assert place(first, [october, november], first, on()).period == november


def test_a_plan_is_taken_from_the_row_where_there_is_one() -> None:
    """A change of plan takes effect with the next period: the row keeps the version it began on."""
    november = a_month(11)

    placed = place(november.starts_at, [november], november.starts_at, on(plan=("prepaid", 7)))

    assert (placed.period.plan_id, placed.period.plan_version) == PLAN


def test_a_current_period_that_is_closed_stops_everything() -> None:
    """There is nowhere to count: better an error that is seen than a transaction run for ever."""
    november = a_month(11, is_closed=True)

    with pytest.raises(BrokenInvariant, match="closed before its end"):
        place(november.starts_at, [november], november.starts_at, on())
