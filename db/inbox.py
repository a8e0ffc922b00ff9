"""Usage that applications wrote by SQL, until it is recorded."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

from db.session import Connection


class Written(NamedTuple):
    """A row of the inbox: an event as its bytes would travel in an envelope."""

    tenant_id: str
    inbox_id: int
    customer_id: str
    event: bytes


_OLDEST = """
SELECT i.tenant_id, i.inbox_id, i.customer_id, convert_to(i.event::text, 'UTF8') FROM usage_inbox i
WHERE NOT EXISTS (
    SELECT FROM unnest(%s::text[], %s::text[]) AS but(tenant_id, customer_id)
    WHERE but.tenant_id = i.tenant_id AND but.customer_id = i.customer_id
)
ORDER BY i.inbox_id LIMIT %s
"""

_REMOVE = """
DELETE FROM usage_inbox i USING unnest(%s::text[], %s::bigint[]) AS taken(tenant_id, inbox_id)
WHERE i.tenant_id = taken.tenant_id AND i.inbox_id = taken.inbox_id
"""


def oldest(connection: Connection, limit: int, but: Iterable[tuple[str, str]] = ()) -> list[Written]:
    """What was written first, at most so many rows, of all but these (tenant, customer). Takes no lock."""
    left_out = list(but)
    said = ([tenant_id for tenant_id, _ in left_out], [customer_id for _, customer_id in left_out], limit)
    return [Written._make(cast("Any", row)) for row in connection.execute(_OLDEST, said)]


def remove(connection: Connection, taken: Sequence[Written]) -> int:
    """These rows are recorded: forget them; how many were still there."""
    keys = [row.tenant_id for row in taken], [row.inbox_id for row in taken]
    return connection.execute(_REMOVE, keys).rowcount
