"""When a declined payment is tried again: the customer's days, the customer's morning."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from billing.dunning import BETWEEN_TRIES_MIN, DEFAULT_DAYS, DEFAULT_HOUR, TRIES_MAX, Schedule
from billing.errors import CatalogueMalformed
from tests.billing.made import TIERS

ZONES = ["America/Sao_Paulo", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Kiritimati", "UTC"]
EPOCH = datetime(2010, 1, 1, tzinfo=UTC)

moments = st.integers(0, 25 * 365 * 86_400).map(lambda seconds: EPOCH + timedelta(seconds=seconds))
zones = st.sampled_from(ZONES)
schedules = st.builds(
    Schedule,
    st.sets(st.integers(1, 30), min_size=1, max_size=TRIES_MAX).map(lambda days: tuple(sorted(days))),
    st.integers(0, 23),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("zone", "first", "schedule", "expected"),
    [
        pytest.param(
            "America/Sao_Paulo",
            "2026-11-20T15:00-03:00",
            Schedule(),
            ["2026-11-21T12:00Z", "2026-11-23T12:00Z", "2026-11-25T12:00Z", "2026-11-27T12:00Z"],
            id="days after the first attempt, at nine in Sao Paulo",
        ),
        pytest.param(
            "America/Sao_Paulo",
            "2026-11-21T01:30Z",
            Schedule((2,)),
            ["2026-11-22T12:00Z"],
            id="the customer's day is still the day before",
        ),
        pytest.param(
            "Asia/Kathmandu",
            "2026-11-20T18:30Z",
            Schedule((1, 2), 6),
            ["2026-11-22T00:15Z", "2026-11-23T00:15Z"],
            id="the customer's day is already the next, a quarter to six ahead",
        ),
        pytest.param(
            "America/Sao_Paulo",
            "2018-11-03T12:00Z",
            Schedule((1, 2), 0),
            ["2018-11-04T03:00Z", "2018-11-05T02:00Z"],
            id="midnight that a clock put forward left out: the hour after it",
        ),
        pytest.param(
            "America/Sao_Paulo",
            "2018-02-16T12:00Z",
            Schedule((1, 2, 3), 23),
            ["2018-02-18T01:00Z", "2018-02-19T02:00Z", "2018-02-20T02:00Z"],
            id="an hour that comes twice: the first time",
        ),
        pytest.param(
            "America/New_York",
            "2027-03-12T17:00Z",
            Schedule((1, 3), 9),
            ["2027-03-13T14:00Z", "2027-03-15T13:00Z"],
            id="nine before and nine after the clocks go forward",
        ),
        pytest.param(
            "America/New_York",
            "2027-03-12T17:00Z",
            Schedule((2,), 2),
            ["2027-03-14T07:00Z"],
            id="two o'clock that is left out: three o'clock",
        ),
        pytest.param(
            "America/New_York",
            "2026-10-30T16:00Z",
            Schedule((1, 2, 3), 9),
            ["2026-10-31T13:00Z", "2026-11-01T14:00Z", "2026-11-02T14:00Z"],
            id="nine before and nine after the clocks go back",
        ),
        pytest.param(
            "America/New_York",
            "2026-10-30T16:00Z",
            Schedule((2,), 1),
            ["2026-11-01T05:00Z"],
            id="one o'clock that comes twice: the first time",
        ),
        pytest.param(
            "Asia/Kathmandu",
            "2028-02-28T06:00Z",
            Schedule((1, 2), 9),
            ["2028-02-29T03:15Z", "2028-03-01T03:15Z"],
            id="over a leap day",
        ),
    ],
)
def test_the_days_and_the_hour_are_the_customers(
    zone: str, first: str, schedule: Schedule, expected: list[str]
) -> None:
    began = at(first)

    planned = [schedule.next_attempt_at(began, declines, zone, began) for declines in range(1, len(schedule.days) + 1)]

    assert planned == [at(one) for one in expected]


@given(schedules, moments, zones, st.data())
def test_each_try_is_at_the_hour_of_its_day_or_twelve_hours_from_now(
    schedule: Schedule, first: datetime, zone: str, data: st.DataObject
) -> None:
    """Whatever the clocks do: the local hour is the plan's, unless the day leaves it out, and then it is the next."""
    declines = data.draw(st.integers(1, len(schedule.days)))
    now = first + timedelta(seconds=data.draw(st.integers(0, 40 * 86_400)))

    planned = schedule.next_attempt_at(first, declines, zone, now)

    assert planned is not None
    assert planned >= now + BETWEEN_TRIES_MIN
    assume(planned > now + BETWEEN_TRIES_MIN)
    local = planned.astimezone(ZoneInfo(zone))
    day = first.astimezone(ZoneInfo(zone)).date() + timedelta(days=schedule.days[declines - 1])
    assert local.date() == day
    wall = local.replace(tzinfo=None) - datetime.combine(day, datetime.min.time())
    assert wall - timedelta(hours=schedule.hour) in {timedelta(0), timedelta(minutes=30), timedelta(hours=1)}


