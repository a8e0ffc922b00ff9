"""What must come of a year, reckoned here in plain arithmetic, apart from the rules under test.

A customer's months are built one after the other, from what they joined with and changed to; then each event is
put where it belongs by when it occurred and when it was sent. Nothing of `billing.periods` or its like is used.
"""

import calendar
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

from billing.plans import Anchor, Plan, Proration
from sandbox.year_plan import (
    PLANS,
    SECOND_PRICE,
    TOKEN_PRICE,
    Change,
    Kind,
    Person,
    Use,
    Year,
)
from tasks import names

#: A month that would be shorter, because of a change, is one with the next.
SHORTEST = timedelta(days=2)


@dataclass(slots=True)
class Month:
    """One month of a customer, and what must come of it."""

    starts_at: datetime
    ends_at: datetime
    plan: Plan
    zone: str
    anchor_day: int
    is_covered: bool
    fee_minor: int = 0
    credits: Decimal = Decimal(0)
    billed_from: datetime | None = None
    closes_at: datetime | None = None
    tokens: int = 0
    events: int = 0
    late: int = 0
    cost: Decimal = Decimal(0)

    @property
    def tiers(self) -> int:
        """One for each eight million tokens, or part of them, beyond those included."""
        size = self.plan.tier_size
        return 0 if size is None else max(0, -(-(self.tokens - self.plan.included_tokens) // size))


def expected(year: Year) -> dict[str, list[Month]]:
    """The months of every customer, with all that counts in them."""
    closing = _Closing(year)
    found = {}
    for person in year.people:
        months = months_of(person, year.ends_at)
        closing.settle(person, months)
        found[person.customer_id] = months
    for use in year.all_uses:
        _count(use, found[use.customer_id])
    return found


def boundaries(zone: str, anchor_day: int, since: datetime) -> Iterator[datetime]:
    """The beginnings of months after a moment: midnight of the anchor day, or of the last day of a shorter month.

    >>> nexts = boundaries("America/New_York", 31, datetime(2028, 2, 1, tzinfo=UTC))
    >>> [next(nexts).isoformat() for _ in range(2)]
    ['2028-02-29T05:00:00+00:00', '2028-03-31T04:00:00+00:00']
    """
    local = since.astimezone(ZoneInfo(zone))
    year, month = local.year, local.month
    while True:
        boundary = _boundary(zone, anchor_day, year, month)
        if boundary > since:
            yield boundary
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)


def _boundary(zone: str, anchor_day: int, year: int, month: int) -> datetime:
    day = min(anchor_day, calendar.monthrange(year, month)[1])
    return datetime(year, month, day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def _month_around(zone: str, anchor_day: int, moment: datetime) -> tuple[datetime, datetime]:
    """The whole month that holds a moment."""
    long_before = moment - timedelta(days=70)
    before = long_before
    for boundary in boundaries(zone, anchor_day, long_before):
        if boundary > moment:
            return before, boundary
        before = boundary
    raise AssertionError("there is always another month")


def months_of(person: Person, until: datetime) -> list[Month]:
    """A customer's months up to a moment, each beginning where the last one ended."""
    life = _Life(person)
    for change in person.changes:
        if change.at <= until:
            life.go_on(change.at)
            life.make(change)
    life.go_on(until)
    return life.months


class _Life:
    """A customer's months, as they go by."""

    def __init__(self, person: Person) -> None:
        self._zone = person.zone
        self._plan = PLANS[person.plan]
        self._anchor_day = _anchor_day(self._plan, person.zone, person.joins_at)
        self._next_plan: Plan | None = None
        self._is_paused = False
        self._ends_at: datetime | None = None
        self._billed_from = person.joins_at
        self.months: list[Month] = []
        self._begin(*_month_around(self._zone, self._anchor_day, person.joins_at))

    def go_on(self, until: datetime) -> None:
        """Begin every month that begins by then."""
        while (starts_at := self.months[-1].ends_at) <= until and not (self._ends_at and self._ends_at <= starts_at):
            self._plan, self._next_plan = self._next_plan or self._plan, None
            self._begin(starts_at, self._end_after(starts_at))

    def make(self, change: Change) -> None:
        """Let a change happen, in the month that goes on then."""
        current = self.months[-1]
        match change.kind:
            case Kind.ZONE:
                self._zone = change.to
            case Kind.PLAN:
                self._next_plan = PLANS[change.to]
            case Kind.PLAN_NOW:
                self._change_now(current, PLANS[change.to], change.at)
            case Kind.PAUSE:
                self._is_paused = True
            case Kind.RESUME:
                self._is_paused, self._billed_from = False, change.at
                if not current.is_covered:
                    self._cover(current)
            case Kind.END:
                self._ends_at = current.ends_at

    def _change_now(self, current: Month, plan: Plan, at: datetime) -> None:
        if current.is_covered and current.plan.proration is Proration.DAILY:
            current.fee_minor = _share(current, max(current.starts_at, self._billed_from), at)
        current.ends_at = at
        self._plan, self._next_plan = plan, None
        self._anchor_day = _anchor_day(plan, self._zone, at)
        self._begin(at, self._end_after(at))

    def _end_after(self, starts_at: datetime) -> datetime:
        return next(one for one in boundaries(self._zone, self._anchor_day, starts_at) if one - starts_at >= SHORTEST)

    def _begin(self, starts_at: datetime, ends_at: datetime) -> None:
        month = Month(starts_at, ends_at, self._plan, self._zone, self._anchor_day, is_covered=False)
        self.months.append(month)
        if not self._is_paused:
            self._cover(month)

    def _cover(self, month: Month) -> None:
        """A month that is paid for: its fee, whole or for the days that are left of it, and its free credits."""
        month.is_covered = True
        month.credits = month.plan.free_credits or Decimal(0)
        month.fee_minor = month.plan.fixed_fee_minor
        if month.plan.proration is Proration.DAILY:
            month.fee_minor = _share(month, max(month.starts_at, self._billed_from), month.ends_at)


def _anchor_day(plan: Plan, zone: str, at: datetime) -> int:
    return 1 if plan.anchor is Anchor.CALENDAR else at.astimezone(ZoneInfo(zone)).day


def _share(month: Month, since: datetime, until: datetime) -> int:
    """The share of a month's fee for some of its days, to the nearest minor unit, a half to the even one.

    The days are those of the calendar's month that ends with it, or its own, if a move has given it more.
    """
    of_calendar = _month_around(month.zone, month.anchor_day, month.ends_at - timedelta.resolution)
    whole = max(_days(*of_calendar, month.zone), _days(month.starts_at, month.ends_at, month.zone))
    days = min(_days(since, until, month.zone), whole)
    return round(Fraction(month.plan.fixed_fee_minor * days, whole))


def _days(since: datetime, until: datetime, zone: str) -> int:
    return until.astimezone(ZoneInfo(zone)).toordinal() - since.astimezone(ZoneInfo(zone)).toordinal()


class _Closing:
    """When months are closed: at the first step that says so after their grace, and after they were seen to begin."""

    def __init__(self, year: Year) -> None:
        self._turns = [step.at for step in year.steps if step.says(names.TURN_MONTHS)]
        self._closes = [step.at for step in year.steps if step.says(names.CLOSE_PERIODS)]

    def settle(self, person: Person, months: Sequence[Month]) -> None:
        """Say of each month of a customer when it is closed, if it is."""
        # Whatever somebody changes brings them up to now, also when no tick does.
        turns = sorted({*self._turns, *(change.at for change in person.changes if change.kind is not Kind.CARD)})
        closed_at: datetime | None = person.joins_at
        for month in months:
            opened_at = _first(turns, max(month.starts_at, person.joins_at))
            if opened_at is None or closed_at is None:
                return
            closed_at = _first(self._closes, max(month.ends_at + month.plan.grace, opened_at, closed_at))
            month.closes_at = closed_at


def _first(moments: Sequence[datetime], since: datetime) -> datetime | None:
    place = bisect_right(moments, since - timedelta.resolution)
    return moments[place] if place < len(moments) else None


def _count(use: Use, months: Sequence[Month]) -> None:
    """Put an event into the month it occurred in, or, if that was closed when it was sent, into the one then."""
    starts = [month.starts_at for month in months]
    month = months[bisect_right(starts, use.occurred_at) - 1]
    if month.closes_at is not None and month.closes_at < use.sent_at:
        month = months[bisect_right(starts, use.sent_at) - 1]
        month.late += 1
    tokens = use.tokens_in + use.tokens_out
    month.events += 1
    month.tokens += tokens
    month.cost += use.seconds * SECOND_PRICE + (0 if month.plan.has_tiers else tokens * TOKEN_PRICE)
