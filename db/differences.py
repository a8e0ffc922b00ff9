"""What the audit found, kept: each difference once, as long as it stands."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import cast

from db.audit import Difference
from db.session import Connection

_TAKE_TURN = """
UPDATE audit_turn SET due_at = %(lease_until)s, started_at = %(now)s WHERE due_at IS NULL OR due_at <= %(now)s
RETURNING 1
"""

_END_TURN = "UPDATE audit_turn SET due_at = %s, finished_at = %s"

_KEEP = """
INSERT INTO audit_differences AS d (tenant_id, check_name, subject, expected, actual, first_seen_at, last_seen_at)
SELECT DISTINCT ON (tenant_id, check_name, subject) tenant_id, check_name, subject, expected, actual, %(now)s, %(now)s
FROM unnest(%(checks)s::text[], %(tenants)s::text[], %(subjects)s::text[], %(expected)s::text[], %(actual)s::text[])
    AS found(check_name, tenant_id, subject, expected, actual)
ORDER BY tenant_id, check_name, subject
ON CONFLICT (tenant_id, check_name, subject) WHERE resolved_at IS NULL DO UPDATE
    SET times = d.times + 1, last_seen_at = excluded.last_seen_at, expected = excluded.expected,
        actual = excluded.actual
"""

# Whatever this audit has seen was written a moment ago, at its time.
_RESOLVE = """
UPDATE audit_differences SET resolved_at = %s
WHERE resolved_at IS NULL AND last_seen_at < %s AND check_name = ANY(%s)
"""

_OWNERS = """
SELECT DISTINCT w.tenant_id, w.customer_id
FROM unnest(%s::text[], %s::text[], %s::boolean[]) AS found(tenant_id, subject, is_named)
JOIN wallets w ON w.tenant_id = found.tenant_id AND CASE WHEN is_named
    THEN w.customer_id || ' ' || w.currency = found.subject
    ELSE w.wallet_id::text = split_part(found.subject, ' ', 1) END
ORDER BY 1, 2
"""


def take_turn(connection: Connection, now: datetime, lease_until: datetime) -> bool:
    """Whether the audit is due, and nobody else's for now. Locks the turn."""
    return connection.execute(_TAKE_TURN, {"now": now, "lease_until": lease_until}).rowcount > 0


def end_turn(connection: Connection, due_at: datetime, now: datetime) -> None:
    """The audit came to its end; it is due again then."""
    connection.execute(_END_TURN, (due_at, now))


def keep(connection: Connection, differences: Sequence[Difference], now: datetime) -> None:
    """Write down what stands; what stood already was seen once more."""
    checks, tenants, subjects, expected, actual = ([*column] for column in zip(*differences, strict=True))
    said = {"checks": checks, "tenants": tenants, "subjects": subjects, "expected": expected, "actual": actual}
    connection.execute(_KEEP, said | {"now": now})


def resolve(connection: Connection, checks: Sequence[str], now: datetime) -> int:
    """Of these checks, what was not seen now stands no longer; how many."""
    return connection.execute(_RESOLVE, (now, now, [*checks])).rowcount


def owners(connection: Connection, differences: Sequence[tuple[Difference, bool]]) -> list[tuple[str, str]]:
    """(tenant, customer) of wallets, named by customer and currency where so told, else by their number."""
    tenants = [one.tenant_id for one, _ in differences]
    subjects = [one.subject for one, _ in differences]
    found = connection.execute(_OWNERS, (tenants, subjects, [is_named for _, is_named in differences]))
    return cast("list[tuple[str, str]]", found.fetchall())


def rows_of(connection: Connection, tenant_ids: Collection[str]) -> dict[str, int]:
    """How many wallets, entries, events, periods and payments these tenants have."""
    if not tenant_ids:
        return {}
    tables = ("wallets", "ledger_entries", "usage_events", "periods", "payments")
    each = " UNION ALL ".join(f"SELECT tenant_id FROM {table} WHERE tenant_id = ANY(%(tenants)s)" for table in tables)  # noqa: S608 - words of ours, no input
    statement = f"""
        SELECT tenant_id, (SELECT count(*) FROM ({each}) r WHERE r.tenant_id = t.tenant_id)
        FROM unnest(%(tenants)s::text[]) AS t(tenant_id)
    """  # noqa: S608 - words of ours, no input
    return dict(
        cast("list[tuple[str, int]]", connection.execute(statement.encode(), {"tenants": [*tenant_ids]}).fetchall())
    )
