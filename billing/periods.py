"""A customer's months: where they begin and end, and which one an event belongs to.

Periods are rows. Each begins where the last one ended, whatever changes meanwhile: the calendar only says where the
next one *ends*. So nothing is ever in two periods, or in none.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from billing.errors import BrokenInvariant

PlanKey = tuple[str, int]
"""plan, version"""

#: Two boundaries that are nearer than this are one: a customer who moves to another zone, or whose zone moves to the
#: other side of the date line, must not get a month of some hours, with a fee of its own. Zones lie 26 hours apart.
NEAR = timedelta(days=2)


class Calendar(NamedTuple):
    """Where a customer's months begin: at midnight of the anchor day in the zone, or on a shorter month's last day."""

    time_zone: str
    anchor_day: int = 1

    def month_around(self, moment: datetime) -> tuple[datetime, datetime]:
        """The month that holds a moment, as a half-open span in UTC.

        Each boundary follows from the anchor day, never from the one before: the 31st is the 28th in February, and
        the 31st again in March.

        >>> Calendar("America/Sao_Paulo", 31).month_around(datetime(2026, 3, 1, tzinfo=UTC))[0].isoformat()
        '2026-02-28T03:00:00+00:00'
        """
        local = moment.astimezone(ZoneInfo(self.time_zone))
        month = local.year * 12 + local.month - 1
        while self._boundary(month) > moment:
            month -= 1
        while self._boundary(month + 1) <= moment:
            month += 1
        return self._boundary(month), self._boundary(month + 1)

    def _boundary(self, month: int) -> datetime:
        return _midnight(self.time_zone, self.anchor_day, month)


@lru_cache(maxsize=100_000)
def _midnight(time_zone: str, anchor_day: int, month: int) -> datetime:
    """Midnight of the anchor day in the `month`-th month since year 0; the first one, where it comes twice."""
    first = datetime(month // 12, month % 12 + 1, 1)  # noqa: DTZ001 - its zone comes below
    days = ((first + timedelta(days=32)).replace(day=1) - first).days
    day = first.replace(day=min(anchor_day, days)).date()
    return datetime.combine(day, time(), ZoneInfo(time_zone)).astimezone(UTC)


class Period(NamedTuple):
    """A half-open span in UTC, `starts_at <= t < ends_at`, on one version of a plan.

    `time_zone` is the one in which its days are counted; it plays no part in where the period lies.
    """

    starts_at: datetime
    ends_at: datetime
    plan_id: str
    plan_version: int
    is_closed: bool = False
    is_new: bool = False
    time_zone: str = "UTC"

    @property
    def plan_key(self) -> PlanKey:
        return self.plan_id, self.plan_version

    def holds(self, moment: datetime) -> bool:
        """Whether the moment lies in this period."""
        return self.starts_at <= moment < self.ends_at


class Terms(NamedTuple):
    """What a customer's new periods begin on: their calendar, and the plan, or another one from `next_plan_at` on."""

    calendar: Calendar
    plan: PlanKey
    next_plan: PlanKey | None = None
    next_plan_at: datetime | None = None

    def plan_at(self, moment: datetime) -> PlanKey:
        """The plan on which a period begins then."""
        if self.next_plan is not None and self.next_plan_at is not None and moment >= self.next_plan_at:
            return self.next_plan
        return self.plan


class Placement(NamedTuple):
    """The period an event counts in; late when that is not the one it occurred in."""

    period: Period
    is_late: bool


def calendar_month(moment: datetime, time_zone: str) -> tuple[datetime, datetime]:
    """The calendar month around a moment in a zone, as a half-open span in UTC.

    >>> calendar_month(datetime(2026, 11, 1, 1, tzinfo=UTC), "America/Sao_Paulo")[0].isoformat()
    '2026-10-01T03:00:00+00:00'
    """
    return Calendar(time_zone).month_around(moment)


def place_known(occurred_at: datetime, known: Sequence[Period]) -> Placement | None:
    """The same as `place` for an event in a period that has its row and is open; None for any other."""
    own = _around(occurred_at, known)
    return None if own is None or own.is_closed or own.is_new else Placement(own, is_late=False)


def place(occurred_at: datetime, known: Sequence[Period], now: datetime, terms: Terms) -> Placement:
    """The period in which an event counts: its own while that is open, else the current one, marked late.

    `known` are the customer's period rows around both moments. Where there is none, one is begun on the terms
    given. A period before one that is closed is closed as well: its time is over, row or no row. Raises
    `BrokenInvariant` when the current period is closed already.
    """
    own = _around(occurred_at, known) or begin(occurred_at, known, terms)
    if not own.is_closed and not (own.is_new and _is_before_closed(own, known)):
        return Placement(own, is_late=False)
    current = _around(now, known) or begin(now, known, terms)
    if current.is_closed:
        raise BrokenInvariant(
            f"the period from {current.starts_at.isoformat()} is closed before its end; nothing can count in it"
        )
    return Placement(current, is_late=True)


def begin(moment: datetime, known: Sequence[Period], terms: Terms) -> Period:
    """The period around a moment that none of the known ones holds; it touches them or keeps its distance.

    It is the month around the moment, cut where it would overlap a row, and stretched to the row before or behind
    it where less than `NEAR` would lie between them. A rest of a month that is shorter than that joins the next, and
    a beginning of one the month before.
    """
    starts_at, ends_at = terms.calendar.month_around(moment)
    before = max((period.ends_at for period in known if period.ends_at <= moment), default=None)
    behind = min((period.starts_at for period in known if period.starts_at > moment), default=None)
    if behind is not None and behind - starts_at < NEAR:
        starts_at = terms.calendar.month_around(starts_at - timedelta.resolution)[0]
    if before is not None and before > starts_at - NEAR:
        starts_at = before
        if ends_at - before < NEAR:
            ends_at = terms.calendar.month_around(ends_at)[1]
    if behind is not None and ends_at > behind - NEAR:
        ends_at = behind
    return Period(starts_at, ends_at, *terms.plan_at(starts_at), is_new=True, time_zone=terms.calendar.time_zone)


def missing(known: Sequence[Period], until: datetime, terms: Terms) -> list[Period]:
    """The periods that are to begin, in order, so that the known ones and they hold every moment up to `until`.

    Of what lies before a row of later on, too: one event of the far future must not begin all until then.

    >>> october = Period(*calendar_month(datetime(2026, 10, 5, tzinfo=UTC), "UTC"), "free", 1)
    >>> later = missing([october], datetime(2026, 12, 24, tzinfo=UTC), Terms(Calendar("UTC"), ("free", 1)))
    >>> [period.starts_at.month for period in later]
    [11, 12]
    """
    rows = sorted(known)
    just_after = until + timedelta.resolution
    begun: list[Period] = []
    for before, behind in pairwise(rows):
        begun += _filling(before.ends_at, min(behind.starts_at, just_after), rows, terms)
    if rows:
        begun += _filling(rows[-1].ends_at, just_after, rows, terms)
    return begun


def _filling(since: datetime, until: datetime, known: Sequence[Period], terms: Terms) -> list[Period]:
    begun: list[Period] = []
    while since < until:
        begun.append(begin(since, (*known, *begun), terms))
        since = begun[-1].ends_at
    return begun


def _around(moment: datetime, periods: Iterable[Period]) -> Period | None:
    for period in periods:
        if period.holds(moment):
            return period
    return None


def _is_before_closed(period: Period, known: Iterable[Period]) -> bool:
    return any(other.is_closed and other.starts_at >= period.ends_at for other in known)
