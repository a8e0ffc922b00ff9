"""What could not be charged: inputs that are no events of ours, and events that wait."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from db import documents
from db.session import Connection


class ParkedInput(NamedTuple):
    """Bytes that could not be taken in, and why."""

    input_hash: bytes
    raw: bytes
    reason: str
    detail: str
    tenant_id: str | None
    customer_id: str | None
    key: str | None
    times_seen: int = 1


class KeptInput(NamedTuple):
    """A parked input as it is kept, with how often and when it came."""

    input_hash: bytes
    raw: bytes
    reason: str
    detail: str
    tenant_id: str | None
    customer_id: str | None
    key: str | None
    times_seen: int
    first_seen_at: datetime
    last_seen_at: datetime


class ParkedRow(NamedTuple):
    """Anything that is parked, for a list. `parked_id` is what `show` and `replay` take."""

    parked_id: str
    kind: str
    reason: str
    detail: str
    tenant_id: str | None
    customer_id: str | None
    key: str | None
    times_seen: int
    parked_at: datetime


# The bytes of a message do not say which task it is for, so each unknown one that has them is named.
_PARK = """
INSERT INTO parked_inputs AS p (
    input_hash, raw, reason, detail, tenant_id, customer_id, key, times_seen, first_seen_at, last_seen_at)
SELECT i.*, %(now)b, %(now)b FROM unnest(
    %(input_hash)b::bytea[], %(raw)b::bytea[], %(reason)b::text[], %(detail)b::text[],
    %(tenant_id)b::text[], %(customer_id)b::text[], %(key)b::text[], %(times_seen)b::bigint[])
    AS i(input_hash, raw, reason, detail, tenant_id, customer_id, key, times_seen)
ORDER BY i.input_hash
ON CONFLICT (input_hash) DO UPDATE
SET times_seen = p.times_seen + excluded.times_seen, last_seen_at = excluded.last_seen_at, reason = excluded.reason,
    replayed_at = NULL, detail = CASE
        WHEN excluded.reason <> 'task_unknown' OR p.reason <> excluded.reason THEN excluded.detail
        WHEN strpos(p.detail, excluded.detail) > 0 THEN p.detail
        ELSE left(p.detail || '; ' || excluded.detail, 1000) END
RETURNING (xmax = 0) AS is_new
"""

_LIST = """
SELECT * FROM (
    SELECT 'input:' || left(encode(input_hash, 'hex'), 16) AS parked_id, 'input' AS kind, reason, detail,
        tenant_id, customer_id, key, times_seen, first_seen_at AS parked_at
    FROM parked_inputs WHERE replayed_at IS NULL
    UNION ALL
    SELECT 'event:' || tenant_id || '/' || key, 'event', park_reason, park_detail, tenant_id, customer_id, key,
        1, recorded_at
    FROM usage_events WHERE status = 'parked'
) AS parked
WHERE (%(reason)s::text IS NULL OR reason = %(reason)s) AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
    AND (%(after_at)s::timestamptz IS NULL OR (parked_at, parked_id) > (%(after_at)s, %(after_id)s::text))
ORDER BY parked_at, parked_id LIMIT %(limit)s
"""

_COUNTS = """
SELECT reason, sum(n)::bigint FROM (
    SELECT reason, count(*) AS n FROM parked_inputs WHERE replayed_at IS NULL GROUP BY reason
    UNION ALL
    SELECT park_reason, count(*) FROM usage_events WHERE status = 'parked' GROUP BY park_reason
) AS parked GROUP BY reason ORDER BY reason
"""

_INPUT = """
SELECT input_hash, raw, reason, detail, tenant_id, customer_id, key, times_seen, first_seen_at, last_seen_at
FROM parked_inputs
WHERE encode(input_hash, 'hex') LIKE %s || '%%' AND replayed_at IS NULL LIMIT 2
"""

_REPLAYED = "UPDATE parked_inputs SET replayed_at = %s WHERE input_hash = %s"

# As text: read as JSON by the driver, its numbers would become floats.
_EVENT = "SELECT to_jsonb(u)::text FROM usage_events u WHERE tenant_id = %s AND key = %s AND status = %s"

_LOCK_EVENT = """
SELECT FROM usage_events WHERE tenant_id = %s AND key = %s AND status = %s FOR NO KEY UPDATE
"""

_CHARGE = """
UPDATE usage_events
SET status = 'charged', charged_at = %(now)s, period_start = %(period_start)s, is_late = %(is_late)s,
    tokens = %(tokens)s, cost = %(cost)s, currency = %(currency)s, items = %(items)s::jsonb,
    quota_ids = %(quota_ids)s, park_reason = NULL, park_detail = NULL
