"""What happened to a tenant's customers, in whole: every period, payment, grant and statement, and sums by month.

Read beside a reckoning that knows nothing of these tables; nothing here is asked while customers wait.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString, NamedTuple, cast
from uuid import UUID

from db.session import Connection


class PeriodFact(NamedTuple):
    """A period, with what its events come to."""

    customer_id: str
    starts_at: datetime
    ends_at: datetime
    plan_id: str
    tokens: int
    events: int
    tiers_reached: int
    closed_at: datetime | None
    statement_number: int | None
    late: int
    cost: Decimal


class PaymentFact(NamedTuple):
    """A payment as it stands."""

    payment_id: UUID
    customer_id: str
    kind: str
    period_start: datetime
    tier: int
    amount_minor: int
    refunded_minor: int
    state: str
    credit_given: Decimal
    is_paid: bool


class GrantFact(NamedTuple):
    """A grant as it stands."""

    customer_id: str
    source: str
    period_start: datetime | None
    amount: Decimal
    remaining: Decimal
    breaks_at: datetime | None


class WalletFact(NamedTuple):
    """What a customer's wallets hold, and what of their grants was broken."""

    customer_id: str
    balance: Decimal
    broken: Decimal


class StatementFact(NamedTuple):
    """An account of a statement, and how often it tells the fee of its own period."""

    customer_id: str
    number: int
    period_start: datetime
    period_end: datetime
    tokens: int
    events: int
    tiers: int
    account: str
    currency: str
    opening: Decimal
    closing: Decimal
    moved: Decimal


class FeeLine(NamedTuple):
    """How often, and how high, statements told the fees of a period."""

    customer_id: str
    period_start: datetime
    lines: int
    amount: Decimal


class MonthSum(NamedTuple):
    """What happened in one month, by the calendars of the customers; money in minor units."""

    month: datetime
    customers: int
    events: int
    late: int
    tokens: int
    fees: int
    fees_minor: int
    fees_collected: int
    fees_collected_minor: int
    tiers: int
    tiers_minor: int
    collected_minor: int
    declined: int
    credits_given: Decimal
    broken: Decimal
    statements: int
    owed_minor: int


_PERIODS: LiteralString = """
SELECT p.customer_id, p.starts_at, p.ends_at, p.plan_id, p.tokens, p.events, p.tiers_reached, p.closed_at,
    p.statement_number, coalesce(u.late, 0), coalesce(u.cost, 0)
FROM periods p LEFT JOIN (
    SELECT customer_id, period_start, count(*) FILTER (WHERE is_late) AS late, sum(cost) AS cost
    FROM usage_events WHERE tenant_id = %(tenant_id)s AND status = 'charged' GROUP BY 1, 2
) u ON u.customer_id = p.customer_id AND u.period_start = p.starts_at
WHERE p.tenant_id = %(tenant_id)s ORDER BY p.customer_id, p.starts_at
"""

_PAYMENTS: LiteralString = """
SELECT payment_id, customer_id, kind, period_start, tier, amount_minor, refunded_minor, state, credit_given,
    succeeded_at IS NOT NULL
FROM payments WHERE tenant_id = %(tenant_id)s ORDER BY customer_id, period_start, kind, tier, generation
"""

_GRANTS: LiteralString = """
SELECT w.customer_id, g.source, g.period_start, g.amount, g.remaining, g.breaks_at
FROM grants_remaining g JOIN wallets w ON w.tenant_id = g.tenant_id AND w.wallet_id = g.wallet_id
WHERE g.tenant_id = %(tenant_id)s ORDER BY w.customer_id, g.number
"""

_WALLETS: LiteralString = """
SELECT w.customer_id, sum(w.balance), coalesce(-sum(e.broken), 0)
FROM wallets w CROSS JOIN LATERAL (
    SELECT sum(amount) AS broken FROM ledger_entries
    WHERE tenant_id = w.tenant_id AND wallet_id = w.wallet_id AND kind = 'breakage'
) e
WHERE w.tenant_id = %(tenant_id)s GROUP BY 1 ORDER BY 1
"""

