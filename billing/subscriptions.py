"""What a subscription owes and gets for a period. Pure: found from rows, so that a late, doubled or missed look says
the same.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

from billing.periods import Calendar, Period
from billing.plans import Anchor, Plan, Proration

#: The schedule of free credits; part of the id of each of its grants.
FREE_CREDITS = "free_credits"


@dataclass(frozen=True, slots=True)
class Subscription:
    """Since when a customer pays for the plan they are on, and until when."""

    billed_from: datetime
    """When they subscribed, or took it up again after a pause or an end."""
    paused_at: datetime | None = None
    ended_at: datetime | None = None
    """May lie ahead: the end of a period."""

    def covers(self, period: Period) -> bool:
        """Whether the period owes its fee and gets its credits: it was going on, unpaused, when it began or after."""
        return period.ends_at > self.billed_from and not any(
            moment is not None and period.starts_at >= moment for moment in (self.paused_at, self.ended_at)
        )


def anchor_day(plan: Plan, joined_at: datetime, time_zone: str) -> int:
    """The day on which the months of a customer begin who joins a plan then."""
    return 1 if plan.anchor is Anchor.CALENDAR else joined_at.astimezone(ZoneInfo(time_zone)).day


def fee_minor(plan: Plan, period: Period, calendar: Calendar, since: datetime) -> int:
    """The fee of a period, in minor units, for a customer who is billed from `since` on.

    With daily proration it is the share of the month's days from then on: the day itself counts. A period that is
    longer than a month, because a boundary moved by hours, costs one fee.
    """
    return prorated(plan.fixed_fee_minor, plan, period, calendar, max(period.starts_at, since), period.ends_at)


def prorated(
    fixed_fee_minor: int, plan: Plan, period: Period, calendar: Calendar, since: datetime, until: datetime
) -> int:
    """The share of a fee for the days from that of `since` to that of `until`, which is not counted; half-even.

    The share is of the days of the month that the period is, or of its own where a moved boundary gave it more.

    >>> from billing.periods import calendar_month
    >>> plan = Plan("acme", "p", 1, "P", "BRL", 40_000, 0, None, 0, proration=Proration.DAILY)
    >>> november = Period(*calendar_month(datetime(2026, 11, 5, tzinfo=UTC), "UTC"), "p", 1)
    >>> prorated(40_000, plan, november, Calendar("UTC"), datetime(2026, 11, 16, tzinfo=UTC), november.ends_at)
    20000
    """
    if plan.proration is Proration.NONE:
        return fixed_fee_minor
    zone = period.time_zone
    days = _days(since, until, zone)
    # Its first hours may lie in the month before, which has other days: the middle is always in its own.
    middle = period.starts_at + (period.ends_at - period.starts_at) / 2
    of = max(_days(*calendar.month_around(middle), zone), _days(period.starts_at, period.ends_at, zone))
    share = Decimal(fixed_fee_minor) * min(max(days, 0), of) / of
    return int(share.quantize(Decimal(1), ROUND_HALF_EVEN))


def _days(since: datetime, until: datetime, time_zone: str) -> int:
    zone = ZoneInfo(time_zone)
    return (until.astimezone(zone).date() - since.astimezone(zone).date()).days


def free_credits_id(installation: uuid.UUID, tenant_id: str, customer_id: str, period_start: datetime) -> uuid.UUID:
    """The id of the grant of free credits for a period; a second look finds it given. NUL separates."""
    begins = period_start.astimezone(UTC).isoformat()
    return uuid.uuid5(installation, f"{FREE_CREDITS}\0{begins}\0{tenant_id}\0{customer_id}")
