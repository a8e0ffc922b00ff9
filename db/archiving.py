"""Archiving: which usage is old enough, reading it for its files, and taking it out of the tables.

What is chosen stands still: its periods are closed and stated, and from `begin` on nothing in them is corrected. So it
is read without locks, and nobody who charges waits.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby, takewhile
from typing import Any, NamedTuple, cast

from db.session import Connection
from db.usage import CONTEXT_COLUMNS

#: Periods of one archive; a month of more of them has several.
PERIODS_MAX = 10_000
#: Events that are read, or taken out, at once.
PAGE = 5_000
FIRST_PAGE = 50


class Ready(NamedTuple):
    """What of a tenant's month could be archived, by the counters of its periods."""

    tenant_id: str
    month: str
    periods: int
    events: int
    tokens: int


class Archive(NamedTuple):
    """An archive. Without `sha256` its file is not written yet."""

    tenant_id: str
    archive_id: int
    month: str
    path: str
    events: int | None
    entries: int | None
    tokens: int | None
    cost: Decimal | None
    size_bytes: int | None
    sha256: bytes | None

    @property
    def key(self) -> tuple[str, int]:
        return self.tenant_id, self.archive_id

    @property
    def folder(self) -> str:
        """Where its files are."""
        return f"{self.path}/{self.archive_id}"


class Removed(NamedTuple):
    """What was taken out of a wallet's ledger: its checkpoint takes the place of it."""

    wallet_id: int
    seq: int
    entries: int
    used: Decimal
    """of these entries alone"""
    amount: Decimal
    """with what the checkpoint before had"""
    balance_before: Decimal
    balance_after: Decimal
    occurred_at: datetime
    recorded_at: datetime
    parts: str


_ARCHIVE = "a.tenant_id, a.archive_id, a.month, a.path, a.events, a.entries, a.tokens, a.cost, a.bytes, a.sha256"

#: As `db.corrections` finds the periods of a month: by the local middle.
_MONTH = "to_char((p.starts_at + (p.ends_at - p.starts_at) / 2) AT TIME ZONE p.time_zone, 'YYYY-MM')"

_IS_READY = """p.statement_number IS NOT NULL AND p.archive_id IS NULL AND p.ends_at <= %(before)s
    AND (%(tenant_id)s::text IS NULL OR p.tenant_id = %(tenant_id)s)"""

_READY = f"""
SELECT p.tenant_id, {_MONTH}, count(*), sum(p.events)::bigint, sum(p.tokens)::bigint
FROM periods p WHERE {_IS_READY} GROUP BY 1, 2 ORDER BY 1, 2
"""  # noqa: S608 - words of ours, no input

_BEGIN = f"""
WITH chosen AS (
    SELECT p.tenant_id, p.customer_id, p.starts_at FROM periods p
    WHERE {_IS_READY} AND {_MONTH} = %(month)s
    ORDER BY p.tenant_id, p.customer_id, p.starts_at LIMIT {PERIODS_MAX}
    FOR NO KEY UPDATE SKIP LOCKED
), archive AS (
    INSERT INTO archives AS a (tenant_id, month, path, begun_at)
    SELECT %(tenant_id)s, %(month)s, %(path)s, %(now)s WHERE EXISTS (SELECT FROM chosen)
    ON CONFLICT (tenant_id) WHERE finished_at IS NULL DO NOTHING
    RETURNING {_ARCHIVE}
), marked AS (
    UPDATE periods p SET archive_id = a.archive_id FROM chosen c, archive a
    WHERE p.tenant_id = c.tenant_id AND p.customer_id = c.customer_id AND p.starts_at = c.starts_at
)
SELECT * FROM archive
"""  # noqa: S608 - words of ours, no input

_UNFINISHED = f"""
SELECT {_ARCHIVE} FROM archives a
WHERE a.finished_at IS NULL AND (%(tenant_id)s::text IS NULL OR a.tenant_id = %(tenant_id)s)
ORDER BY a.tenant_id, a.archive_id
"""  # noqa: S608 - words of ours, no input

