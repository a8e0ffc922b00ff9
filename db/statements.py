"""Statements: what a closed period came to, read from what is closed, and written once."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast
from uuid import UUID

from psycopg.types.json import Jsonb

from billing.statements import AccountKind, Balance, Line, LineKind, Statement
from db.session import Connection


class ClosedPeriod(NamedTuple):
    """A closed period with what a statement says of it."""

    tenant_name: str
    starts_at: datetime
    ends_at: datetime
    time_zone: str
    plan_id: str
    plan_version: int
    plan_name: str
    payment_currency: str
    tokens: int
    included_tokens: int
    tiers: int
    events: int


class UsageSum(NamedTuple):
    """What was used of one product in a period; without a currency the plan covers it."""

    category: str
    provider: str
    model: str
    unit: str
    currency: str | None
    quantity: Decimal
    cost: Decimal
    events: int


class EntryLine(NamedTuple):
    """A ledger entry that is no usage, told in a period."""

    currency: str
    seq: int
    kind: str
    amount: Decimal
    reason: str | None
    source: str | None
    event_key: str | None
    payment_id: UUID | None
    occurred_at: datetime


class PaymentFacts(NamedTuple):
    """A payment as it stands, and what statements told of it so far, all in minor units."""

    payment_id: UUID
    kind: str
    tier: int
    period_start: datetime
    currency: str
    charged: int
    voided: int
    collected: int
    refunded: int
    disputed: int
    told: dict[str, str]
    """kind of line: sum of what was told, in whole units"""


class CorrectionLine(NamedTuple):
    """What was done to events of an earlier period; of one event, its key."""

    kind: str
    event_key: str | None
    counted_in: datetime
    tokens: int
    cost: Decimal
    currency: str | None
    reason: str
    events: int


#: A statement may sum a million events; nobody waits for it, and it holds no lock that anybody wants.
_PATIENCE = "SET LOCAL statement_timeout = '120s'; SET LOCAL transaction_timeout = '300s'"

_LOCK = """
SELECT FROM periods
WHERE tenant_id = %s AND customer_id = %s AND starts_at = %s AND closed_at IS NOT NULL AND statement_number IS NULL
FOR NO KEY UPDATE SKIP LOCKED
"""

#: As it was when it was closed: what was voided since is told in a later statement.
_PERIOD = """
SELECT t.name, p.starts_at, p.ends_at, p.time_zone, p.plan_id, p.plan_version, l.name, l.payment_currency,
    p.tokens + c.tokens, l.included_tokens,
    CASE WHEN c.tokens = 0 OR l.tier_size IS NULL THEN p.tiers_reached
        ELSE greatest(0, ceil((p.tokens + c.tokens - l.included_tokens)::numeric / l.tier_size))::int END,
    p.events + c.events
FROM periods p
JOIN tenants t ON t.tenant_id = p.tenant_id
JOIN plans l ON l.tenant_id = p.tenant_id AND l.plan_id = p.plan_id AND l.version = p.plan_version
CROSS JOIN LATERAL (
    SELECT -coalesce(sum(c.tokens), 0)::bigint AS tokens, count(*) FILTER (WHERE c.kind = 'void') AS events
    FROM corrections c
    WHERE c.tenant_id = p.tenant_id AND c.customer_id = p.customer_id AND c.counted_in = p.starts_at
        AND c.told_in <> c.counted_in
) c
WHERE p.tenant_id = %s AND p.customer_id = %s AND p.starts_at = %s
"""

#: Voided events too: what was debited for them was given back by an entry, which is a line of its own.
_USAGE = """
SELECT line->>'category', line->>'provider', line->>'model', line->>'unit',
    CASE WHEN line->>'price_id' IS NOT NULL THEN u.currency END AS currency,
    sum((line->>'quantity')::numeric), sum((line->>'cost')::numeric), count(DISTINCT u.key)
FROM usage_events u CROSS JOIN LATERAL jsonb_array_elements(u.items) AS line
WHERE u.tenant_id = %s AND u.customer_id = %s AND u.period_start = %s AND u.status IN ('charged', 'voided')
GROUP BY 1, 2, 3, 4, 5 ORDER BY 5 NULLS FIRST, 1, 2, 3, 4
"""

_ENTRIES = """
SELECT w.currency, e.seq, e.kind, e.amount, e.reason, g.source, e.event_key, e.payment_id, e.occurred_at
FROM wallets w
JOIN ledger_entries e ON e.tenant_id = w.tenant_id AND e.wallet_id = w.wallet_id
LEFT JOIN credit_grants g ON g.tenant_id = e.tenant_id AND g.grant_id = e.grant_id
WHERE w.tenant_id = %s AND w.customer_id = %s AND e.period_start = %s AND e.kind <> 'usage'
ORDER BY w.currency, e.seq
"""

#: Of a payment's refund, and of a dispute about a top-up, what was charged is owed no longer; whatever was not paid of
#: a top-up is no debt.
_PAYMENTS = """
SELECT p.payment_id, p.kind, p.tier, p.period_start, p.currency,
    CASE WHEN p.kind <> 'top_up' OR p.succeeded_at IS NOT NULL THEN p.amount_minor ELSE 0 END,
    CASE WHEN p.succeeded_at IS NOT NULL THEN
            p.refunded_minor + CASE WHEN p.kind = 'top_up' THEN d.disputed ELSE 0 END
        WHEN p.state = 'voided' AND p.kind <> 'top_up' THEN p.amount_minor ELSE 0 END,
    CASE WHEN p.succeeded_at IS NOT NULL THEN p.amount_minor ELSE 0 END,
    p.refunded_minor, d.disputed,
    coalesce((
        SELECT jsonb_object_agg(kind, amount::text) FROM (
            SELECT CASE WHEN l.kind IN ('fee', 'tier', 'top_up') THEN 'charged' ELSE l.kind END AS kind,
                sum(l.amount) AS amount
            FROM statement_lines l
            WHERE l.tenant_id = p.tenant_id AND l.payment_id = p.payment_id AND l.account = 'due'
            GROUP BY 1
        ) told
    ), '{}')
