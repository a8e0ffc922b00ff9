"""Holds on wallets. Whoever changes one holds its customer's wallets, and takes the holds after them, in order."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from psycopg.types.json import Jsonb

from billing.credit_holds import Capture, Hold, HoldState
from db.arrays import bigints, numerics, optional_moments, texts
from db.session import Connection


class HoldRow(NamedTuple):
    """A hold as it stands."""

    tenant_id: str
    hold_id: str
    customer_id: str
    currency: str
    amount: Decimal
    captured: Decimal
    state: HoldState
    opened_at: datetime
    expires_at: datetime
    closed_at: datetime | None
    idempotency_key: str
    asked: dict[str, Any]


class NewHold(NamedTuple):
    """A hold to be written."""

    tenant_id: str
    hold_id: str
    customer_id: str
    wallet_id: int
    amount: Decimal
    opened_at: datetime
    expires_at: datetime
    idempotency_key: str
    asked: dict[str, Any]


class CaptureRow(NamedTuple):
    """What an event took of the hold that it names."""

    tenant_id: str
    event_key: str
    customer_id: str
    hold_id: str
    capture: Capture


class Captured(NamedTuple):
    """What an event took of a hold, what it cost, and why that was not the same."""

    event_key: str
    taken: Decimal
    cost: Decimal
    currency: str | None
    mark: str | None
    at: datetime


class DueHold(NamedTuple):
    """An open hold whose time is over, and whose it is."""

    tenant_id: str
    customer_id: str
    hold_id: str


HoldKey = tuple[str, str, str]
"""tenant, customer, hold"""

_COLUMNS = """h.tenant_id, h.hold_id, h.customer_id, w.currency, h.amount, h.captured, h.state, h.opened_at,
    h.expires_at, h.closed_at, h.idempotency_key, h.asked"""

_READ = f"""
SELECT {_COLUMNS} FROM credit_holds h JOIN wallets w ON w.tenant_id = h.tenant_id AND w.wallet_id = h.wallet_id
"""  # noqa: S608 - column names of ours, no input

_FIND = f"{_READ} WHERE h.tenant_id = %s AND h.hold_id = %s"

_BY_KEY = f"{_READ} WHERE h.tenant_id = %s AND h.idempotency_key = %s"

_OF_CUSTOMER = f"""{_READ}
WHERE h.tenant_id = %s AND h.customer_id = %s AND (%s OR h.state = 'open')
ORDER BY h.opened_at DESC, h.hold_id LIMIT %s
"""

_OPEN = """
WITH opened AS (
    INSERT INTO credit_holds (tenant_id, hold_id, customer_id, wallet_id, amount, opened_at, expires_at,
        idempotency_key, asked, state)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'open')
    ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
    RETURNING tenant_id, wallet_id, amount
)
UPDATE wallets w SET reserved = w.reserved + o.amount
FROM opened o WHERE w.tenant_id = o.tenant_id AND w.wallet_id = o.wallet_id
"""

#: A hold of another customer is none: it is not locked either.
_LOCK = """
SELECT h.tenant_id, h.customer_id, h.hold_id, h.wallet_id, h.amount, h.captured, h.state, h.opened_at, h.expires_at
FROM unnest(%b::text[], %b::text[], %b::text[]) AS asked(tenant_id, customer_id, hold_id)
JOIN credit_holds h ON h.tenant_id = asked.tenant_id AND h.hold_id = asked.hold_id
    AND h.customer_id = asked.customer_id
ORDER BY h.tenant_id, h.hold_id
FOR NO KEY UPDATE OF h
"""

_CAPTURE = """
UPDATE credit_holds h SET captured = c.captured::numeric, state = c.state, closed_at = c.closed_at
FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::timestamptz[])
    AS c(tenant_id, hold_id, captured, state, closed_at)
