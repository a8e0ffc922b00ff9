"""When a declined payment is tried again."""

from datetime import datetime, timedelta

#: Days after the first attempt on which the next ones are made.
DEFAULT_SCHEDULE_DAYS: tuple[int, ...] = (1, 3, 5, 7)


def next_attempt_at(
    first_attempt_at: datetime, attempts_made: int, schedule_days: tuple[int, ...] = DEFAULT_SCHEDULE_DAYS
) -> datetime | None:
    """When to try again after so many attempts, or None when the schedule is used up.

    >>> from datetime import UTC
    >>> next_attempt_at(datetime(2026, 11, 20, tzinfo=UTC), 2).isoformat()
    '2026-11-23T00:00:00+00:00'
    """
    if attempts_made < 1 or attempts_made > len(schedule_days):
        return None
    return first_attempt_at + timedelta(days=schedule_days[attempts_made - 1])