_STATEMENTS: LiteralString = """
SELECT s.customer_id, s.number, s.period_start, s.period_end, s.tokens, s.events, s.tiers, b.account, b.currency,
    b.opening, b.closing, coalesce(l.moved, 0)
FROM statements s
JOIN statement_balances b ON b.tenant_id = s.tenant_id AND b.number = s.number
LEFT JOIN (
    SELECT number, account, currency, sum(amount) AS moved FROM statement_lines
    WHERE tenant_id = %(tenant_id)s GROUP BY 1, 2, 3
) l ON l.number = s.number AND l.account = b.account AND l.currency = b.currency
WHERE s.tenant_id = %(tenant_id)s ORDER BY s.customer_id, s.period_start, b.account, b.currency
"""

_FEE_LINES: LiteralString = """
SELECT p.customer_id, p.period_start, count(*), sum(l.amount)
FROM statement_lines l JOIN payments p ON p.tenant_id = l.tenant_id AND p.payment_id = l.payment_id
WHERE l.tenant_id = %(tenant_id)s AND l.kind = 'fee' GROUP BY 1, 2
"""

#: A fee that falls due in Auckland is the next month's there, while it is still the last day of this one elsewhere:
#: what is about a period goes by that period's zone, the rest by the customer's.
_MONTHS: LiteralString = """
WITH customers_ AS (
    SELECT customer_id, time_zone, date_trunc('month', created_at AT TIME ZONE time_zone) AS month
    FROM customers WHERE tenant_id = %(tenant_id)s
), payments_ AS (
    SELECT p.kind, p.amount_minor, p.succeeded_at IS NOT NULL AS is_paid,
        date_trunc('month', p.created_at AT TIME ZONE z.zone) AS due,
        date_trunc('month', p.succeeded_at AT TIME ZONE z.zone) AS paid,
        date_trunc('month', (
            SELECT min(l.at) FROM payment_log l
            WHERE l.tenant_id = p.tenant_id AND l.payment_id = p.payment_id AND l.to_state = 'voided'
        ) AT TIME ZONE z.zone) AS voided
    FROM payments p
    JOIN customers_ c ON c.customer_id = p.customer_id
    LEFT JOIN periods o ON o.tenant_id = p.tenant_id AND o.customer_id = p.customer_id AND o.starts_at = p.period_start
    CROSS JOIN LATERAL (SELECT coalesce(o.time_zone, c.time_zone) AS zone) z
    WHERE p.tenant_id = %(tenant_id)s
), used AS (
    SELECT date_trunc('month', u.recorded_at AT TIME ZONE c.time_zone) AS month, count(*) AS events,
        count(*) FILTER (WHERE u.is_late) AS late, sum(u.tokens)::bigint AS tokens
    FROM usage_events u JOIN customers_ c ON c.customer_id = u.customer_id
    WHERE u.tenant_id = %(tenant_id)s AND u.status = 'charged' GROUP BY 1
), moved AS (
    SELECT date_trunc('month', e.recorded_at AT TIME ZONE c.time_zone) AS month,
        sum(e.amount) FILTER (WHERE e.kind = 'grant' AND e.contra = 'grants:free') AS given,
        -sum(e.amount) FILTER (WHERE e.kind = 'breakage') AS broken
    FROM ledger_entries e
    JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
    JOIN customers_ c ON c.customer_id = w.customer_id
    WHERE e.tenant_id = %(tenant_id)s AND e.kind IN ('grant', 'breakage') GROUP BY 1
), declined AS (
    SELECT date_trunc('month', a.finished_at AT TIME ZONE c.time_zone) AS month, count(*) AS number
    FROM payment_attempts a
    JOIN payments p ON p.tenant_id = a.tenant_id AND p.payment_id = a.payment_id
    JOIN customers_ c ON c.customer_id = p.customer_id
    WHERE a.tenant_id = %(tenant_id)s AND a.state = 'declined' GROUP BY 1
), stated AS (
    SELECT date_trunc('month', issued_at AT TIME ZONE time_zone) AS month, count(*) AS number
    FROM statements WHERE tenant_id = %(tenant_id)s GROUP BY 1
), months AS (
    SELECT generate_series(
        (SELECT min(month) FROM customers_),
        greatest((SELECT max(due) FROM payments_), (SELECT max(month) FROM used), (SELECT min(month) FROM customers_)),
        interval '1 month'
    ) AS month
)
SELECT m.month, (SELECT count(*) FROM customers_ c WHERE c.month <= m.month),
    coalesce(u.events, 0), coalesce(u.late, 0), coalesce(u.tokens, 0),
    count(*) FILTER (WHERE p.kind = 'subscription' AND p.due = m.month),
    coalesce(sum(p.amount_minor) FILTER (WHERE p.kind = 'subscription' AND p.due = m.month), 0)::bigint,
    count(*) FILTER (WHERE p.kind = 'subscription' AND p.paid = m.month),
    coalesce(sum(p.amount_minor) FILTER (WHERE p.kind = 'subscription' AND p.paid = m.month), 0)::bigint,
    count(*) FILTER (WHERE p.kind = 'tier' AND p.due = m.month),
    coalesce(sum(p.amount_minor) FILTER (WHERE p.kind = 'tier' AND p.due = m.month), 0)::bigint,
    coalesce(sum(p.amount_minor) FILTER (WHERE p.paid = m.month), 0)::bigint,
    coalesce(d.number, 0), coalesce(w.given, 0), coalesce(w.broken, 0), coalesce(s.number, 0),
    coalesce(sum(p.amount_minor) FILTER (
        WHERE p.kind <> 'top_up' AND p.due <= m.month AND coalesce(p.paid, 'infinity') > m.month
            AND coalesce(p.voided, 'infinity') > m.month
    ), 0)::bigint
FROM months m
CROSS JOIN payments_ p
LEFT JOIN used u ON u.month = m.month
LEFT JOIN moved w ON w.month = m.month
LEFT JOIN declined d ON d.month = m.month
LEFT JOIN stated s ON s.month = m.month
GROUP BY m.month, u.events, u.late, u.tokens, w.given, w.broken, d.number, s.number
ORDER BY m.month
"""