WHERE h.tenant_id = c.tenant_id AND h.hold_id = c.hold_id
"""

_ADD_CAPTURES = """
INSERT INTO credit_captures (tenant_id, event_key, customer_id, hold_id, taken, mark, at)
SELECT c.tenant_id, c.event_key, c.customer_id, c.hold_id, c.taken::numeric, c.mark, %b
FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
    AS c(tenant_id, event_key, customer_id, hold_id, taken, mark)
"""

_FREE = """
UPDATE wallets w SET reserved = w.reserved - f.amount::numeric
FROM unnest(%b::text[], %b::bigint[], %b::text[]) AS f(tenant_id, wallet_id, amount)
WHERE w.tenant_id = f.tenant_id AND w.wallet_id = f.wallet_id
"""

_CLOSE = """
WITH asked AS (
    SELECT h.tenant_id, h.hold_id, h.wallet_id, h.amount - h.captured AS reserved
    FROM unnest(%s::text[], %s::text[]) AS a(tenant_id, hold_id)
    JOIN credit_holds h ON h.tenant_id = a.tenant_id AND h.hold_id = a.hold_id
    WHERE h.state = 'open'
    ORDER BY h.tenant_id, h.hold_id
    FOR NO KEY UPDATE OF h
), closed AS (
    UPDATE credit_holds h SET state = %s, closed_at = %s
    FROM asked a WHERE h.tenant_id = a.tenant_id AND h.hold_id = a.hold_id
), freed AS (
    UPDATE wallets w SET reserved = w.reserved - a.reserved
    FROM (SELECT tenant_id, wallet_id, sum(reserved) AS reserved FROM asked GROUP BY tenant_id, wallet_id) a
    WHERE w.tenant_id = a.tenant_id AND w.wallet_id = a.wallet_id
)
SELECT count(*) FROM asked
"""

_CAPTURES = """
SELECT c.event_key, c.taken, u.cost, u.currency, c.mark, c.at
FROM credit_captures c JOIN usage_events u ON u.tenant_id = c.tenant_id AND u.key = c.event_key
WHERE c.tenant_id = %s AND c.hold_id = %s AND c.customer_id = %s
ORDER BY c.at, c.event_key LIMIT %s
"""

_DUE = """
SELECT tenant_id, customer_id, hold_id FROM credit_holds WHERE state = 'open' AND expires_at <= %s
ORDER BY expires_at LIMIT %s
"""

_DUE_OF_WALLETS = """
SELECT h.tenant_id, h.customer_id, h.hold_id
FROM unnest(%s::text[], %s::bigint[]) AS asked(tenant_id, wallet_id)
JOIN credit_holds h ON h.tenant_id = asked.tenant_id AND h.wallet_id = asked.wallet_id
WHERE h.state = 'open' AND h.expires_at <= %s
"""


def find(connection: Connection, tenant_id: str, hold_id: str) -> HoldRow | None:
    """A hold, or None. Takes no lock."""
    return _one(connection, _FIND, (tenant_id, hold_id))


def by_key(connection: Connection, tenant_id: str, idempotency_key: str) -> HoldRow | None:
    """The hold that was opened under a caller's key, or None. Takes no lock."""
    return _one(connection, _BY_KEY, (tenant_id, idempotency_key))


def of_customer(
    connection: Connection, tenant_id: str, customer_id: str, *, with_closed: bool, limit: int
) -> list[HoldRow]:
    """A customer's holds, the newest first. Takes no lock."""
    rows = connection.execute(_OF_CUSTOMER, (tenant_id, customer_id, with_closed, limit))
    return [_row(row) for row in rows.fetchall()]


def reserve(connection: Connection, hold: NewHold) -> bool:
    """Write a hold and reserve its amount, in one; whether its key was new. The caller holds the wallets."""
    said = (*hold[:-1], Jsonb(hold.asked))
    return connection.execute(_OPEN, said).rowcount == 1