_LOCK = f"""
SELECT {_ARCHIVE} FROM archives a WHERE a.tenant_id = %s AND a.archive_id = %s AND a.finished_at IS NULL
FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - words of ours, no input

#: It reads as much as a month has; each row by its key, whatever the planner thinks that it will be.
_PATIENCE = """
SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL cursor_tuple_fraction = 0.0001
"""

_WALLETS = """
SELECT DISTINCT w.wallet_id FROM periods p
JOIN wallets w ON w.tenant_id = p.tenant_id AND w.customer_id = p.customer_id
WHERE p.tenant_id = %s AND p.archive_id = %s AND w.last_seq > 0 ORDER BY w.wallet_id
"""

_LINE = """'{"event":' || to_jsonb(u)::text || ',"entry":' || %s || '}'"""
#: Some bytes of metadata may become megabytes when its numbers are written out: such lines are read one by one.
_IS_LONG = "octet_length(u.metadata::text) > 32768"

#: In the order of the ledger, up to the first that may not go yet. Then what was kept since makes one checkpoint.
_OF_WALLET = f"""
SELECT CASE WHEN p.archive_id IS NULL THEN NULL WHEN {_IS_LONG} THEN '' ELSE {_LINE % "to_jsonb(e)::text"} END,
    e.event_key, e.wallet_id, e.seq
FROM ledger_entries e
LEFT JOIN usage_events u ON u.tenant_id = e.tenant_id AND u.key = e.event_key
LEFT JOIN periods p
    ON p.tenant_id = u.tenant_id AND p.customer_id = u.customer_id AND p.starts_at = u.period_start
WHERE e.tenant_id = %(tenant_id)s AND e.wallet_id = %(wallet_id)s AND e.kind = 'usage'
    AND e.seq > coalesce((
        SELECT c.seq FROM checkpoints c WHERE c.tenant_id = %(tenant_id)s AND c.wallet_id = %(wallet_id)s
    ), 0)
ORDER BY e.seq
"""  # noqa: S608 - words of ours, no input

#: What a plan covers has no entry.
_FREE = f"""
SELECT CASE WHEN {_IS_LONG} THEN '' ELSE {_LINE % "'null'"} END, u.key, NULL, NULL
FROM periods p
JOIN usage_events u
    ON u.tenant_id = p.tenant_id AND u.customer_id = p.customer_id AND u.period_start = p.starts_at
WHERE p.tenant_id = %s AND p.archive_id = %s AND u.cost = 0 AND u.charged_at IS NOT NULL AND u.archive_id IS NULL
    AND u.status IN ('charged', 'voided')
"""  # noqa: S608 - words of ours, no input

_LONG = f"""
SELECT {_LINE % "coalesce(to_jsonb(e)::text, 'null')"}
FROM usage_events u
LEFT JOIN ledger_entries e ON e.tenant_id = u.tenant_id AND e.wallet_id = %s::bigint AND e.seq = %s::bigint
WHERE u.tenant_id = %s AND u.key = %s
"""  # noqa: S608 - words of ours, no input

_WRITTEN = """
UPDATE archives SET written_at = %s, events = %s, entries = %s, tokens = %s, cost = %s, bytes = %s, sha256 = %s
WHERE tenant_id = %s AND archive_id = %s AND written_at IS NULL
"""

_FINISHED = "UPDATE archives SET finished_at = %s WHERE tenant_id = %s AND archive_id = %s"

#: The checkpoint first: the trigger on the ledger lets go only what one stands for. The sum of what moved in between
#: is given back, to be held against the balances.
_MOVE = """
INSERT INTO checkpoints AS c (tenant_id, wallet_id, seq, entries, usage_hash, kept_hash, occurred_from, archive_id, at)
SELECT e.tenant_id, e.wallet_id, a.seq, count(*) FILTER (WHERE e.kind = 'usage'),
    sum(hash_numeric_extended(-e.amount, hashtextextended(e.event_key, 0))) FILTER (WHERE e.kind = 'usage'),
    coalesce(sum(hash_numeric_extended(e.balance_after, e.seq)::numeric
        - hash_numeric_extended(e.balance_after - e.amount, e.seq - 1)) FILTER (WHERE e.kind <> 'usage'), 0),
    min(e.occurred_at) FILTER (WHERE e.kind = 'usage'), %(archive_id)s, %(now)s
