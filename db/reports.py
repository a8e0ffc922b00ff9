"""Reading what has been recorded, summed up."""

from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString, NamedTuple, cast

from db.session import Connection


class CustomerTotals(NamedTuple):
    """What a customer has used, owes and has, in all periods."""

    customer_id: str
    plan_id: str
    events: int
    tokens: int
    cost: Decimal


class WalletStanding(NamedTuple):
    """A wallet."""

    customer_id: str
    currency: str
    balance: Decimal


class PaymentGroup(NamedTuple):
    """Payments of a kind in a state."""

    customer_id: str
    kind: str
    state: str
    number: int
    amount_minor: int


_TOTALS = """
SELECT c.customer_id, c.plan_id, coalesce(u.events, 0), coalesce(u.tokens, 0), coalesce(u.cost, 0)
FROM customers c LEFT JOIN (
    SELECT tenant_id, customer_id, count(*) AS events, sum(tokens)::bigint AS tokens, sum(cost) AS cost
    FROM usage_events WHERE status = 'charged' AND tenant_id = %(tenant_id)s GROUP BY tenant_id, customer_id
) u ON u.tenant_id = c.tenant_id AND u.customer_id = c.customer_id
WHERE c.tenant_id = %(tenant_id)s ORDER BY c.customer_id
"""

_WALLETS = """
SELECT customer_id, currency, balance FROM wallets WHERE tenant_id = %s ORDER BY customer_id, currency
"""

_PAYMENTS = """
SELECT customer_id, kind, state, count(*), sum(amount_minor)::bigint FROM payments
WHERE tenant_id = %s GROUP BY customer_id, kind, state ORDER BY customer_id, kind, state
"""

_COUNTS = """
SELECT count(*), count(*) FILTER (WHERE p.state = 'submitting' OR (p.state = 'due' AND NOT EXISTS (
    SELECT FROM customer_holds h WHERE h.tenant_id = p.tenant_id AND h.customer_id = p.customer_id
)))
FROM payments p
"""

_LAG = "SELECT extract(epoch FROM %s - min(due_at)) FROM payments WHERE due_at <= %s"
_WEBHOOK_LAG = "SELECT extract(epoch FROM %s - min(due_at)) FROM webhook_events WHERE due_at <= %s"
# The first that was written: its number is the smallest, and by number there is an index.
_INBOX_LAG = "SELECT extract(epoch FROM %s - written_at) FROM usage_inbox ORDER BY inbox_id LIMIT 1"

#: What is not a session's own to set. A standby for which no commit waits may be behind when it is promoted; what
#: copies the database once, or reads its changes, is none. A user without `pg_monitor` is not told the states.
_UNSAFE = """
SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'
UNION ALL
SELECT 'synchronous_standby_names' WHERE current_setting('synchronous_standby_names') = '' AND EXISTS (
    SELECT FROM pg_stat_replication r WHERE r.state IS DISTINCT FROM 'backup' AND NOT EXISTS (
        SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'
    )
)
ORDER BY 1
"""


def customer_totals(connection: Connection, tenant_id: str) -> list[CustomerTotals]:
    """Every customer of a tenant with what they used."""
    rows = connection.execute(_TOTALS, {"tenant_id": tenant_id}).fetchall()
    return [CustomerTotals._make(cast("Any", row)) for row in rows]


def wallet_standings(connection: Connection, tenant_id: str) -> list[WalletStanding]:
    """Every wallet of a tenant."""
    return [WalletStanding._make(cast("Any", row)) for row in connection.execute(_WALLETS, (tenant_id,)).fetchall()]


def payment_groups(connection: Connection, tenant_id: str) -> list[PaymentGroup]:
    """A tenant's payments by customer, kind and state."""
    return [PaymentGroup._make(cast("Any", row)) for row in connection.execute(_PAYMENTS, (tenant_id,)).fetchall()]


def events_charged(connection: Connection) -> int:
    """How many events are charged, from the counters of periods: cheap."""
    row = connection.execute("SELECT coalesce(sum(events), 0)::bigint FROM periods").fetchone()
    assert row is not None
    return cast("int", row[0])


def payment_counts(connection: Connection) -> tuple[int, int]:
    """How many payments there are, and how many of them are due now, and not held back, or under way."""
    row = connection.execute(_COUNTS).fetchone()
    assert row is not None
    return cast("tuple[int, int]", tuple(row))


def periods_unopened(connection: Connection, now: datetime) -> int:
    """How many periods have begun of which nobody has decided yet what they owe."""
    row = connection.execute("SELECT count(*) FROM periods WHERE opened_at IS NULL AND starts_at <= %s", (now,))
    return cast("int", cast("Any", row.fetchone())[0])


def payment_lag_seconds(connection: Connection, now: datetime) -> float:
    """How long the oldest payment that is due has been waiting."""
    return _seconds(connection, _LAG, (now, now))


def webhook_lag_seconds(connection: Connection, now: datetime) -> float:
    """How long the oldest event of Stripe's that is due has been waiting to be worked."""
    return _seconds(connection, _WEBHOOK_LAG, (now, now))


def inbox_lag_seconds(connection: Connection, now: datetime) -> float:
    """How long the oldest usage that was written by SQL has been waiting to be recorded."""
    return _seconds(connection, _INBOX_LAG, (now,))


def _seconds(connection: Connection, statement: LiteralString, moments: tuple[datetime, ...]) -> float:
    row = connection.execute(statement, moments).fetchone()
    return max(0.0, float(cast("Any", row[0]))) if row and row[0] is not None else 0.0


def server_version(connection: Connection) -> str:
    """Which Postgres this is."""
    row = connection.execute("SHOW server_version").fetchone()
    assert row is not None
    return str(row[0])


def unsafe_settings(connection: Connection) -> list[str]:
    """Settings of this server by which a commit that was reported may be lost in a crash or a failover."""
    return [str(name) for (name,) in connection.execute(_UNSAFE)]
