"""Grants of value. Whoever changes one holds its wallet's lock."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, cast
from uuid import UUID

import msgspec

from billing.grants import Grant
from billing.money import ZERO
from db.arrays import bigints, texts
from db.session import Connection


class NewGrant(NamedTuple):
    """A grant to be written, as it stands after it arrived."""

    tenant_id: str
    grant_id: UUID
    wallet_id: int
    source: str
    priority: int
    amount: Decimal
    paid_debt: Decimal
    valid_from: datetime | None
    expires_at: datetime | None
    breaks_at: datetime | None
    reason: str
    period_start: datetime | None
    payment_id: UUID | None
    ended_at: datetime | None


#: In the order of `billing.grants.in_burn_order`; a test holds the two together.
_READ = """
SELECT g.tenant_id, g.wallet_id, g.grant_id::text, g.valid_from, g.expires_at, g.priority, g.number, g.paid_debt
FROM unnest(%b::text[], %b::bigint[]) AS asked(tenant_id, wallet_id)
JOIN credit_grants g ON g.tenant_id = asked.tenant_id AND g.wallet_id = asked.wallet_id
WHERE %b OR g.ended_at IS NULL
ORDER BY g.tenant_id, g.wallet_id, g.priority, g.expires_at NULLS LAST, g.number
"""

_END = """
UPDATE credit_grants g SET ended_at = %b
FROM unnest(%b::text[], %b::text[]) AS e(tenant_id, grant_id)
WHERE g.tenant_id = e.tenant_id AND g.grant_id = e.grant_id::uuid
"""

_ADD = """
INSERT INTO credit_grants (tenant_id, grant_id, wallet_id, source, priority, amount, paid_debt, valid_from,
    expires_at, breaks_at, reason, period_start, payment_id, ended_at, created_at)