WHERE tenant_id = %(tenant_id)s AND key = %(key)s AND status IN ('parked', 'pending')
"""

_DEFER = """
UPDATE usage_events
SET status = 'pending', tokens = %(tokens)s, cost = %(cost)s, currency = %(currency)s, items = %(items)s::jsonb,
    park_reason = NULL, park_detail = NULL
WHERE tenant_id = %(tenant_id)s AND key = %(key)s AND status = 'parked'
"""

_PARK_AGAIN = """
UPDATE usage_events SET park_reason = %s, park_detail = %s
WHERE tenant_id = %s AND key = %s AND status = 'parked'
"""


def park(connection: Connection, inputs: Sequence[ParkedInput], now: datetime) -> int:
    """Keep these inputs, once per content; how many were not there before. Locks the rows, in order of hash."""
    columns: dict[str, Any] = {
        name: list(values) for name, values in zip(ParkedInput._fields, zip(*inputs, strict=True), strict=True)
    }
    rows = connection.execute(_PARK, columns | {"now": now})
    return sum(1 for (is_new,) in rows if is_new)


def waiting(
    connection: Connection,
    *,
    reason: str | None = None,
    tenant_id: str | None = None,
    limit: int = 100,
    after: ParkedRow | None = None,
) -> list[ParkedRow]:
    """What is parked now, oldest first; what comes after a row of an earlier page, if one is given."""
    rows = connection.execute(
        _LIST,
        {
            "reason": reason,
            "tenant_id": tenant_id,
            "limit": limit,
            "after_at": after.parked_at if after else None,
            "after_id": after.parked_id if after else None,
        },
    )
    return [ParkedRow._make(cast("Any", row)) for row in rows]


def counts(connection: Connection) -> dict[str, int]:
    """How much is parked, by reason."""
    return {str(reason): cast("int", number) for reason, number in connection.execute(_COUNTS)}


def find_input(connection: Connection, hash_prefix: str) -> list[KeptInput]:
    """The parked inputs whose hash begins so, in hexadecimal: none, one, or two if the beginning is too short."""
    return [KeptInput._make(cast("Any", row)) for row in connection.execute(_INPUT, (hash_prefix,))]


def mark_replayed(connection: Connection, input_hash: bytes, now: datetime) -> None:
    """This input has been taken in after all."""
    connection.execute(_REPLAYED, (now, input_hash))


def find_event(connection: Connection, tenant_id: str, key: str, status: str = "parked") -> dict[str, Any] | None:
    """An event that waits so, as a JSON object, or None. Takes no lock."""
    row = connection.execute(_EVENT, (tenant_id, key, status)).fetchone()
    return cast("dict[str, Any]", documents.read_exactly(cast("str", row[0]))) if row else None


def lock_event(connection: Connection, tenant_id: str, key: str, status: str) -> bool:
    """Lock an event that waits so; False when it does no more. The caller holds the customer's wallets."""
    return connection.execute(_LOCK_EVENT, (tenant_id, key, status)).fetchone() is not None


def charge(connection: Connection, charged: dict[str, Any]) -> None:
    """Make an event that waits a charged one."""
    connection.execute(_CHARGE, charged)


def defer(connection: Connection, charged: dict[str, Any]) -> None:
    """Make an event that is parked one that is pending: with what it would cost, and charged by nobody yet."""
    connection.execute(_DEFER, charged)


def park_again(connection: Connection, tenant_id: str, key: str, reason: str, detail: str) -> None:
    """It still can't be charged; this is why now."""
    connection.execute(_PARK_AGAIN, (reason, detail, tenant_id, key))