FROM unnest(%(wallet_ids)s::bigint[], %(seqs)s::bigint[]) AS a(wallet_id, seq)
LEFT JOIN checkpoints k ON k.tenant_id = %(tenant_id)s AND k.wallet_id = a.wallet_id
JOIN ledger_entries e ON e.tenant_id = %(tenant_id)s AND e.wallet_id = a.wallet_id
    AND e.seq > coalesce(k.seq, 0) AND e.seq <= a.seq
GROUP BY e.tenant_id, e.wallet_id, a.seq ORDER BY e.wallet_id
ON CONFLICT (tenant_id, wallet_id) DO UPDATE SET seq = excluded.seq, entries = c.entries + excluded.entries,
    usage_hash = c.usage_hash + excluded.usage_hash, kept_hash = c.kept_hash + excluded.kept_hash,
    occurred_from = least(c.occurred_from, excluded.occurred_from), archive_id = excluded.archive_id, at = excluded.at
"""

_KEPT = """
SELECT a.wallet_id, coalesce(k.seq, 0), coalesce(sum(e.amount), 0)
FROM unnest(%(wallet_ids)s::bigint[], %(seqs)s::bigint[]) AS a(wallet_id, seq)
LEFT JOIN checkpoints k ON k.tenant_id = %(tenant_id)s AND k.wallet_id = a.wallet_id
LEFT JOIN ledger_entries e ON e.tenant_id = %(tenant_id)s AND e.wallet_id = a.wallet_id
    AND e.seq > coalesce(k.seq, 0) AND e.seq <= a.seq AND e.kind NOT IN ('usage', 'checkpoint')
GROUP BY a.wallet_id, k.seq
"""

_REMOVE = """
WITH gone AS (
    DELETE FROM ledger_entries e
    USING unnest(%(removed_ids)s::bigint[], %(since)s::bigint[], %(removed_seqs)s::bigint[]) AS a(wallet_id, since, seq)
    WHERE e.tenant_id = %(tenant_id)s AND e.wallet_id = a.wallet_id AND e.seq BETWEEN a.since AND a.seq
        AND e.kind IN ('usage', 'checkpoint')
    RETURNING e.wallet_id, e.seq, e.amount, e.balance_after, e.kind, e.occurred_at, e.recorded_at, e.grant_id, e.parts
), moved AS (
    SELECT wallet_id, name, sum(amount) AS amount FROM (
        SELECT wallet_id, coalesce(grant_id::text, 'debt') AS name,
            CASE WHEN grant_id IS NULL THEN -amount ELSE amount END AS amount
        FROM gone WHERE parts IS NULL
        UNION ALL
        SELECT g.wallet_id, p.key, p.value::numeric FROM gone g CROSS JOIN LATERAL jsonb_each_text(g.parts) p
        WHERE g.parts IS NOT NULL
    ) each GROUP BY wallet_id, name
)
SELECT g.wallet_id, max(g.seq), count(*) FILTER (WHERE g.kind = 'usage'),
    sum(g.amount) FILTER (WHERE g.kind = 'usage'), sum(g.amount),
    coalesce(max(g.balance_after) FILTER (WHERE g.kind = 'checkpoint'), 0),
    (array_agg(g.balance_after ORDER BY g.seq DESC))[1], max(g.occurred_at), max(g.recorded_at),
    (SELECT jsonb_object_agg(m.name, m.amount::text)::text FROM moved m WHERE m.wallet_id = g.wallet_id)
FROM gone g GROUP BY g.wallet_id ORDER BY g.wallet_id
"""

_CHECKPOINT = """
INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, reason, occurred_at,
    recorded_at, parts, period_start)
SELECT %s, e.wallet_id, e.seq, e.amount, e.balance_after, 'checkpoint', 'revenue:usage', %s, e.occurred_at,
    e.recorded_at, e.parts::jsonb, e.period_start
