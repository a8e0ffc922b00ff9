"""Everything that is written down about one payment, for a person who asks why."""

from typing import Any, cast
from uuid import UUID

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from db import documents
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


_EVENT = """
SELECT e.key, e.customer_id, e.status, e.occurred_at, e.recorded_at, e.charged_at, e.period_start, e.is_late, e.tokens,
    e.cost, e.currency, e.items, e.user_id, e.organization_id, e.client_id, e.session_id, e.message_id, e.feature,
    e.service_type, e.operation, e.reference, e.reason, e.hold_id, e.metadata, e.park_reason, e.park_detail,
    e.voided_at, e.void_reason, e.archive_id IS NOT NULL AS is_archived
FROM usage_events e WHERE e.tenant_id = %s AND e.key = %s
"""

_ENTRY_COLUMNS = """w.currency, l.seq, l.kind, l.amount, l.balance_after, l.contra, l.grant_id, l.parts,
    l.recorded_at"""

_OF_EVENT = {
    # An entry of usage was written when its event was charged; one of a correction is named by it.
    "entries": f"""
        SELECT {_ENTRY_COLUMNS} FROM usage_events e
        JOIN wallets w ON w.tenant_id = e.tenant_id AND w.customer_id = e.customer_id
        JOIN ledger_entries l ON l.tenant_id = w.tenant_id AND l.wallet_id = w.wallet_id AND l.event_key = e.key
            AND l.recorded_at = e.charged_at
        WHERE e.tenant_id = %(tenant_id)s AND e.key = %(key)s
        UNION
        SELECT {_ENTRY_COLUMNS} FROM corrections c
        JOIN wallets w ON w.tenant_id = c.tenant_id AND w.wallet_id = c.wallet_id
        JOIN ledger_entries l ON l.tenant_id = c.tenant_id AND l.wallet_id = c.wallet_id AND l.seq = c.seq
        WHERE c.tenant_id = %(tenant_id)s AND c.event_key = %(key)s
        ORDER BY recorded_at, seq
    """,  # noqa: S608 - column names of ours, no input
    "corrections": """
        SELECT c.kind, c.tokens, c.cost, c.currency, c.reason, c.at FROM corrections c
        WHERE c.tenant_id = %(tenant_id)s AND c.event_key = %(key)s ORDER BY c.correction_id
    """,
}

_PRICES = """
SELECT price_id, scope, category, provider, model, unit, currency, unit_price, per, ladder, ladder_span,
    is_provider_default, effective_from, revision, description
FROM prices WHERE price_id = ANY(%s) ORDER BY price_id
"""

_GRANTS = """
SELECT grant_id, source, reason, priority, amount, valid_from, expires_at, created_at FROM credit_grants
WHERE tenant_id = %s AND grant_id = ANY(%s::uuid[]) ORDER BY created_at, grant_id
"""


def event(connection: Connection, tenant_id: str, key: str) -> dict[str, Any] | None:
    """The row of an event with its lines, or None."""
    found = _read(connection, _EVENT, (tenant_id, key))
    return found[0] if found else None


def of_event(connection: Connection, tenant_id: str, key: str) -> dict[str, Rows]:
    """Ledger entries and corrections of an event, each in its order."""
    return {
        name: _read(connection, statement, {"tenant_id": tenant_id, "key": key})
        for name, statement in _OF_EVENT.items()
    }


def prices(connection: Connection, price_ids: list[int]) -> Rows:
    """Prices as they stand in the book."""
    return _read(connection, _PRICES, (price_ids,))


def grants(connection: Connection, tenant_id: str, grant_ids: list[str]) -> Rows:
    """Grants of a tenant's customers."""
    return _read(connection, _GRANTS, (tenant_id, grant_ids))


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


def _read(connection: Connection, statement: str, values: tuple[object, ...] | dict[str, object]) -> Rows:
    with connection.cursor(row_factory=dict_row) as cursor:
        set_json_loads(documents.read, cursor)
        return cursor.execute(sql.SQL(cast("Any", statement)), values).fetchall()
