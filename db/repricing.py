"""Parked events that a price was added for: how far they were looked for, and the next of them."""

from datetime import datetime
from typing import Any, NamedTuple, cast

from db.session import Connection


class Place(NamedTuple):
    """Where a pass over the events that wait stands; the first comes before every event."""

    tenant_id: str
    recorded_at: datetime
    key: str


class Waiting(NamedTuple):
    """An event that waits, and whose it is."""

    place: Place
    customer_id: str


class Progress(NamedTuple):
    """Up to which price was looked for what waits, and the pass under way, if any."""

    done_price_id: int
    seen_price_id: int
    again_at: datetime | None
    is_last: bool
    place: Place | None


_PROGRESS = """
SELECT done_price_id, seen_price_id, again_at, is_last, place_tenant_id, place_recorded_at, place_key
FROM price_replays FOR UPDATE
"""

_KEEP = """
UPDATE price_replays
SET done_price_id = %s, seen_price_id = %s, again_at = %s, is_last = %s, place_tenant_id = %s, place_recorded_at = %s,
    place_key = %s
"""

#: A price may be for an event of whichever product the event has: what rates it says which it takes, and of when.
_WAITING = """
SELECT u.tenant_id, u.recorded_at, u.key, u.customer_id FROM usage_events u
WHERE u.status = 'parked' AND u.park_reason = 'unpriced'
    AND (u.tenant_id, u.recorded_at, u.key) > (%(tenant_id)s, %(recorded_at)s, %(key)s)
    AND EXISTS (
        SELECT FROM jsonb_array_elements(u.items) AS i
        JOIN prices p ON p.category = i->>'category' AND p.provider = i->>'provider' AND p.unit = i->>'unit'
            AND (p.model = i->>'model' OR p.is_provider_default)
        WHERE p.scope IN ('', u.tenant_id) AND NOT p.is_ended AND p.effective_from <= u.occurred_at
            AND p.price_id > %(after)s AND p.price_id <= %(until)s
    )
ORDER BY u.tenant_id, u.recorded_at, u.key LIMIT %(limit)s
"""


def newest_price(connection: Connection) -> int:
    """The price that was added last; 0 where there is none."""
    row = connection.execute("SELECT coalesce(max(price_id), 0) FROM prices").fetchone()
    return cast("int", row[0]) if row else 0


def lock_progress(connection: Connection) -> Progress:
    """How far prices were taken to what waits for them. Locks the one row."""
    row: Any = connection.execute(_PROGRESS).fetchone()
    place = Place._make(row[4:]) if row[4] is not None else None
    return Progress._make((*row[:4], place))


def keep_progress(connection: Connection, progress: Progress) -> None:
    """Keep how far it is now. The caller has locked the row."""
    connection.execute(_KEEP, (*progress[:4], *(progress.place or (None, None, None))))


def waiting(connection: Connection, place: Place, after: int, until: int, limit: int) -> list[Waiting]:
    """The next events that are parked for want of a price, and that one of these prices may be for. Takes no lock."""
    said = place._asdict() | {"after": after, "until": until, "limit": limit}
    found = cast("Any", connection.execute(_WAITING, said))
    return [Waiting(Place._make(row[:3]), row[3]) for row in found]
