"""When a tick of beat's last came through, and Stripe was last reached; and what time Postgres has."""

from datetime import datetime
from typing import Any, NamedTuple, cast

from db.session import Connection


class LastSeen(NamedTuple):
    """When beat ticked, and a worker reached Stripe; None before the first time."""

    ticked_at: datetime | None
    stripe_reached_at: datetime | None


def note(connection: Connection, now: datetime) -> None:
    """A tick has come through. Locks the one row for as long as the transaction lasts."""
    connection.execute("UPDATE last_seen SET ticked_at = %s", (now,))


def note_stripe(connection: Connection, now: datetime) -> None:
    """Stripe was reached. Locks as `note` does."""
    connection.execute("UPDATE last_seen SET stripe_reached_at = %s", (now,))


def last(connection: Connection) -> LastSeen:
    """When both were last there."""
    row = connection.execute("SELECT ticked_at, stripe_reached_at FROM last_seen").fetchone()
    assert row is not None
    return LastSeen._make(cast("Any", row))


def server_time(connection: Connection) -> datetime:
    """The moment by the server's own clock; not that at which the transaction began."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    return cast("datetime", row[0])