FROM payments p
CROSS JOIN LATERAL (
    SELECT coalesce(sum(s.amount_minor), 0)::bigint AS disputed FROM disputes s
    WHERE s.tenant_id = p.tenant_id AND s.payment_id = p.payment_id
        AND s.status IN ('needs_response', 'under_review', 'lost')
) d
WHERE p.tenant_id = %s AND p.customer_id = %s AND p.period_start < %s
ORDER BY p.period_start, p.kind, p.tier, p.generation, p.payment_id
"""

#: New ratings by the thousand are one line; each void has its own.
_CORRECTIONS = """
SELECT kind, CASE WHEN count(*) = 1 THEN min(event_key) END, counted_in, sum(tokens)::bigint, sum(cost), currency,
    reason, count(*)
FROM corrections
WHERE tenant_id = %s AND customer_id = %s AND told_in = %s AND counted_in <> told_in AND (cost <> 0 OR tokens <> 0)
GROUP BY kind, counted_in, currency, reason, CASE WHEN kind = 'void' THEN correction_id END
ORDER BY min(correction_id)
"""

#: A wallet that has no statement yet opens with what was moved before entries were told in periods.
_OPENING = """
SELECT 0, 'wallet', w.currency, coalesce((
        SELECT sum(e.amount) FROM ledger_entries e
        WHERE e.tenant_id = w.tenant_id AND e.wallet_id = w.wallet_id AND e.kind <> 'usage' AND e.period_start IS NULL
    ), 0)
FROM wallets w WHERE w.tenant_id = %(tenant_id)s AND w.customer_id = %(customer_id)s
UNION ALL
SELECT 1, b.account, b.currency, b.closing FROM statement_balances b
WHERE b.tenant_id = %(tenant_id)s AND b.number = (
    SELECT s.number FROM statements s
    WHERE s.tenant_id = %(tenant_id)s AND s.customer_id = %(customer_id)s
    ORDER BY s.period_start DESC LIMIT 1
)
ORDER BY 1
"""

_NUMBER = """
INSERT INTO statement_numbers AS n (tenant_id, last_number) VALUES (%s, 1)
ON CONFLICT (tenant_id) DO UPDATE SET last_number = n.last_number + 1
RETURNING last_number
"""

_ADD = """
INSERT INTO statements (tenant_id, number, customer_id, period_start, period_end, issued_at, time_zone, plan_id,
    plan_version, tokens, events, tiers)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

_ADD_BALANCES = """
INSERT INTO statement_balances (tenant_id, number, account, currency, opening, closing)
SELECT %s, %s, b.* FROM unnest(%s::text[], %s::text[], %s::numeric[], %s::numeric[])
    AS b(account, currency, opening, closing)
"""

_ADD_LINES = """
INSERT INTO statement_lines (tenant_id, number, line, kind, account, currency, amount, quantity, unit, events, about,
    reference, payment_id)
SELECT %s, %s, l.*, (l.reference->>'payment_id')::uuid
FROM unnest(%s::int[], %s::text[], %s::text[], %s::text[], %s::numeric[], %s::numeric[], %s::text[], %s::bigint[],
    %s::jsonb[], %s::jsonb[])
    AS l(line, kind, account, currency, amount, quantity, unit, events, about, reference)
"""

_NOTE = """
UPDATE periods SET statement_number = %s WHERE tenant_id = %s AND customer_id = %s AND starts_at = %s
"""

_STATEMENT = """
SELECT s.tenant_id, t.name, s.customer_id, s.number, s.issued_at, s.period_start, s.period_end, s.time_zone, s.plan_id,
    s.plan_version, l.name, s.tokens, l.included_tokens, s.tiers, s.events
FROM statements s
JOIN tenants t ON t.tenant_id = s.tenant_id
JOIN plans l ON l.tenant_id = s.tenant_id AND l.plan_id = s.plan_id AND l.version = s.plan_version
"""

_BALANCES = """
SELECT account, currency, opening, closing FROM statement_balances WHERE tenant_id = %s AND number = %s
ORDER BY account, currency
"""

_LINES = """
SELECT line, kind, amount, account, currency, quantity, unit, events, about, reference FROM statement_lines
WHERE tenant_id = %s AND number = %s ORDER BY line
"""

