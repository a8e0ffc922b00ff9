"""Days and periods as a language writes them, in the customer's zone."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from babel.dates import format_date

from services.cycle.statement_pages.languages import Language, words


def day(moment: datetime, time_zone: str, language: Language) -> str:
    """The customer's day at that moment.

    >>> from datetime import UTC
    >>> day(datetime(2026, 12, 1, 2, tzinfo=UTC), "America/Sao_Paulo", Language.PT_BR)
    '30 de novembro de 2026'
    """
    return format_date(moment.astimezone(ZoneInfo(time_zone)).date(), "long", language.locale)


def days(start: datetime, end: datetime, time_zone: str, language: Language) -> str:
    """The days from start to end, which is the first moment outside: its day is told only if some of it is inside.

    >>> from datetime import UTC
    >>> start, end = (datetime(2026, month, 1, 3, tzinfo=UTC) for month in (11, 12))
    >>> days(start, end, "America/Sao_Paulo", Language.EN)
    '1 to 30 November 2026'
    """
    zone = ZoneInfo(time_zone)
    last = max(start, end - timedelta(microseconds=1))
    first_day, last_day = start.astimezone(zone).date(), last.astimezone(zone).date()
    until = format_date(last_day, "long", language.locale)
    if first_day == last_day:
        return until
    # Both languages begin with the day's number, so within a month that alone says where it starts.
    is_one_month = (first_day.year, first_day.month) == (last_day.year, last_day.month)
    since = str(first_day.day) if is_one_month else format_date(first_day, "long", language.locale)
    return words(language, "period.value", start=since, end=until)
