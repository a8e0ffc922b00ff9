"""What a monitor asks for every few seconds: how much waits, how long the oldest has, and how the server stands.

Each figure is counted through an index of what is not done, and no further than `COUNTED_MAX`: more means "at least so
many". The one that has no such index, the events charged so far, is given up after `SECONDS_MAX`. Takes no lock.
"""

from datetime import datetime
from typing import Any, LiteralString, NamedTuple, cast

from psycopg import errors

from db.session import Connection

COUNTED_MAX = 10_000
SECONDS_MAX = 1


class Due(NamedTuple):
    """Things of a kind that wait to be done: how many (at least), and how long the oldest has been due."""

    kind: str
    number: int
    oldest_seconds: float


class Counted(NamedTuple):
    """How many there are of a word: a reason, a state, a kind."""

    word: str
    number: int


class CountedParked(NamedTuple):
    """What is parked for a reason: events of customers, or inputs that are none."""

    of: str
    reason: str
    number: int


class Watched(NamedTuple):
    """How the installation stands: the last audit, the differences it found, beat, Stripe, the switch."""

    audited_at: datetime | None
    differences: int
    ticked_at: datetime | None
    stripe_reached_at: datetime | None
    is_paused: bool


# In the order of the index that holds what waits, so that the first row is the oldest.
_DUE: dict[str, LiteralString] = {
    "usage_inbox": "SELECT written_at FROM usage_inbox ORDER BY inbox_id",
    "payments": "SELECT due_at FROM payments WHERE due_at <= %(now)s ORDER BY due_at",
    "refunds": "SELECT due_at FROM refunds WHERE due_at <= %(now)s ORDER BY due_at",
    "stripe_webhooks": "SELECT due_at FROM webhook_events WHERE due_at <= %(now)s ORDER BY due_at",
    "alert_deliveries": "SELECT created_at FROM alert_deliveries WHERE due_at IS NOT NULL",
    "holds": "SELECT expires_at FROM credit_holds WHERE state = 'open' AND expires_at <= %(now)s ORDER BY expires_at",
    "months": "SELECT due_at FROM month_turns WHERE due_at <= %(now)s ORDER BY due_at",
}

_OF_KIND: LiteralString = """
SELECT '{kind}', count(*), greatest(0, coalesce(extract(epoch FROM %(now)s - min(at)), 0))::float8
FROM ({due} LIMIT %(most)s) AS due(at)
"""

_DUE_OF_ALL: LiteralString = " UNION ALL ".join(_OF_KIND.format(kind=kind, due=due) for kind, due in _DUE.items())

_PARKED = """
SELECT 'event', park_reason, count(*)
FROM (SELECT park_reason FROM usage_events WHERE status IN ('parked', 'pending') LIMIT %(most)s) e
WHERE park_reason IS NOT NULL GROUP BY park_reason
UNION ALL
SELECT 'input', reason, count(*) FROM (SELECT reason FROM parked_inputs WHERE replayed_at IS NULL LIMIT %(most)s) i
GROUP BY reason
ORDER BY 1, 2
"""

# The condition is the index's own, word by word.
_PAYMENTS = """
SELECT state, count(*) FROM (
    SELECT state FROM payments
    WHERE NOT (state IN ('partially_refunded', 'refunded', 'succeeded', 'voided')) LIMIT %(most)s
) p GROUP BY state ORDER BY state
"""

_ALERTS = """
SELECT kind, count(*) FROM (SELECT kind FROM alerts WHERE seen_at IS NULL LIMIT %(most)s) a GROUP BY kind ORDER BY kind
"""

_WATCHED = """
SELECT (SELECT finished_at FROM audit_turn),
    (SELECT count(*) FROM (SELECT FROM audit_differences WHERE resolved_at IS NULL LIMIT %(most)s) d),
    (SELECT ticked_at FROM last_seen), (SELECT stripe_reached_at FROM last_seen),
    (SELECT paused_at IS NOT NULL FROM collecting_switch)
"""

_CONNECTIONS = """
SELECT coalesce(state, 'unknown'), count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' GROUP BY 1 ORDER BY 1
"""


def due(connection: Connection, now: datetime) -> list[Due]:
    """What is due of each kind, also of those of which nothing is."""
    return [Due._make(cast("Any", row)) for row in _asked(connection, _DUE_OF_ALL, now=now)]


def parked(connection: Connection) -> list[CountedParked]:
    """What waits for a person, by reason."""
    return [CountedParked._make(cast("Any", row)) for row in _asked(connection, _PARKED)]


def payments(connection: Connection) -> list[Counted]:
    """Payments that are not over, by state."""
    return [Counted._make(cast("Any", row)) for row in _asked(connection, _PAYMENTS)]


def unseen_alerts(connection: Connection) -> list[Counted]:
    """Alerts that nobody has seen, by kind."""
    return [Counted._make(cast("Any", row)) for row in _asked(connection, _ALERTS)]


def watched(connection: Connection) -> Watched:
    """How the installation stands."""
    return Watched._make(cast("Any", _asked(connection, _WATCHED)[0]))


def events_charged(connection: Connection) -> int | None:
    """How many events are charged, by the counters of all periods; None where that takes too long."""
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = '{SECONDS_MAX}s'".encode())
            row = connection.execute("SELECT coalesce(sum(events), 0)::bigint FROM periods").fetchone()
    except errors.QueryCanceled:
        return None
    return cast("int", cast("Any", row)[0])


def connections(connection: Connection) -> list[Counted]:
    """Connections to this database by what they are at; `unknown` where we may not know."""
    return [Counted._make(cast("Any", row)) for row in _asked(connection, _CONNECTIONS)]


def connections_max(connection: Connection) -> int:
    """How many the server takes, of all databases."""
    row = connection.execute("SELECT current_setting('max_connections')::int").fetchone()
    return cast("int", cast("Any", row)[0])


def _asked(connection: Connection, statement: LiteralString, **said: object) -> list[tuple[object, ...]]:
    return connection.execute(statement, {"most": COUNTED_MAX} | said).fetchall()
