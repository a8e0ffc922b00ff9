"""This host's clock beside that of Postgres.

Months turn, credits end and payments are tried again because of the time alone, and one host whose clock is a year
ahead would make a year of fees. All hosts share one Postgres, so each compares itself with that. What a sandbox moves
on purpose is not part of it: the hosts' own time is compared.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from billing.errors import ClocksDiffer
from config.settings import settings
from db import ticks
from db.session import Connection, in_transaction


@dataclass(frozen=True, slots=True)
class Clocks:
    """The same moment by both clocks."""

    host_at: datetime
    database_at: datetime

    @property
    def ahead_seconds(self) -> int:
        """By how much this host is ahead; less than nothing when it is behind."""
        return int((self.host_at - self.database_at).total_seconds())

    @property
    def differ(self) -> bool:
        """Whether they are further apart than the way to the server and honest clocks explain."""
        return abs(self.ahead_seconds) > settings().clocks_apart_seconds_max


def compared(connection: Connection, host_at: datetime) -> Clocks:
    """Both clocks, this host's as of a moment ago."""
    return Clocks(host_at, ticks.server_time(connection))


def refuse_apart(host_at: datetime) -> None:
    """Raises `ClocksDiffer` when this host's own time, not a moved one, can't be believed."""
    both = in_transaction(lambda connection: compared(connection, host_at))
    if both.differ:
        raise ClocksDiffer(
            f"it is {_said(both.host_at)} here and {_said(both.database_at)} in Postgres: {said(both)}, "
            f"and {settings().clocks_apart_seconds_max} s are allowed; until they agree, nothing is done "
            "here that time alone brings about: set the clock that is wrong, and keep both by NTP"
        )


def said(both: Clocks) -> str:
    """How this host stands to Postgres.

    >>> at = datetime(2026, 11, 30, tzinfo=UTC)
    >>> said(Clocks(at.replace(hour=1), at))
    'this host is 3,600 s ahead of Postgres'
    """
    seconds = both.ahead_seconds
    return f"this host is {abs(seconds):,} s {'ahead of' if seconds >= 0 else 'behind'} Postgres"


def _said(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
