"""All that became of usage, row by row: read whole, by a proof that reckons the same from what was emitted."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, LiteralString

from db.session import Connection

#: When the row was committed, by the server's own clock; NULL where it does not keep track.
EVENTS: LiteralString = """
SELECT tenant_id, key, customer_id, status, occurred_at, period_start, is_late, tokens, cost, currency, items,
    park_reason, CASE WHEN current_setting('track_commit_timestamp') = 'on'
        THEN extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 END,
    ARRAY[user_id, organization_id, service_type, feature, hold_id], coalesce(quota_ids, '{}'),
    coalesce(over_quota, false), archive_id IS NOT NULL
FROM usage_events
"""

ENTRIES: LiteralString = """
SELECT e.tenant_id, w.customer_id, w.currency, e.seq, e.amount, e.balance_after, e.kind, e.event_key,
    e.idempotency_key, e.grant_id::text, e.parts
FROM ledger_entries e JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
ORDER BY e.tenant_id, e.wallet_id, e.seq
"""

WALLETS: LiteralString = """
SELECT tenant_id, customer_id, currency, balance, debt, reserved, used_total, received_total, last_seq FROM wallets
"""

GRANTS: LiteralString = """
SELECT g.tenant_id, w.customer_id, w.currency, g.grant_id::text, g.amount, g.remaining, g.paid_debt
FROM grants_remaining g JOIN wallets w ON w.tenant_id = g.tenant_id AND w.wallet_id = g.wallet_id
"""

PERIODS: LiteralString = "SELECT tenant_id, customer_id, starts_at, ends_at, tokens, events, tiers_reached FROM periods"

PAYMENTS: LiteralString = """
SELECT tenant_id, customer_id, payment_id::text, period_start, kind, tier, generation, amount_minor, currency, state
FROM payments
"""

INPUTS: LiteralString = "SELECT input_hash, reason, times_seen FROM parked_inputs"

HOLDS: LiteralString = """
SELECT h.tenant_id, h.hold_id, h.customer_id, w.currency, h.idempotency_key, h.amount, h.captured, h.state,
    h.opened_at, h.expires_at, h.closed_at
FROM credit_holds h JOIN wallets w ON w.tenant_id = h.tenant_id AND w.wallet_id = h.wallet_id
"""

CAPTURES: LiteralString = """
SELECT tenant_id, event_key, customer_id, hold_id, taken, mark, at FROM credit_captures
"""

QUOTAS: LiteralString = "SELECT tenant_id, quota_id, name FROM quotas"

COUNTS: LiteralString = """
SELECT tenant_id, quota_id, subject, window_start, sum(used) FROM quota_counts GROUP BY 1, 2, 3, 4
"""

WARNINGS: LiteralString = """
SELECT tenant_id, number, subject, window_start, limit_value, percent FROM limit_warnings WHERE kind = 'quota'
"""

ALERTS: LiteralString = """
SELECT tenant_id, kind, subject, times FROM alerts
WHERE kind IN ('quota_threshold', 'budget_threshold', 'cap_threshold')
"""

_HOLDS_OVER: LiteralString = "SELECT count(*) FROM credit_holds WHERE state = 'open' AND expires_at <= %s"

_CHARGED: LiteralString = "SELECT coalesce(sum(events), 0)::bigint FROM periods"

_IN_THE_DARK: LiteralString = """
SELECT count(*) FROM payments WHERE state IN ('submitting', 'unknown', 'processing')
"""


def take_snapshot(connection: Connection) -> None:
    """Let everything that this transaction reads be of one moment; call it before the first statement."""
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def rows(connection: Connection, statement: LiteralString) -> Iterator[tuple[Any, ...]]:
    """Every row that one of these statements finds."""
    yield from connection.execute(statement, binary=True)


def charged(connection: Connection) -> int:
    """How many events are charged, by the counters of the periods: few rows, however many events there are."""
    return int(_one(connection, _CHARGED))


def payments_in_the_dark(connection: Connection) -> int:
    """Payments of which nobody can tell yet what became."""
    return int(_one(connection, _IN_THE_DARK))


def holds_over(connection: Connection, now: datetime) -> int:
    """Open holds whose time is over, and that nobody has closed yet."""
    return int(_one(connection, _HOLDS_OVER, now))


def _one(connection: Connection, statement: LiteralString, *said: datetime) -> Any:
    row = connection.execute(statement, said).fetchone()
    assert row is not None
    return row[0]