def periods(connection: Connection, tenant_id: str) -> list[PeriodFact]:
    """Every period, by customer, in order."""
    return _all(connection, PeriodFact._make, _PERIODS, tenant_id)


def payments(connection: Connection, tenant_id: str) -> list[PaymentFact]:
    """Every payment, by customer."""
    return _all(connection, PaymentFact._make, _PAYMENTS, tenant_id)


def grants(connection: Connection, tenant_id: str) -> list[GrantFact]:
    """Every grant, by customer, the older before the younger."""
    return _all(connection, GrantFact._make, _GRANTS, tenant_id)


def wallets(connection: Connection, tenant_id: str) -> list[WalletFact]:
    """What every customer's wallets hold, in all."""
    return _all(connection, WalletFact._make, _WALLETS, tenant_id)


def statements(connection: Connection, tenant_id: str) -> list[StatementFact]:
    """Every account of every statement, by customer, in the order of periods."""
    return _all(connection, StatementFact._make, _STATEMENTS, tenant_id)


def fee_lines(connection: Connection, tenant_id: str) -> list[FeeLine]:
    """What statements tell of the fees of each period."""
    return _all(connection, FeeLine._make, _FEE_LINES, tenant_id)


def months(connection: Connection, tenant_id: str) -> list[MonthSum]:
    """What happened, month by month."""
    return _all(connection, MonthSum._make, _MONTHS, tenant_id)


def _all(connection: Connection, make: Any, statement: LiteralString, tenant_id: str) -> list[Any]:
    return [make(cast("Any", row)) for row in connection.execute(statement, {"tenant_id": tenant_id})]


#: What `db.collecting.claim` and `db.refunds.claim` would find; they lease it as well.
_IS_PAYMENT_DUE: LiteralString = """
SELECT EXISTS (
    SELECT FROM payments p
    WHERE p.due_at <= %(now)s AND (p.leased_until IS NULL OR p.leased_until <= %(now)s)
        AND (
            p.state IN ('submitting', 'unknown', 'processing') OR p.void_wished_at IS NOT NULL
            OR NOT EXISTS (
                SELECT FROM customer_holds h
                WHERE h.tenant_id = p.tenant_id AND h.customer_id = p.customer_id
                    AND (p.attempts_made = 0 OR h.reason IN ('disputed', 'by_hand'))
            )
        )
)
"""

_IS_REFUND_DUE: LiteralString = "SELECT EXISTS (SELECT FROM refunds WHERE due_at <= %(now)s)"


def is_payment_due(connection: Connection, now: datetime) -> bool:
    """Whether a sweep would hand out a payment now."""
    return bool(_one(connection, _IS_PAYMENT_DUE, now))


def is_refund_due(connection: Connection, now: datetime) -> bool:
    """Whether a sweep would hand out a refund now."""
    return bool(_one(connection, _IS_REFUND_DUE, now))


def _one(connection: Connection, statement: LiteralString, now: datetime) -> Any:
    row = connection.execute(statement, {"now": now}).fetchone()
    assert row is not None
    return row[0]
