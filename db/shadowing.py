"""Price lists beside the live one: lists, how far periods were rated by them, and what that came to."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from db.session import Connection


class ShadowRow(NamedTuple):
    """A list; `prices` is JSON."""

    tenant_id: str
    name: str
    prices: str
    started_at: datetime
    stopped_at: datetime | None


class DuePeriod(NamedTuple):
    """A period in which something was charged since it was rated by a list, and how it stands."""

    customer_id: str
    period_start: datetime
    events: int
    tokens: int


class DaySum(NamedTuple):
    """What a customer's usage of a day comes to in a currency."""

    customer_id: str
    day: date
    currency: str
    events: int
    unrated: int
    live: Decimal
    shadow: Decimal

    @property
    def difference(self) -> Decimal:
        return self.shadow - self.live


_COLUMNS = "tenant_id, name, prices::text, started_at, stopped_at"

_START = """
INSERT INTO shadow_lists (tenant_id, name, prices, started_at) VALUES (%s, %s, %s::jsonb, %s)
ON CONFLICT (tenant_id, name) DO NOTHING
"""

_STOP = """
UPDATE shadow_lists SET stopped_at = coalesce(stopped_at, greatest(started_at, %s))
WHERE tenant_id = %s AND name = %s
"""

_OF_TENANT = f"SELECT {_COLUMNS} FROM shadow_lists WHERE tenant_id = %s ORDER BY name"  # noqa: S608 - names of ours

_FIND = f"SELECT {_COLUMNS} FROM shadow_lists WHERE tenant_id = %s AND name = %s"  # noqa: S608 - the same

_RUNNING = f"""
SELECT {_COLUMNS} FROM shadow_lists WHERE stopped_at IS NULL OR stopped_at > %s ORDER BY tenant_id, name
"""  # noqa: S608 - the same

#: What left no trace in the counters, such as a new rating, is found a day later, while the period is open.
_DUE = """
SELECT p.customer_id, p.starts_at, p.events, p.tokens FROM periods p
LEFT JOIN shadow_periods s ON s.tenant_id = p.tenant_id AND s.name = %(name)s AND s.customer_id = p.customer_id
    AND s.period_start = p.starts_at
WHERE p.tenant_id = %(tenant_id)s AND p.archive_id IS NULL
    AND coalesce(p.closed_at, 'infinity') > %(started_at)s
    AND p.starts_at < coalesce(%(stopped_at)s, 'infinity'::timestamptz)
    AND coalesce(s.due_at, '-infinity') <= %(now)s
    AND CASE WHEN s.rated_at IS NULL THEN p.events > 0
        ELSE (p.events, p.tokens) <> (s.events, s.tokens)
            OR (s.rated_at <= %(stale)s AND coalesce(p.closed_at, 'infinity') > s.rated_at AND p.events > 0)
    END
ORDER BY s.rated_at NULLS FIRST, p.customer_id, p.starts_at LIMIT %(limit)s
"""

_LOCK = "SELECT FROM shadow_lists WHERE tenant_id = %s AND name = %s FOR NO KEY UPDATE"

_NOTE = """
INSERT INTO shadow_periods (tenant_id, name, customer_id, period_start, events, tokens, rated_at, due_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, name, customer_id, period_start) DO UPDATE
SET events = excluded.events, tokens = excluded.tokens, rated_at = excluded.rated_at, due_at = excluded.due_at
"""

_FORGET = """
DELETE FROM shadow_sums WHERE tenant_id = %s AND name = %s AND customer_id = %s AND period_start = %s
"""

_KEEP = """
INSERT INTO shadow_sums (tenant_id, name, customer_id, period_start, day, currency, events, unrated, live, shadow)
SELECT %s, %s, %s, %s, n.* FROM unnest(
    %s::date[], %s::text[], %s::bigint[], %s::bigint[], %s::numeric[], %s::numeric[])
    AS n(day, currency, events, unrated, live, shadow)
"""

_SUMS = """
SELECT customer_id, day, currency, sum(events)::bigint, sum(unrated)::bigint, sum(live), sum(shadow) FROM shadow_sums
WHERE tenant_id = %(tenant_id)s AND name = %(name)s
    AND (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)
    AND (%(after)s::text IS NULL OR (customer_id, day, currency) > (%(after)s, %(after_day)s::date, %(after_in)s))
GROUP BY customer_id, day, currency ORDER BY customer_id, day, currency LIMIT %(limit)s
"""

