"""Months in every zone, and the one an event counts in."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import BrokenInvariant
from billing.periods import Period, calendar_month, place

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
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
moments = st.integers(0, 20 * 365 * 86_400_000_000).map(lambda micros: EPOCH + timedelta(microseconds=micros))


@given(moments, st.sampled_from(ZONES))
def test_a_month_holds_its_moment_and_the_next_begins_where_it_ends(moment: datetime, zone: str) -> None:
    start, end = calendar_month(moment, zone)
    last = end - timedelta(microseconds=1)

    assert start <= moment < end
    assert calendar_month(start, zone) == calendar_month(last, zone) == (start, end)
    assert calendar_month(end, zone)[0] == end
    assert timedelta(days=28) - timedelta(hours=2) < end - start < timedelta(days=31) + timedelta(hours=2)


def test_no_zone_of_the_world_loses_or_doubles_a_moment() -> None:
    """Every zone, every month of ten years: each starts where the last ended."""
    for zone in sorted(available_timezones() - {"localtime", "posixrules", "Factory"}):
        start, end = calendar_month(datetime(2025, 1, 15, tzinfo=UTC), zone)
        for _ in range(120):
            # After ninety minutes, too: by then midnight may have come a second time.
            for moment in (start + timedelta(minutes=90), end - timedelta(microseconds=1)):
                assert calendar_month(moment, zone) == (start, end), (zone, moment)
            following = calendar_month(end, zone)
            assert following[0] == end, (zone, end)
            start, end = following


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


@given(st.lists(moments, min_size=1, max_size=12), st.sampled_from(ZONES), st.sampled_from(ZONES))
def test_periods_begun_in_any_order_never_overlap_and_hold_their_events(
    occurred: list[datetime], zone: str, other: str
) -> None:
    """Even when the customer moves to another zone on the way."""
    known: list[Period] = []
    for number, moment in enumerate(occurred):
        placed = place(moment, known, moment, zone if number % 2 else other, PLAN)

        assert placed.period.starts_at <= moment < placed.period.ends_at
        assert not placed.is_late
        if placed.period not in known:
            known.append(placed.period)

    spans = sorted((period.starts_at, period.ends_at) for period in known)
    assert all(start < end for start, end in spans)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))


def a_month(month: int, *, is_closed: bool = False) -> Period:
    start, end = calendar_month(datetime(2026, month, 15, tzinfo=UTC), "America/Sao_Paulo")
    return Period(start, end, *PLAN, is_closed=is_closed)


def test_an_event_counts_in_the_period_it_occurred_in_while_that_is_open() -> None:
    october, november = a_month(10), a_month(11)

    placed = place(
        datetime(2026, 10, 31, tzinfo=UTC), [october, november], datetime(2026, 11, 2, tzinfo=UTC), "UTC", PLAN
    )

    assert (placed.period, placed.is_late) == (october, False)


def test_after_that_it_counts_in_the_current_one_and_is_late() -> None:
    october, november = a_month(10, is_closed=True), a_month(11)

    placed = place(
        datetime(2026, 10, 31, tzinfo=UTC), [october, november], datetime(2026, 11, 6, tzinfo=UTC), "UTC", PLAN
    )

    assert (placed.period, placed.is_late) == (november, True)


def test_the_current_period_is_begun_when_the_one_it_occurred_in_is_closed_and_it_is_the_first() -> None:
    october = a_month(10, is_closed=True)

    placed = place(
        datetime(2026, 10, 31, tzinfo=UTC), [october], datetime(2026, 11, 6, tzinfo=UTC), "America/Sao_Paulo", PLAN
    )

    assert (placed.period.starts_at, placed.period.is_new, placed.is_late) == (october.ends_at, True, True)


def test_bounds_are_half_open() -> None:
    """The first moment belongs to a period, the last one to the next."""
    october, november = a_month(10), a_month(11)
    first = november.starts_at

    before = place(first - timedelta(microseconds=1), [october, november], first, "UTC", PLAN)

    assert before.period == october
    assert place(first, [october, november], first, "UTC", PLAN).period == november


def test_a_plan_is_taken_from_the_row_where_there_is_one() -> None:
    """A change of plan takes effect with the next period: the row keeps the version it began on."""
    november = a_month(11)

    placed = place(november.starts_at, [november], november.starts_at, "UTC", ("prepaid", 7))

    assert (placed.period.plan_id, placed.period.plan_version) == PLAN


def test_a_current_period_that_is_closed_stops_everything() -> None:
    """There is nowhere to count: better an error that is seen than a transaction run for ever."""
    november = a_month(11, is_closed=True)

    with pytest.raises(BrokenInvariant, match="closed before its end"):
        place(november.starts_at, [november], november.starts_at, "UTC", PLAN)
