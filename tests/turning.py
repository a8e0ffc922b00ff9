"""Months end while the tests run, once in a while: what a test recorded a moment ago would count in another month
than the one it then asks for.
"""

from datetime import datetime, timedelta

from billing.periods import calendar_month

#: Where the customers of tests live, unless a test brings its own clock.
ZONES = ("UTC", "America/Sao_Paulo")
#: No test that goes by the machine's clock takes longer, and none tells of what was longer ago than a minute
#: without saying when its customers came.
BEFORE, AFTER = timedelta(seconds=60), timedelta(seconds=70)


def until_turned(now: datetime) -> timedelta:
    """How long a test has to wait before it begins: nothing but around the end of a month.

    >>> from datetime import UTC
    >>> until_turned(datetime(2026, 12, 1, 2, 59, 30, tzinfo=UTC))
    datetime.timedelta(seconds=100)
    >>> until_turned(datetime(2026, 12, 1, 2, tzinfo=UTC))
    datetime.timedelta(0)
    """
    turns = [calendar_month(now + BEFORE, zone)[0] for zone in ZONES]
    return max([turn + AFTER - now for turn in turns if turn + AFTER > now], default=timedelta())


def zone_amid_its_month(now: datetime, within: timedelta) -> str:
    """A zone whose month does not turn so soon before or after this moment: for hosts that think it is another."""
    return next(
        zone
        for zone in ("UTC", "Asia/Kolkata")
        if calendar_month(now - within, zone) == calendar_month(now + within, zone)
    )
