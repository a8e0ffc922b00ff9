"""What is always true, asked of all rows at once. Each check answers with the rows for which it is not."""

from typing import Any, NamedTuple, cast

from db.session import Connection

#: Differences shown of one check; the rest is counted.
SHOWN_MAX = 20


class Difference(NamedTuple):
    """One row that contradicts another."""

    check: str
    tenant_id: str
    subject: str
    expected: str
    actual: str


CHECKS: dict[str, str] = {
    "wallet balance is the sum of its entries": """
        SELECT w.tenant_id, w.customer_id || ' ' || w.currency,
            concat_ws(' ', coalesce(e.total, 0), coalesce(e.number, 0), coalesce(e.used, 0), coalesce(e.received, 0)),
            concat_ws(' ', w.balance, w.last_seq, w.used_total, w.received_total)
        FROM wallets w LEFT JOIN (
            SELECT tenant_id, wallet_id, sum(amount) AS total, count(*) AS number,
                -coalesce(sum(amount) FILTER (WHERE kind = 'usage'), 0) AS used,
                coalesce(sum(amount) FILTER (WHERE kind <> 'usage'), 0) AS received
            FROM ledger_entries GROUP BY tenant_id, wallet_id
        ) e ON e.tenant_id = w.tenant_id AND e.wallet_id = w.wallet_id
        WHERE (w.balance, w.last_seq, w.used_total, w.received_total)
            <> (coalesce(e.total, 0), coalesce(e.number, 0), coalesce(e.used, 0), coalesce(e.received, 0))
    """,
    "each entry's balance follows from the one before": """
        SELECT tenant_id, wallet_id || ' #' || seq, concat_ws(' ', place, due), concat_ws(' ', seq, balance_after)
        FROM (
            SELECT tenant_id, wallet_id, seq, balance_after, row_number() OVER entries AS place,
                sum(amount) OVER entries AS due
            FROM ledger_entries WINDOW entries AS (PARTITION BY tenant_id, wallet_id ORDER BY seq)
        ) e
        WHERE place <> seq OR due <> balance_after
    """,
    "a charged event's cost is debited once": """
        SELECT coalesce(u.tenant_id, e.tenant_id), coalesce(u.key, e.event_key), coalesce(u.cost::text, 'no event'),
            concat_ws(' ', e.number, e.debited)
        FROM (SELECT tenant_id, key, cost FROM usage_events WHERE status = 'charged' AND cost <> 0) u
        FULL JOIN (
            SELECT tenant_id, event_key, count(*) AS number, -sum(amount) AS debited
            FROM ledger_entries WHERE kind = 'usage' GROUP BY tenant_id, event_key
        ) e ON e.tenant_id = u.tenant_id AND e.event_key = u.key
        WHERE u.key IS NULL OR e.event_key IS NULL OR e.number <> 1 OR e.debited <> u.cost
    """,
    "an event's cost is the sum of its lines": """
        SELECT u.tenant_id, u.key, coalesce(l.total, 0)::text, u.cost::text
        FROM usage_events u CROSS JOIN LATERAL (
            SELECT sum((line->>'cost')::numeric) AS total FROM jsonb_array_elements(u.items) AS line
        ) l
        WHERE u.status = 'charged' AND u.cost <> coalesce(l.total, 0)
    """,
    "a period's tokens are those of its events": """
        SELECT coalesce(p.tenant_id, u.tenant_id),
            coalesce(p.customer_id, u.customer_id) || ' ' || coalesce(p.starts_at, u.period_start),
            concat_ws(' ', coalesce(u.tokens, 0), coalesce(u.number, 0)), concat_ws(' ', p.tokens, p.events)
        FROM periods p FULL JOIN (
            SELECT tenant_id, customer_id, period_start, sum(tokens)::bigint AS tokens, count(*) AS number
            FROM usage_events WHERE status = 'charged' GROUP BY tenant_id, customer_id, period_start
        ) u ON u.tenant_id = p.tenant_id AND u.customer_id = p.customer_id AND u.period_start = p.starts_at
        WHERE p.tenant_id IS NULL OR (p.tokens, p.events) <> (coalesce(u.tokens, 0), coalesce(u.number, 0))
    """,
    "the tiers that were reached are owed, and each is a live payment": """
        SELECT p.tenant_id, p.customer_id || ' ' || p.starts_at,
            CASE WHEN l.tier_size IS NULL THEN 0
                 ELSE greatest(0, ceil((p.tokens - l.included_tokens)::numeric / l.tier_size)) END::text,
            concat_ws(' ', p.tiers_reached, coalesce(t.number, 0))
        FROM periods p
        JOIN plans l ON l.tenant_id = p.tenant_id AND l.plan_id = p.plan_id AND l.version = p.plan_version
        LEFT JOIN (
            SELECT tenant_id, customer_id, period_start, count(*) AS number
            FROM payments WHERE kind = 'tier' AND state <> 'voided' GROUP BY tenant_id, customer_id, period_start
        ) t ON t.tenant_id = p.tenant_id AND t.customer_id = p.customer_id AND t.period_start = p.starts_at
        WHERE p.tiers_reached <> coalesce(t.number, 0)
            OR p.tiers_reached <> CASE WHEN l.tier_size IS NULL THEN 0
                ELSE greatest(0, ceil((p.tokens - l.included_tokens)::numeric / l.tier_size)) END
    """,
    "a payment that succeeded did so in one attempt": """
        SELECT p.tenant_id, p.payment_id::text, CASE WHEN p.state = 'succeeded' THEN '1' ELSE '0' END,
            coalesce(a.number, 0)::text
        FROM payments p LEFT JOIN (
            SELECT tenant_id, payment_id, count(*) FILTER (WHERE state = 'succeeded') AS number
            FROM payment_attempts GROUP BY tenant_id, payment_id
        ) a ON a.tenant_id = p.tenant_id AND a.payment_id = p.payment_id
        WHERE (p.state IN ('succeeded', 'partially_refunded', 'refunded', 'disputed')) <> (coalesce(a.number, 0) = 1)
            OR coalesce(a.number, 0) > 1
    """,
}

_COUNTS = """
SELECT
    (SELECT count(*) FROM usage_events) AS events,
    (SELECT count(*) FROM usage_events WHERE status = 'charged') AS charged,
    (SELECT count(*) FROM usage_events WHERE status = 'pending') AS pending,
    (SELECT count(*) FROM usage_events WHERE status = 'voided') AS voided,
    (SELECT count(*) FROM usage_events WHERE status = 'parked') AS parked_events,
    (SELECT count(*) FROM parked_inputs WHERE replayed_at IS NULL) AS parked_inputs,
    (SELECT count(*) FROM ledger_entries) AS entries,
    (SELECT count(*) FROM payments) AS payments
"""


def take_snapshot(connection: Connection) -> None:
    """One moment for all checks, as long as they take, and nothing written."""
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.execute("SET LOCAL transaction_timeout = 0")


def run(connection: Connection, check: str) -> tuple[int, list[Difference]]:
    """How many rows contradict a check, and the first of them."""
    rows = connection.execute(CHECKS[check].encode()).fetchall()
    shown = [Difference(check, *(str(value) for value in row)) for row in rows[:SHOWN_MAX]]
    return len(rows), shown


def counts(connection: Connection) -> dict[str, int]:
    """How much there is of what."""
    cursor = connection.execute(_COUNTS)
    row = cursor.fetchone()
    assert row is not None
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return dict(zip(names, cast("tuple[Any, ...]", row), strict=True))