FROM unnest(%s::bigint[], %s::bigint[], %s::numeric[], %s::numeric[], %s::timestamptz[], %s::timestamptz[], %s::text[],
    %s::timestamptz[]) AS e(wallet_id, seq, amount, balance_after, occurred_at, recorded_at, parts, period_start)
"""

_LIGHTEN = f"""
UPDATE usage_events u
SET archive_id = %s, items = '[]', metadata = NULL, {", ".join(f"{name} = NULL" for name in CONTEXT_COLUMNS)}
FROM unnest(%s::text[]) AS a(key)
WHERE u.tenant_id = %s AND u.key = a.key AND u.archive_id IS NULL
"""  # noqa: S608 - column names of ours, no input

_DONE = "SELECT count(*) FROM usage_events WHERE tenant_id = %s AND key = ANY(%s) AND archive_id = %s"

_ARCHIVED_PERIOD = """
SELECT p.customer_id, p.starts_at, a.path || '/' || a.archive_id
FROM unnest(%s::text[], %s::timestamptz[]) AS asked(customer_id, starts_at)
JOIN periods p ON p.tenant_id = %s AND p.customer_id = asked.customer_id AND p.starts_at = asked.starts_at
JOIN archives a ON a.tenant_id = p.tenant_id AND a.archive_id = p.archive_id
ORDER BY p.customer_id, p.starts_at LIMIT 1
"""


def ready(connection: Connection, before: datetime, tenant_id: str | None) -> list[Ready]:
    """What could be archived of periods that ended before then, by tenant and month. Takes no lock."""
    found = connection.execute(_READY.encode(), {"before": before, "tenant_id": tenant_id})
    return [Ready._make(cast("Any", row)) for row in found]


def begin(
    connection: Connection, tenant_id: str, month: str, before: datetime, path: str, now: datetime
) -> Archive | None:
    """Choose periods of a month for an archive of their own.

    None when there are none left, or while the tenant has an archive that is not finished: two that share wallets
    would each hold what the other is to take out.
    Locks their rows, which whoever corrects an event locks as well. A period that is being corrected is left out.
    """
    said = {"tenant_id": tenant_id, "month": month, "before": before, "path": path, "now": now}
    return _one(connection.execute(_BEGIN.encode(), said).fetchone())


def unfinished(connection: Connection, tenant_id: str | None) -> list[Archive]:
    """Archives that were begun and did not come to their end."""
    found = connection.execute(_UNFINISHED.encode(), {"tenant_id": tenant_id})
    return [Archive._make(cast("Any", row)) for row in found]


def lock(connection: Connection, archive: Archive) -> Archive | None:
    """An archive, locked FOR NO KEY UPDATE; None when it is finished, or somebody else is at it."""
    return _one(connection.execute(_LOCK.encode(), archive.key).fetchone())


def wallets(connection: Connection, archive: Archive) -> list[int]:
    """The wallets of an archive's customers, in order. The transaction may take its time from now on."""
    connection.execute(_PATIENCE)
    return [cast("int", wallet_id) for (wallet_id,) in connection.execute(_WALLETS, archive.key)]


def lines_of_wallet(connection: Connection, tenant_id: str, wallet_id: int) -> Iterator[list[str]]:
    """A wallet's usage that may go, from the last checkpoint on, as lines of JSON, page by page."""
    said = {"tenant_id": tenant_id, "wallet_id": wallet_id}
    return _pages(connection, tenant_id, _OF_WALLET, said)


def lines_without_entry(connection: Connection, archive: Archive) -> Iterator[list[str]]:
    """The usage of an archive's periods that cost nothing, as lines of JSON, page by page."""
    return _pages(connection, archive.tenant_id, _FREE, archive.key)