def lock(connection: Connection, keys: Sequence[HoldKey]) -> dict[HoldKey, Hold]:
    """Lock these customers' holds FOR NO KEY UPDATE, in order; those that are there. The caller holds the wallets."""
    columns = [texts(column) for column in zip(*keys, strict=True)]
    rows = cast("list[Any]", connection.execute(_LOCK, columns, binary=True).fetchall())
    return {(row[0], row[1], row[2]): Hold(row[3], row[4], row[5], HoldState(row[6]), row[7], row[8]) for row in rows}


def capture(
    connection: Connection, holds: Mapping[HoldKey, Hold], captures: Sequence[CaptureRow], now: datetime
) -> None:
    """Write what events took, and the holds and the wallets' reserves as they are after it.

    The caller holds wallets and holds. Guarded by the primary key of the captures: an event captures once.
    """
    columns = list(zip(*(row[:-1] for row in captures), strict=True))
    taken = [row.capture for row in captures]
    marks = [one.mark and one.mark.value for one in taken]
    told = (*map(texts, columns), numerics([one.taken for one in taken]), texts(marks))
    connection.execute(_ADD_CAPTURES, (now, *told))
    freed: dict[tuple[str, int], Decimal] = {}
    changed: dict[HoldKey, Hold] = {}
    for row in captures:
        if row.capture.taken:
            key = (row.tenant_id, row.customer_id, row.hold_id)
            hold = changed[key] = holds[key]
            wallet = (row.tenant_id, hold.wallet_id)
            freed[wallet] = freed.get(wallet, Decimal(0)) + row.capture.taken
    if not changed:
        return
    tenant_ids, _, hold_ids = zip(*changed, strict=True)
    states = [hold.state for hold in changed.values()]
    captured = numerics([hold.captured for hold in changed.values()])
    closed = optional_moments([None if state is HoldState.OPEN else now for state in states])
    connection.execute(_CAPTURE, (texts(tenant_ids), texts(hold_ids), captured, texts(states), closed))
    tenant_ids, wallet_ids = zip(*freed, strict=True)
    connection.execute(_FREE, (texts(tenant_ids), bigints(wallet_ids), numerics(list(freed.values()))))


def captures(connection: Connection, hold: HoldRow, limit: int) -> list[Captured]:
    """What its customer's events took of a hold, the oldest first. Takes no lock."""
    rows = connection.execute(_CAPTURES, (hold.tenant_id, hold.hold_id, hold.customer_id, limit))
    return [Captured._make(cast("Any", row)) for row in rows.fetchall()]


def close(connection: Connection, holds: Sequence[tuple[str, str]], state: HoldState, now: datetime) -> int:
    """Close those of the (tenant, hold) that are open, and give back what they reserve; how many they were.

    The caller holds the wallets of their customers. Locks the holds, in order.
    """
    tenant_ids, hold_ids = zip(*holds, strict=True)
    row = connection.execute(_CLOSE, (list(tenant_ids), list(hold_ids), state.value, now)).fetchone()
    assert row is not None
    return cast("int", row[0])


def due(connection: Connection, now: datetime, limit: int) -> list[DueHold]:
    """Open holds whose time is over, the oldest first; at most `limit`. Takes no lock."""
    return [DueHold._make(cast("Any", row)) for row in connection.execute(_DUE, (now, limit)).fetchall()]


def due_of_wallets(connection: Connection, wallets: Sequence[tuple[str, int]], now: datetime) -> list[DueHold]:
    """The same of these (tenant, wallet), all of them. Takes no lock."""
    tenant_ids, wallet_ids = zip(*wallets, strict=True)
    rows = connection.execute(_DUE_OF_WALLETS, (list(tenant_ids), list(wallet_ids), now))
    return [DueHold._make(cast("Any", row)) for row in rows.fetchall()]


def _one(connection: Connection, statement: str, said: tuple[object, ...]) -> HoldRow | None:
    row = connection.execute(statement.encode(), said).fetchone()
    return _row(row) if row else None


def _row(row: tuple[object, ...]) -> HoldRow:
    found = HoldRow._make(cast("Any", row))
    return found._replace(state=HoldState(found.state))