_TOTALS = """
SELECT '', max(day), currency, sum(events)::bigint, sum(unrated)::bigint, sum(live), sum(shadow) FROM shadow_sums
WHERE tenant_id = %(tenant_id)s AND name = %(name)s
    AND (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)
GROUP BY currency ORDER BY currency
"""


def start(connection: Connection, tenant_id: str, name: str, prices: str, now: datetime) -> bool:
    """Keep a list; False where there is one of this name."""
    return connection.execute(_START, (tenant_id, name, prices, now)).rowcount > 0


def stop(connection: Connection, tenant_id: str, name: str, now: datetime) -> bool:
    """Let a list rate nothing that is charged from now on; False where there is none. Stopped before, it stays so."""
    return connection.execute(_STOP, (now, tenant_id, name)).rowcount > 0


def of_tenant(connection: Connection, tenant_id: str) -> list[ShadowRow]:
    """A tenant's lists, by name."""
    return [ShadowRow._make(cast("Any", row)) for row in connection.execute(_OF_TENANT, (tenant_id,))]


def find(connection: Connection, tenant_id: str, name: str) -> ShadowRow | None:
    """A list, or None. Takes no lock."""
    row = connection.execute(_FIND, (tenant_id, name)).fetchone()
    return ShadowRow._make(cast("Any", row)) if row else None


def running(connection: Connection, since: datetime) -> list[ShadowRow]:
    """Every list that has not stopped, or has since then."""
    return [ShadowRow._make(cast("Any", row)) for row in connection.execute(_RUNNING, (since,))]


def due(connection: Connection, row: ShadowRow, now: datetime, stale: datetime, limit: int) -> list[DuePeriod]:
    """Periods to rate by a list now: those never rated first, then whichever has waited longest. Takes no lock."""
    said = {"tenant_id": row.tenant_id, "name": row.name, "started_at": row.started_at, "stopped_at": row.stopped_at}
    found = connection.execute(_DUE, said | {"now": now, "stale": stale, "limit": limit})
    return [DuePeriod._make(cast("Any", one)) for one in found]


def keep(
    connection: Connection, row: ShadowRow, period: DuePeriod, sums: Sequence[DaySum], now: datetime, due_at: datetime
) -> None:
    """Put what a period came to in the place of what it had come to. Locks the list's row."""
    connection.execute(_LOCK, (row.tenant_id, row.name))
    whose = (row.tenant_id, row.name, period.customer_id, period.period_start)
    connection.execute(_NOTE, (*whose, period.events, period.tokens, now, due_at))
    connection.execute(_FORGET, whose)
    if sums:
        columns = zip(*((one.day, one.currency, *one[3:]) for one in sums), strict=True)
        connection.execute(_KEEP, (*whose, *map(list, columns)))


def put_off(connection: Connection, row: ShadowRow, period: DuePeriod, now: datetime, due_at: datetime) -> None:
    """Leave a period that can't be rated alone until then; what it had come to stays."""
    whose = (row.tenant_id, row.name, period.customer_id, period.period_start)
    connection.execute(_NOTE, (*whose, -1, -1, now, due_at))


def sums(
    connection: Connection,
    tenant_id: str,
    name: str,
    customer_id: str | None,
    limit: int,
    after: tuple[str, str, str] | None,
) -> list[DaySum]:
    """What days of customers came to, in this order; behind a (customer, day, currency) if told."""
    place = dict(zip(("after", "after_day", "after_in"), after or (None, None, None), strict=True))
    said = {"tenant_id": tenant_id, "name": name, "customer_id": customer_id, "limit": limit} | place
    return [DaySum._make(cast("Any", row)) for row in connection.execute(_SUMS, said)]


def totals(connection: Connection, tenant_id: str, name: str, customer_id: str | None) -> list[DaySum]:
    """What all of it came to, by currency; of the last day."""
    said = {"tenant_id": tenant_id, "name": name, "customer_id": customer_id}
    return [DaySum._make(cast("Any", row)) for row in connection.execute(_TOTALS, said)]
