"""When a tick of beat's last came through."""

from datetime import datetime
from typing import cast

from db.session import Connection


def note(connection: Connection, now: datetime) -> None:
    """A tick has come through. Locks the one row for as long as the transaction lasts."""
    connection.execute("UPDATE last_tick SET ticked_at = %s", (now,))


def last(connection: Connection) -> datetime | None:
    """When one last did; None before the first."""
    row = connection.execute("SELECT ticked_at FROM last_tick").fetchone()
    assert row is not None
    return cast("datetime | None", row[0])
