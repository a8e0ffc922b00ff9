"""A customer's month, and which one an event belongs to."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from billing.errors import BrokenInvariant


class Period(NamedTuple):
    """A half-open span in UTC, `starts_at <= t < ends_at`, on one version of a plan."""

    starts_at: datetime
    ends_at: datetime
    plan_id: str
    plan_version: int
    is_closed: bool = False
    is_new: bool = False

    def holds(self, moment: datetime) -> bool:
        """Whether the moment lies in this period."""
        return self.starts_at <= moment < self.ends_at


class Placement(NamedTuple):
    """The period an event counts in; late when that is not the one it occurred in."""

    period: Period
    is_late: bool


def calendar_month(moment: datetime, time_zone: str) -> tuple[datetime, datetime]:
    """The calendar month around a moment in a zone, as a half-open span in UTC.

    >>> calendar_month(datetime(2026, 11, 1, 1, tzinfo=UTC), "America/Sao_Paulo")[0].isoformat()
    '2026-10-01T03:00:00+00:00'
    """
    local = moment.astimezone(ZoneInfo(time_zone))
    first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    following = (first + timedelta(days=32)).replace(day=1)
    return first.astimezone(UTC), following.astimezone(UTC)


def place(
    occurred_at: datetime, known: Sequence[Period], now: datetime, time_zone: str, plan: tuple[str, int]
) -> Placement:
    """The period in which an event counts: its own while that is open, else the current one, marked late.

    `known` are the customer's period rows around both moments. Where there is none, a calendar month is
    begun on the plan given (id and version), cut so that it overlaps no row that exists. Raises
    `BrokenInvariant` when the current period is closed already.
    """
    own = _around(occurred_at, known) or _begun(occurred_at, known, time_zone, plan)
    if not own.is_closed:
        return Placement(own, is_late=False)
    current = _around(now, known) or _begun(now, known, time_zone, plan)
    if current.is_closed:
        raise BrokenInvariant(
            f"the period from {current.starts_at.isoformat()} is closed before its end; nothing can count in it"
        )
    return Placement(current, is_late=True)


def _around(moment: datetime, periods: Sequence[Period]) -> Period | None:
    for period in periods:
        if period.holds(moment):
            return period
    return None


def _begun(moment: datetime, periods: Sequence[Period], time_zone: str, plan: tuple[str, int]) -> Period:
    starts_at, ends_at = calendar_month(moment, time_zone)
    starts_at = max([starts_at, *(p.ends_at for p in periods if p.ends_at <= moment)])
    ends_at = min([ends_at, *(p.starts_at for p in periods if p.starts_at > moment)])
    return Period(starts_at, ends_at, *plan, is_new=True)