SELECT n.*, %s
FROM unnest(%s::text[], %s::uuid[], %s::bigint[], %s::text[], %s::smallint[], %s::numeric[],
    %s::numeric[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::text[], %s::timestamptz[], %s::uuid[],
    %s::timestamptz[])
    AS n(tenant_id, grant_id, wallet_id, source, priority, amount, paid_debt, valid_from, expires_at,
        breaks_at, reason, period_start, payment_id, ended_at)
RETURNING grant_id::text, number
"""

_SAVE = """
UPDATE credit_grants g
SET paid_debt = s.paid_debt, ended_at = CASE WHEN s.is_ended THEN coalesce(g.ended_at, %s) END
FROM unnest(%s::text[], %s::uuid[], %s::numeric[], %s::boolean[]) AS s(tenant_id, grant_id, paid_debt, is_ended)
WHERE g.tenant_id = s.tenant_id AND g.grant_id = s.grant_id
"""

_SHORTEN = """
UPDATE credit_grants SET expires_at = %(expires_at)s, breaks_at = %(breaks_at)s
WHERE tenant_id = %(tenant_id)s AND grant_id = %(grant_id)s AND expires_at > %(expires_at)s
"""

_GIVEN = """
SELECT g.tenant_id, g.grant_id FROM unnest(%s::text[], %s::uuid[]) AS asked(tenant_id, grant_id)
JOIN credit_grants g ON g.tenant_id = asked.tenant_id AND g.grant_id = asked.grant_id
"""

#: No event is recorded earlier than this before it occurred.
AHEAD_MAX = timedelta(days=1)

#: The bound on `recorded_at` keeps it to the end of the ledger, where its BRIN index leads. Of what is archived it is
#: known how much debt all of it made: it counts where all of it lies in the span. What was voided has made none: who
#: paid it has it back.
_DEBT_OF_SPAN = """
WITH counted AS (
    SELECT sum(CASE WHEN e.parts IS NULL THEN -e.amount ELSE (e.parts->>'debt')::numeric END) AS debt,
        min(e.recorded_at) AS first_at
    FROM ledger_entries e
    WHERE e.tenant_id = %(tenant_id)s AND e.wallet_id = %(wallet_id)s AND e.kind = 'usage' AND e.grant_id IS NULL
        AND e.recorded_at >= coalesce(%(since)s::timestamptz - %(ahead)s, '-infinity')
        AND e.occurred_at >= coalesce(%(since)s::timestamptz, '-infinity')
        AND e.occurred_at < coalesce(%(until)s::timestamptz, 'infinity')
        AND NOT EXISTS (
            SELECT FROM corrections c
            WHERE c.tenant_id = e.tenant_id AND c.event_key = e.event_key AND c.kind = 'void'
        )
), archived AS (
    SELECT (e.parts->>'debt')::numeric AS debt, c.occurred_from >= coalesce(%(since)s::timestamptz, '-infinity')
        AND e.occurred_at < coalesce(%(until)s::timestamptz, 'infinity') AS is_within
    FROM checkpoints c
    JOIN ledger_entries e ON e.tenant_id = c.tenant_id AND e.wallet_id = c.wallet_id AND e.seq = c.seq
    WHERE c.tenant_id = %(tenant_id)s AND c.wallet_id = %(wallet_id)s
)
SELECT coalesce((SELECT debt FROM counted), 0) + coalesce((SELECT debt FROM archived WHERE is_within), 0) - coalesce((
    SELECT sum(g.paid_debt) FROM credit_grants g
    WHERE g.tenant_id = %(tenant_id)s AND g.wallet_id = %(wallet_id)s
        AND (g.valid_from IS NOT NULL OR g.expires_at IS NOT NULL)
        AND coalesce(g.valid_from, '-infinity') < coalesce(%(until)s::timestamptz, 'infinity')
        AND coalesce(g.expires_at, 'infinity') > coalesce(%(since)s::timestamptz, '-infinity')
        -- Where archived debt is not counted, neither is what paid it: what came before the rest can't have paid that.
        AND (g.created_at >= (SELECT first_at FROM counted) OR NOT EXISTS (SELECT FROM archived WHERE NOT is_within))
), 0)
"""

#: A hold that was opened before a grant's end may count on it: then the grant stays until the hold is closed.
_IS_KEPT = """EXISTS (
        SELECT FROM credit_holds h WHERE h.tenant_id = g.tenant_id AND h.wallet_id = g.wallet_id AND h.state = 'open'
            AND h.opened_at < g.expires_at
    )"""

#: What is reserved stays, and is looked at again when something was released.
_TO_BREAK = f"""
SELECT DISTINCT w.tenant_id, w.customer_id FROM (
    SELECT g.tenant_id, g.wallet_id FROM credit_grants g
    JOIN wallets v ON v.tenant_id = g.tenant_id AND v.wallet_id = g.wallet_id
    WHERE g.ended_at IS NULL AND g.breaks_at <= %s AND (v.reserved = 0 OR v.balance > v.reserved)
        AND NOT (v.reserved > 0 AND {_IS_KEPT})
    ORDER BY g.breaks_at LIMIT %s
) g JOIN wallets w ON w.tenant_id = g.tenant_id AND w.wallet_id = g.wallet_id
ORDER BY w.tenant_id, w.customer_id
"""  # noqa: S608 - a condition of ours, no input

_BREAKING = f"""
SELECT g.grant_id::text FROM unnest(%b::text[], %b::bigint[]) AS asked(tenant_id, wallet_id)
JOIN credit_grants g ON g.tenant_id = asked.tenant_id AND g.wallet_id = asked.wallet_id
WHERE g.ended_at IS NULL AND g.breaks_at <= %b AND NOT {_IS_KEPT}
"""  # noqa: S608 - a condition of ours, no input


def debt_of_span(
    connection: Connection, tenant_id: str, wallet_id: int, since: datetime | None, until: datetime | None
) -> Decimal:
    """How much debt the usage of a span has made, less what grants of that span have paid. Takes no lock."""
    said = {"tenant_id": tenant_id, "wallet_id": wallet_id, "since": since, "until": until, "ahead": AHEAD_MAX}
    row = connection.execute(_DEBT_OF_SPAN, said).fetchone()
    assert row is not None
    return max(Decimal(0), cast("Decimal", row[0]))


#: What remains of a wallet's open grants is kept on its own row, which usage locks and writes anyway; with the facts
#: that usage asks for. To read and write a row a grant beside it took a fifth of the usage path's time.
_decode = msgspec.json.Decoder(list[Grant]).decode
_encode = msgspec.json.Encoder().encode
NONE_OPEN = "[]"


def opened(kept: str) -> list[Grant]:
    """The open grants of a wallet, as its row keeps them, in the order in which they are burned."""
    return [] if kept == NONE_OPEN else _decode(kept)


def as_kept(grants: Iterable[Grant]) -> str:
    """These grants as a wallet's row keeps them; without those that have nothing left."""
    fields = [
        (g.grant_id, g.remaining, g.valid_from, g.expires_at, g.priority, g.number) for g in grants if g.remaining
    ]
    return _encode(fields).decode() if fields else NONE_OPEN


def read(
    connection: Connection, kept: Mapping[tuple[str, int], str], *, with_ended: bool
) -> dict[tuple[str, int], list[Grant]]:
    """The grants of these (tenant, wallet), of which this is kept, with all that is known of them.

    They are in the order in which they are burned.
    """
    remains = {grant.grant_id: grant.remaining for one in kept.values() for grant in opened(one)}
    tenant_ids, wallet_ids = zip(*kept, strict=True)
    rows = connection.execute(_READ, (texts(tenant_ids), bigints(wallet_ids), with_ended), binary=True).fetchall()
    found: dict[tuple[str, int], list[Grant]] = {}
    for tenant_id, wallet_id, grant_id, *facts in cast("list[tuple[Any, ...]]", rows):
        grant = Grant(grant_id, remains.get(grant_id, ZERO), *facts)
        found.setdefault((tenant_id, wallet_id), []).append(grant)
    return found


def end(connection: Connection, ended: Sequence[tuple[str, str]], now: datetime) -> None:
    """Write that nothing remains of these (tenant, grant), which usage has burned."""
    tenant_ids, grant_ids = zip(*ended, strict=True)
    connection.execute(_END, (now, texts(tenant_ids), texts(grant_ids)))


def add(connection: Connection, grants: Sequence[NewGrant], now: datetime) -> dict[str, int]:
    """Write grants that have arrived; their numbers, which follow their order."""
    columns = (list(column) for column in zip(*grants, strict=True))
    return dict(cast("list[tuple[str, int]]", connection.execute(_ADD, (now, *columns)).fetchall()))


def save(connection: Connection, changed: Sequence[tuple[str, Grant]], now: datetime) -> None:
    """Write how grants stand, each with its tenant; what remains of them is their wallets' to keep."""
    rows = [(tenant_id, grant.grant_id, grant.paid_debt, not grant.remaining) for tenant_id, grant in changed]
    connection.execute(_SAVE, (now, *(list(column) for column in zip(*rows, strict=True))))


def shorten(connection: Connection, tenant_id: str, grant_id: UUID, expires_at: datetime, breaks_at: datetime) -> bool:
    """Let a grant end earlier; whether it does. The caller writes anew what its wallet keeps of it."""
    said = {"tenant_id": tenant_id, "grant_id": grant_id, "expires_at": expires_at, "breaks_at": breaks_at}
    return connection.execute(_SHORTEN, said).rowcount == 1


def given(connection: Connection, ids: Sequence[tuple[str, UUID]]) -> set[tuple[str, UUID]]:
    """Those of the (tenant, grant) that were given already."""
    rows = connection.execute(_GIVEN, [list(column) for column in zip(*ids, strict=True)])
    return cast("set[tuple[str, UUID]]", set(rows.fetchall()))


def to_break(connection: Connection, now: datetime, limit: int) -> list[tuple[str, str]]:
    """(tenant, customer) of some who have grants whose time is over; at most `limit`. Takes no lock."""
    return cast("list[tuple[str, str]]", connection.execute(_TO_BREAK, (now, limit)).fetchall())


def breaking(connection: Connection, wallets: Sequence[tuple[str, int]], now: datetime) -> set[str]:
    """The grants of these (tenant, wallet) whose time is over and that have something, if no hold counts on them."""
    tenant_ids, wallet_ids = zip(*wallets, strict=True)
    rows = connection.execute(_BREAKING, (texts(tenant_ids), bigints(wallet_ids), now), binary=True)
    return {cast("str", grant_id) for (grant_id,) in rows}
