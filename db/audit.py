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
    "a charged event's cost is debited once, from its customer's wallet": """
        SELECT coalesce(u.tenant_id, e.tenant_id), coalesce(u.key, e.event_key),
            coalesce(concat_ws(' ', 1, u.cost, u.customer_id, u.currency), 'no event'),
            concat_ws(' ', e.number, e.debited, e.customer_id, e.currency)
        FROM (
            SELECT tenant_id, key, cost, customer_id, currency
            FROM usage_events WHERE status = 'charged' AND cost <> 0
        ) u
        FULL JOIN (
            SELECT e.tenant_id, e.event_key, count(*) AS number, -sum(e.amount) AS debited,
                min(w.customer_id) AS customer_id, min(w.currency) AS currency
            FROM ledger_entries e JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
            WHERE e.kind = 'usage' GROUP BY e.tenant_id, e.event_key
        ) e ON e.tenant_id = u.tenant_id AND e.event_key = u.key
        WHERE (u.key IS NULL) OR (e.event_key IS NULL) OR e.number <> 1 OR e.debited <> u.cost
            OR (e.customer_id, e.currency) IS DISTINCT FROM (u.customer_id, u.currency)
    """,
    "an event's cost and tokens are those of its lines": """
        SELECT u.tenant_id, u.key, concat_ws(' ', coalesce(l.cost, 0), coalesce(l.tokens, 0)),
            concat_ws(' ', u.cost, u.tokens)
        FROM usage_events u CROSS JOIN LATERAL (
            SELECT sum((line->>'cost')::numeric) AS cost,
                sum((line->>'quantity')::numeric) FILTER (WHERE line->>'unit' = 'token') AS tokens
            FROM jsonb_array_elements(u.items) AS line
        ) l
        WHERE u.status = 'charged' AND (u.cost, u.tokens) <> (coalesce(l.cost, 0), coalesce(l.tokens, 0))
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
    # Where no price climbs, no event needs to be looked at.
    "a ladder's quantities are those of its events": """
        SELECT coalesce(q.tenant_id, u.tenant_id),
            concat_ws(' ', coalesce(q.customer_id, u.customer_id), coalesce(q.period_start, u.period_start), 'price',
                coalesce(q.price_id, u.price_id)),
            coalesce(u.quantity, 0)::text, coalesce(q.quantity::text, 'none')
        FROM period_quantities q FULL JOIN (
            SELECT e.tenant_id, e.customer_id, e.period_start, r.price_id,
                sum((line->>'quantity')::numeric) AS quantity
            FROM usage_events e CROSS JOIN LATERAL jsonb_array_elements(e.items) AS line
            JOIN prices r ON r.price_id = (line->>'price_id')::bigint
            WHERE e.status = 'charged' AND r.ladder IS NOT NULL AND r.ladder_span = 'period'
                AND (line->>'quantity')::numeric > 0
                AND EXISTS (SELECT FROM prices WHERE ladder IS NOT NULL AND ladder_span = 'period')
            GROUP BY 1, 2, 3, 4
        ) u ON u.tenant_id = q.tenant_id AND u.customer_id = q.customer_id AND u.period_start = q.period_start
            AND u.price_id = q.price_id
        WHERE q.quantity IS DISTINCT FROM u.quantity
    """,
    "the tiers that were reached are owed, and each has a payment": """
        SELECT coalesce(p.tenant_id, t.tenant_id),
            coalesce(p.customer_id, t.customer_id) || ' ' || coalesce(p.starts_at, t.period_start),
            coalesce(p.owed::text, 'no period'),
            concat_ws(' ', p.tiers_reached, coalesce(t.tiers, 0), coalesce(t.highest, 0))
        FROM (
            SELECT p.tenant_id, p.customer_id, p.starts_at, p.tiers_reached, CASE WHEN l.tier_size IS NULL THEN 0
                ELSE greatest(0, ceil((p.tokens - l.included_tokens)::numeric / l.tier_size)) END AS owed
            FROM periods p
            JOIN plans l ON l.tenant_id = p.tenant_id AND l.plan_id = p.plan_id AND l.version = p.plan_version
        ) p
        FULL JOIN (
            SELECT tenant_id, customer_id, period_start, count(DISTINCT tier) AS tiers,
                max(tier) AS highest
            FROM payments WHERE kind = 'tier' AND (state <> 'voided' OR void_reason IS NOT NULL)
            GROUP BY tenant_id, customer_id, period_start
        ) t ON t.tenant_id = p.tenant_id AND t.customer_id = p.customer_id AND t.period_start = p.starts_at
        WHERE p.tenant_id IS NULL
            OR (p.tiers_reached, coalesce(t.tiers, 0), coalesce(t.highest, 0)) <> (p.owed, p.owed, p.owed)
    """,
    "what is owed once has one live payment": """
        SELECT tenant_id, concat_ws(' ', customer_id, period_start, kind, tier, reference), '1 at most', count(*)::text
        FROM payments WHERE state NOT IN ('voided', 'refunded')
        GROUP BY tenant_id, customer_id, period_start, kind, tier, reference HAVING count(*) > 1
    """,
    "a tier payment asks for its plan's fee": """
        SELECT t.tenant_id, t.payment_id::text, concat_ws(' ', l.tier_fee_minor, l.payment_currency),
            concat_ws(' ', t.amount_minor, t.currency)
        FROM payments t
        JOIN periods p ON p.tenant_id = t.tenant_id AND p.customer_id = t.customer_id AND p.starts_at = t.period_start
        JOIN plans l ON l.tenant_id = p.tenant_id AND l.plan_id = p.plan_id AND l.version = p.plan_version
        WHERE t.kind = 'tier' AND (t.amount_minor, t.currency) <> (l.tier_fee_minor, l.payment_currency)
    """,
    "only a payment that succeeded has an attempt that did, and one at most": """
        SELECT p.tenant_id, p.payment_id::text, p.is_paid::int::text, coalesce(a.number, 0)::text
        FROM (
            SELECT tenant_id, payment_id,
                state IN ('succeeded', 'partially_refunded', 'refunded', 'disputed') AS is_paid
            FROM payments
        ) p LEFT JOIN (
            SELECT tenant_id, payment_id, count(*) FILTER (WHERE state = 'succeeded') AS number
            FROM payment_attempts GROUP BY tenant_id, payment_id
        ) a ON a.tenant_id = p.tenant_id AND a.payment_id = p.payment_id
        WHERE coalesce(a.number, 0) > p.is_paid::int
    """,
    "a top-up's value is what the wallet got of it": """
        SELECT p.tenant_id, p.payment_id::text, p.credit_given::text, coalesce(e.amount, 0)::text
        FROM payments p LEFT JOIN (
            SELECT tenant_id, payment_id, sum(amount) AS amount FROM ledger_entries
            WHERE payment_id IS NOT NULL GROUP BY tenant_id, payment_id
        ) e ON e.tenant_id = p.tenant_id AND e.payment_id = p.payment_id
        WHERE p.credit_given <> coalesce(e.amount, 0)
    """,
    "a payment's attempts are those it counts": """
        SELECT p.tenant_id, p.payment_id::text, p.attempts_made::text,
            concat_ws(' ', coalesce(a.number, 0), coalesce(a.highest, 0))
        FROM payments p LEFT JOIN (
            SELECT tenant_id, payment_id, count(*) AS number, max(attempt) AS highest
            FROM payment_attempts GROUP BY tenant_id, payment_id
        ) a ON a.tenant_id = p.tenant_id AND a.payment_id = p.payment_id
        WHERE (coalesce(a.number, 0), coalesce(a.highest, 0)) <> (p.attempts_made, p.attempts_made)
    """,
    # No foreign key holds these two: it would cost the usage path a write to the customer's row for each event.
    "events belong to a customer, and entries to a wallet": """
        SELECT u.tenant_id, u.key, 'customer ' || u.customer_id, 'none' FROM usage_events u
        WHERE NOT EXISTS (SELECT FROM customers c WHERE c.tenant_id = u.tenant_id AND c.customer_id = u.customer_id)
        UNION ALL
        SELECT e.tenant_id, e.wallet_id || ' #' || e.seq, 'wallet ' || e.wallet_id, 'none' FROM ledger_entries e
        WHERE NOT EXISTS (SELECT FROM wallets w WHERE w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id)
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
