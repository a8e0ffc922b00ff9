"""Time zones: what is taken for one, wherever somebody names one.

Months and quotas are reckoned here and in Postgres, so only a name that both know, and by which both tell the same
time, is one. What only Python knows would fail every later statement that meets it, of whoever asks.
"""

from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from billing.errors import Rejected
from db import zones as rows
from db.session import in_transaction

#: Each is another zone on another machine, or none.
_NOWHERE = {"localtime", "posixrules", "Factory"}
#: In winter and in summer, and of years whose rules are settled. Postgres takes CET for an abbreviation, which has no
#: summer; to Python it is a place that has one.
_COMPARED_AT = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 7, 1, tzinfo=UTC))


def check_zone(name: str) -> None:
    """Raises `Rejected` for what is no time zone, here and in Postgres, which is asked once for each name."""
    try:
        if name not in _NOWHERE and _is_agreed(name):
            return
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Rejected(_said(name)) from error
    raise Rejected(_said(name))


@lru_cache(maxsize=2048)
def _is_agreed(name: str) -> bool:
    ours = [at.astimezone(ZoneInfo(name)).replace(tzinfo=None) for at in _COMPARED_AT]
    return in_transaction(lambda connection: rows.local_times(connection, name, _COMPARED_AT)) == ours


def _said(name: str) -> str:
    return f"{name!r} is not a time zone; names look like America/Sao_Paulo"
