"""Everything that is written down about one payment, for a person who asks why."""

from typing import Any, cast
from uuid import UUID

from psycopg import sql
from psycopg.rows import dict_row

from db.session import Connection

Rows = list[dict[str, Any]]

_OF_PAYMENT = {
    "attempts": "SELECT * FROM payment_attempts WHERE tenant_id = %s AND payment_id = %s ORDER BY attempt",
    "log": "SELECT * FROM payment_log WHERE tenant_id = %s AND payment_id = %s ORDER BY entry_id",
    "refunds": "SELECT * FROM refunds WHERE tenant_id = %s AND payment_id = %s ORDER BY created_at",
    "disputes": "SELECT * FROM disputes WHERE tenant_id = %s AND payment_id = %s ORDER BY opened_at",
    "entries": """
        SELECT wallet_id, seq, amount, balance_after, kind, recorded_at FROM ledger_entries
        WHERE tenant_id = %s AND payment_id = %s ORDER BY seq
    """,
}

_WEBHOOKS = """
SELECT event_id, type, created_at, received_at, source, tries, outcome, worked_at FROM webhook_events
WHERE payment_id = %s ORDER BY created_at, event_id
"""

_CUSTOMER = """
SELECT c.customer_id, c.plan_id, c.plan_version, c.time_zone, c.stripe_customer_id, c.default_payment_method_id,
    coalesce((SELECT array_agg(h.reason ORDER BY h.reason) FROM customer_holds h
        WHERE h.tenant_id = c.tenant_id AND h.customer_id = c.customer_id), '{}') AS holds
FROM customers c WHERE c.tenant_id = %s AND c.customer_id = %s
"""

_USAGE = """
SELECT tokens, events, tiers_reached, starts_at, ends_at FROM periods
WHERE tenant_id = %s AND customer_id = %s AND starts_at = %s
"""


def payment(connection: Connection, payment_id: UUID) -> dict[str, Any] | None:
    """The row of a payment, or None."""
    found = _read(connection, "SELECT * FROM payments WHERE payment_id = %s", (payment_id,))
    return found[0] if found else None


def of_payment(connection: Connection, tenant_id: str, payment_id: UUID) -> dict[str, Rows]:
    """Attempts, log, refunds, disputes and ledger entries of a payment, each in its order."""
    return {name: _read(connection, statement, (tenant_id, payment_id)) for name, statement in _OF_PAYMENT.items()}


def webhooks(connection: Connection, payment_id: UUID) -> Rows:
    """What Stripe told us about a payment."""
    return _read(connection, _WEBHOOKS, (payment_id,))


def customer(connection: Connection, tenant_id: str, customer_id: str) -> Rows:
    """The customer, with what holds their payments back."""
    return _read(connection, _CUSTOMER, (tenant_id, customer_id))


def period(connection: Connection, tenant_id: str, customer_id: str, starts_at: object) -> Rows:
    """The period that a payment belongs to, if it has a row."""
    return _read(connection, _USAGE, (tenant_id, customer_id, starts_at))


def _read(connection: Connection, statement: str, values: tuple[object, ...]) -> Rows:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.SQL(cast("Any", statement)), values).fetchall()