PeriodKey = tuple[str, str, datetime]
"""tenant, customer, start"""


def lock_period(connection: Connection, period: PeriodKey) -> bool:
    """Lock a closed period that has no statement yet; False when somebody else is at it, or was."""
    connection.execute(_PATIENCE)
    return connection.execute(_LOCK, period).rowcount == 1


def closed_period(connection: Connection, period: PeriodKey) -> ClosedPeriod:
    """What there is to say of a period."""
    row = connection.execute(_PERIOD, period).fetchone()
    assert row is not None
    return ClosedPeriod._make(cast("Any", row))


def usage(connection: Connection, period: PeriodKey) -> list[UsageSum]:
    """What was used in a period, by product and currency; what the plan covers comes first."""
    return [UsageSum._make(cast("Any", row)) for row in connection.execute(_USAGE, period)]


def entries(connection: Connection, period: PeriodKey) -> list[EntryLine]:
    """The ledger entries that are told in a period, but for usage, wallet by wallet."""
    return [EntryLine._make(cast("Any", row)) for row in connection.execute(_ENTRIES, period)]


def payments(connection: Connection, tenant_id: str, customer_id: str, before: datetime) -> list[PaymentFacts]:
    """The customer's payments of periods that began before then, with what was told of each."""
    return [
        PaymentFacts._make(cast("Any", row)) for row in connection.execute(_PAYMENTS, (tenant_id, customer_id, before))
    ]


def corrections(connection: Connection, period: PeriodKey) -> list[CorrectionLine]:
    """What was done, in this period, to events of others."""
    return [CorrectionLine._make(cast("Any", row)) for row in connection.execute(_CORRECTIONS, period)]


def openings(connection: Connection, tenant_id: str, customer_id: str) -> dict[tuple[AccountKind, str], Decimal]:
    """How each account stood in the customer's last statement, by (account, currency)."""
    rows = connection.execute(_OPENING, {"tenant_id": tenant_id, "customer_id": customer_id})
    found = cast("list[tuple[int, str, str, Decimal]]", rows.fetchall())
    return {(AccountKind(account), currency): amount for _, account, currency, amount in found}


def next_number(connection: Connection, tenant_id: str) -> int:
    """The next number of the tenant's statements; whoever else wants one waits for this transaction."""
    row = connection.execute(_NUMBER, (tenant_id,)).fetchone()
    assert row is not None
    return cast("int", row[0])


def add(connection: Connection, statement: Statement) -> None:
    """Write a statement, its balances and lines, and note its number on its period."""
    s = statement
    identity = (s.tenant_id, s.number)
    head = (s.customer_id, s.period_start, s.period_end, s.issued_at, s.time_zone, s.plan_id, s.plan_version)
    connection.execute(_ADD, (*identity, *head, s.tokens, s.events, s.tiers))
    if s.balances:
        balances = [(b.account.value, b.currency, b.opening, b.closing) for b in s.balances]
        connection.execute(_ADD_BALANCES, (*identity, *(list(column) for column in zip(*balances, strict=True))))
    if s.lines:
        lines = [_as_row(line) for line in s.lines]
        connection.execute(_ADD_LINES, (*identity, *(list(column) for column in zip(*lines, strict=True))))
    connection.execute(_NOTE, (s.number, s.tenant_id, s.customer_id, s.period_start))


def _as_row(line: Line) -> tuple[Any, ...]:
    account = line.account.value if line.account else None
    counted = (line.quantity, line.unit, line.events)
    return (
        line.number,
        line.kind.value,
        account,
        line.currency,
        line.amount,
        *counted,
        Jsonb(line.about),
        Jsonb(line.reference),
    )


def find(connection: Connection, tenant_id: str, number: int) -> Statement | None:
    """A statement, or None."""
    row = connection.execute(f"{_STATEMENT} WHERE s.tenant_id = %s AND s.number = %s", (tenant_id, number)).fetchone()
    return _whole(connection, row) if row else None


def of_customer(connection: Connection, tenant_id: str, customer_id: str) -> list[Statement]:
    """The statements of a customer, in order."""
    statement = f"{_STATEMENT} WHERE s.tenant_id = %s AND s.customer_id = %s ORDER BY s.period_start"
    rows = connection.execute(statement, (tenant_id, customer_id)).fetchall()
    return [_whole(connection, row) for row in rows]


def _whole(connection: Connection, row: Any) -> Statement:
    tenant_id, number = row[0], row[3]
    balances = connection.execute(_BALANCES, (tenant_id, number)).fetchall()
    lines = connection.execute(_LINES, (tenant_id, number)).fetchall()
    fields: Any = (*row, tuple(_balance(one) for one in balances), tuple(_line(one) for one in lines))
    return Statement(*fields)


def _balance(row: Sequence[Any]) -> Balance:
    account, *rest = row
    return Balance(AccountKind(account), *rest)


def _line(row: Sequence[Any]) -> Line:
    number, kind, amount, account, *rest = row
    return Line(number, LineKind(kind), amount, AccountKind(account) if account else None, *rest)