def _pages(connection: Connection, tenant_id: str, statement: str, said: Any) -> Iterator[list[str]]:
    """Up to the first row that has no line. The first pages are small: most of a wallet may have to stay."""
    size = FIRST_PAGE
    with connection.cursor("to_archive") as cursor:
        cursor.execute(statement.encode(), said)
        while rows := cast("list[tuple[str | None, str, int | None, int | None]]", cursor.fetchmany(min(size, PAGE))):
            page = list(takewhile(lambda row: row[0] is not None, rows))
            for is_short, some in groupby(page, lambda row: bool(row[0])):
                if is_short:
                    yield [cast("str", line) for line, *_ in some]
                else:
                    yield from ([_long(connection, tenant_id, *row[1:])] for row in some)
            if len(page) < len(rows):
                return
            size *= 4


def _long(connection: Connection, tenant_id: str, key: str, wallet_id: int | None, seq: int | None) -> str:
    row = connection.execute(_LONG.encode(), (wallet_id, seq, tenant_id, key)).fetchone()
    return cast("str", cast("Any", row)[0])


def written(connection: Connection, archive: Archive, now: datetime) -> None:
    """Note that an archive's file is written and was read back: from now on it may be emptied into."""
    figures = (archive.events, archive.entries, archive.tokens, archive.cost, archive.size_bytes, archive.sha256)
    connection.execute(_WRITTEN, (now, *figures, *archive.key))


def finished(connection: Connection, archive: Archive, now: datetime) -> None:
    """Note that what is in an archive is in the tables no more."""
    connection.execute(_FINISHED, (now, *archive.key))


def are_gone(connection: Connection, archive: Archive, keys: Sequence[str]) -> int:
    """How many of these events are in the archive, and no longer in full in their table."""
    row = connection.execute(_DONE, (archive.tenant_id, list(keys), archive.archive_id)).fetchone()
    return cast("int", cast("Any", row)[0])


def lighten(connection: Connection, archive: Archive, keys: Sequence[str]) -> int:
    """Leave of these events what answers for them: key, fingerprint, status, cost, tokens, period; of how many."""
    return connection.execute(_LIGHTEN.encode(), (archive.archive_id, list(keys), archive.tenant_id)).rowcount


def remove_entries(
    connection: Connection, archive: Archive, up_to: Mapping[int, tuple[int, datetime]], now: datetime
) -> list[tuple[Removed, Decimal]]:
    """Put one checkpoint in the place of each wallet's entries of usage up to a number, and of the checkpoint before.

    `up_to` says wallet: (seq of an entry of usage, the period that the checkpoint is told in). Each wallet comes back
    with what the entries that stay have moved since the checkpoint before. The caller holds the archive.
    """
    said = {
        "tenant_id": archive.tenant_id,
        "archive_id": archive.archive_id,
        "wallet_ids": list(up_to),
        "seqs": [seq for seq, _ in up_to.values()],
        "now": now,
    }
    before = cast("list[tuple[int, int, Decimal]]", connection.execute(_KEPT, said).fetchall())
    kept = {wallet_id: amount for wallet_id, _, amount in before}
    said["removed_ids"] = list(kept)
    said["since"] = [since for _, since, _ in before]
    said["removed_seqs"] = [up_to[wallet_id][0] for wallet_id in kept]
    connection.execute(_MOVE, said)
    removed = [Removed._make(cast("Any", row)) for row in connection.execute(_REMOVE, said)]
    columns = [
        (r.wallet_id, r.seq, r.amount, r.balance_after, r.occurred_at, r.recorded_at, r.parts, up_to[r.wallet_id][1])
        for r in removed
    ]
    arrays = [list(column) for column in zip(*columns, strict=True)]
    connection.execute(_CHECKPOINT, (archive.tenant_id, f"archive {archive.archive_id}", *arrays))
    return [(one, kept[one.wallet_id]) for one in removed]


def first_archived(
    connection: Connection, tenant_id: str, periods: Sequence[tuple[str, datetime]]
) -> tuple[str, datetime, str] | None:
    """Of these (customer, start), the first whose usage is archived, or is to be, with its archive's folder."""
    customers, starts = ([*column] for column in zip(*periods, strict=True)) if periods else ([], [])
    row = connection.execute(_ARCHIVED_PERIOD, (customers, starts, tenant_id)).fetchone()
    return cast("tuple[str, datetime, str] | None", row)


def _one(row: Any) -> Archive | None:
    return Archive._make(row) if row else None