@given(schedules, moments, zones)
def test_a_late_sweep_still_leaves_time_between_tries(schedule: Schedule, first: datetime, zone: str) -> None:
    """Found a month later, all planned days are past: the next try is in twelve hours, not at once."""
    now = first + timedelta(days=60)

    assert schedule.next_attempt_at(first, 1, zone, now) == now + timedelta(hours=12)


@given(schedules, moments, zones)
def test_each_try_comes_after_the_one_before(schedule: Schedule, first: datetime, zone: str) -> None:
    """Each is declined when it is made; half a day is between any two."""
    tries = [first]
    for declines in range(1, len(schedule.days) + 1):
        following = schedule.next_attempt_at(first, declines, zone, tries[-1])
        assert following is not None
        tries.append(following)

    assert all(later - earlier >= timedelta(hours=12) for earlier, later in pairwise(tries))
    assert schedule.next_attempt_at(first, len(tries), zone, tries[-1]) is None


@pytest.mark.parametrize("declines", [-1, 0, 5, 6, 100])
def test_without_a_decline_or_beyond_the_schedule_there_is_no_next_try(declines: int) -> None:
    assert Schedule().next_attempt_at(EPOCH, declines, "UTC", EPOCH) is None


def test_a_plan_without_days_tries_once() -> None:
    once = Schedule(())

    assert once.problem() is None
    assert once.next_attempt_at(EPOCH, 1, "UTC", EPOCH) is None


def test_unless_a_plan_says_otherwise_it_is_one_three_five_seven_days_at_nine() -> None:
    assert Schedule() == TIERS.dunning == Schedule((1, 3, 5, 7), 9)
    assert (DEFAULT_DAYS, DEFAULT_HOUR) == ((1, 3, 5, 7), 9)


@given(schedules)
def test_rising_days_and_an_hour_of_the_day_are_no_problem(schedule: Schedule) -> None:
    assert schedule.problem() is None


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        (Schedule((0, 1)), "dunning_days [0, 1] are to rise, from 1 on"),
        (Schedule((-1,)), "dunning_days [-1] are to rise, from 1 on"),
        (Schedule((1, 1)), "dunning_days [1, 1] are to rise, from 1 on"),
        (Schedule((1, 5, 3)), "dunning_days [1, 5, 3] are to rise, from 1 on"),
        (
            Schedule(tuple(range(1, 12))),
            "dunning_days has 11 days; a card is not tried more than 10 times again",
        ),
        (Schedule(hour=24), "dunning_hour 24 is no hour of the day"),
        (Schedule(hour=-1), "dunning_hour -1 is no hour of the day"),
    ],
)
def test_a_schedule_that_makes_no_sense_says_what_is_wrong(schedule: Schedule, says: str) -> None:
    """And no plan can be made with it."""
    assert schedule.problem() == says
    with pytest.raises(CatalogueMalformed) as refused:
        replace(TIERS, dunning_days=schedule.days, dunning_hour=schedule.hour)
    assert says in str(refused.value)


@given(st.lists(st.integers(-2, 30), max_size=12), st.integers(-2, 26))
def test_what_is_wrong_is_found_in_any_schedule(days: list[int], hour: int) -> None:
    is_right = len(days) <= 10 and days == sorted({day for day in days if day > 0}) and hour in range(24)

    assert (Schedule(tuple(days), hour).problem() is None) == is_right
