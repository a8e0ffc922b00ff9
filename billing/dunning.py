"""When a declined payment is tried again."""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

DEFAULT_DAYS: tuple[int, ...] = (1, 3, 5, 7)
DEFAULT_HOUR = 9
TRIES_MAX = 10
DAYS_MAX = 60
#: A sweep that comes late must not make one try follow another at once.
BETWEEN_TRIES_MIN = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Days after the first attempt, and the hour of the customer's day, at which the next ones are made.

    The first attempt is made at once, so a payment is tried `len(days) + 1` times. Stripe's and the networks'
    limits speak for few: Visa takes 15 tries in 30 days, Mastercard 10 in 24 hours.
    """

    days: tuple[int, ...] = DEFAULT_DAYS
    hour: int = DEFAULT_HOUR

    def problem(self) -> str | None:
        """What is wrong with this schedule, if anything."""
        if len(self.days) > TRIES_MAX:
            return f"dunning_days has {len(self.days)} days; a card is not tried more than {TRIES_MAX} times again"
        if any(day > DAYS_MAX for day in self.days):
            return f"dunning_days {list(self.days)} go beyond {DAYS_MAX} days"
        if any(day < 1 for day in self.days) or any(later <= day for day, later in pairwise(self.days)):
            return f"dunning_days {list(self.days)} are to rise, from 1 on"
        if not 0 <= self.hour <= 23:
            return f"dunning_hour {self.hour} is no hour of the day"
        return None

    def next_attempt_at(
        self, first_attempt_at: datetime, declines: int, time_zone: str, now: datetime
    ) -> datetime | None:
        """When to try again after so many declines, or None when the schedule is used up; UTC.

        >>> first = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
        >>> Schedule().next_attempt_at(first, 2, "America/Sao_Paulo", first).isoformat()
        '2026-11-23T12:00:00+00:00'
        """
        if declines < 1 or declines > len(self.days):
            return None
        zone = ZoneInfo(time_zone)
        day = first_attempt_at.astimezone(zone).date() + timedelta(days=self.days[declines - 1])
        planned = datetime.combine(day, time(self.hour), zone).astimezone(UTC)
        return max(planned, (now + BETWEEN_TRIES_MIN).astimezone(UTC))
