"""Usage that applications wrote by SQL, until it is recorded."""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from db.session import Connection


class Written(NamedTuple):
    """A row of the inbox: an event as its bytes would travel in an envelope."""

    tenant_id: str
    inbox_id: int
    event: bytes


_OLDEST = "SELECT tenant_id, inbox_id, convert_to(event::text, 'UTF8') FROM usage_inbox ORDER BY inbox_id LIMIT %s"

_REMOVE = """
DELETE FROM usage_inbox i USING unnest(%s::text[], %s::bigint[]) AS taken(tenant_id, inbox_id)
WHERE i.tenant_id = taken.tenant_id AND i.inbox_id = taken.inbox_id
"""


def oldest(connection: Connection, limit: int) -> list[Written]:
    """What was written first, at most so many rows. Takes no lock."""
    return [Written._make(cast("Any", row)) for row in connection.execute(_OLDEST, (limit,))]


def remove(connection: Connection, taken: Sequence[Written]) -> int:
    """These rows are recorded: forget them; how many were still there."""
    keys = [row.tenant_id for row in taken], [row.inbox_id for row in taken]
    return connection.execute(_REMOVE, keys).rowcount
