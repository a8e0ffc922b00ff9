"""What is always true, asked of all rows at once. Each check answers with the rows for which it is not."""

from typing import Any, NamedTuple, cast

import psycopg

from config.settings import settings
from db.audit_role import refuse_writers, take_on
from db.charge_checks import CHARGE_CHECKS
from db.quota_checks import QUOTA_CHECKS
from db.schema import metadata
from db.session import Connection
from db.wallet_checks import WALLET_CHECKS

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
    **WALLET_CHECKS,
    **CHARGE_CHECKS,
    **QUOTA_CHECKS,
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
    # Where no price climbs, no event needs to be looked at. What was rated again stands where it was put by that. The
    # lines of archived periods are in their archives, and nobody climbs on from there.
    "a ladder's quantities are those of its events": """
        SELECT coalesce(q.tenant_id, u.tenant_id),
            concat_ws(' ', coalesce(q.customer_id, u.customer_id), coalesce(q.period_start, u.period_start), 'price',
                coalesce(q.price_id, u.price_id)),
            coalesce(u.quantity, 0)::text, coalesce(q.quantity::text, 'none')
        FROM (
            SELECT q.* FROM period_quantities q LEFT JOIN periods p ON p.tenant_id = q.tenant_id
                AND p.customer_id = q.customer_id AND p.starts_at = q.period_start
            WHERE p.archive_id IS NULL
        ) q FULL JOIN (
            SELECT e.tenant_id, e.customer_id, e.period_start, r.price_id,
                sum((line->>'quantity')::numeric) AS quantity
            FROM usage_events e
            LEFT JOIN (
                SELECT DISTINCT ON (tenant_id, event_key) tenant_id, event_key, detail->'lines' AS lines
                FROM corrections WHERE kind = 'rerate' ORDER BY tenant_id, event_key, correction_id DESC
            ) c ON c.tenant_id = e.tenant_id AND c.event_key = e.key
            LEFT JOIN periods p ON p.tenant_id = e.tenant_id AND p.customer_id = e.customer_id
                AND p.starts_at = e.period_start
            CROSS JOIN LATERAL jsonb_array_elements(coalesce(c.lines, e.items)) AS line
            JOIN prices r ON r.price_id = (line->>'price_id')::bigint
            WHERE e.status = 'charged' AND p.archive_id IS NULL AND r.ladder IS NOT NULL AND r.ladder_span = 'period'
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
            -- What a person voided was owed; what is owed no longer counts only if it was paid, and is kept.
            SELECT t.tenant_id, t.customer_id, t.period_start, count(DISTINCT t.tier) AS tiers,
                max(t.tier) FILTER (WHERE t.succeeded_at IS NULL AND t.void_wished_at IS NULL) AS highest
            FROM payments t
            WHERE t.kind = 'tier' AND t.unowed_at IS NULL AND (t.state <> 'voided' OR t.void_reason IS NOT NULL)
            GROUP BY t.tenant_id, t.customer_id, t.period_start
        ) t ON t.tenant_id = p.tenant_id AND t.customer_id = p.customer_id AND t.period_start = p.starts_at
        WHERE p.tenant_id IS NULL OR p.tiers_reached <> p.owed OR coalesce(t.tiers, 0) < p.owed
            OR coalesce(t.highest, 0) > p.owed
    """,
    "a void or a new rating is in the ledger": """
        SELECT coalesce(c.tenant_id, e.tenant_id),
            concat_ws(' ', coalesce(c.wallet_id, e.wallet_id), '#' || coalesce(c.seq, e.seq)),
            coalesce(concat_ws(' ', -c.cost, c.told), 'no correction'),
            coalesce(concat_ws(' ', e.amount, e.told), 'no entry')
        FROM (
            SELECT tenant_id, wallet_id, seq, sum(cost) AS cost,
                string_agg(DISTINCT concat_ws(' ', customer_id, currency, told_in), ', ') AS told
            FROM corrections WHERE seq IS NOT NULL GROUP BY tenant_id, wallet_id, seq
        ) c
        FULL JOIN (
            SELECT e.tenant_id, e.wallet_id, e.seq, e.amount,
                concat_ws(' ', w.customer_id, w.currency, e.period_start) AS told
            FROM ledger_entries e JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
            WHERE e.kind IN ('void', 'correction')
        ) e ON e.tenant_id = c.tenant_id AND e.wallet_id = c.wallet_id AND e.seq = c.seq
        WHERE c.seq IS NULL OR e.seq IS NULL OR -c.cost <> e.amount OR c.told <> e.told
    """,
    "a voided event costs nothing, and was voided once": """
        SELECT coalesce(u.tenant_id, c.tenant_id), coalesce(u.key, c.event_key),
            coalesce(concat_ws(' ', u.status, -u.cost, -u.tokens, u.period_start), 'no event'),
            concat_ws(' ', coalesce(c.voids, 0), coalesce(c.cost, 0), coalesce(c.tokens, 0), c.counted_in)
        FROM (
            SELECT *, status = 'voided' AND charged_at IS NOT NULL AS is_taken_back FROM usage_events
            WHERE status = 'voided' OR (tenant_id, key) IN (SELECT tenant_id, event_key FROM corrections)
        ) u
        FULL JOIN (
            SELECT tenant_id, event_key, count(*) FILTER (WHERE kind = 'void') AS voids, sum(cost) AS cost,
                sum(tokens) AS tokens, string_agg(DISTINCT counted_in::text, ', ') AS counted_in
            FROM corrections GROUP BY tenant_id, event_key
        ) c ON c.tenant_id = u.tenant_id AND c.event_key = u.key
        WHERE u.key IS NULL OR u.is_taken_back::int <> coalesce(c.voids, 0)
            OR (u.is_taken_back AND (u.cost + c.cost, u.tokens + c.tokens) <> (0, 0))
            OR (NOT u.is_taken_back AND (u.cost + c.cost < 0 OR c.tokens <> 0))
            OR c.counted_in <> u.period_start::text
    """,
    "a new rating says what its event costs, and has burned": """
        SELECT c.tenant_id, c.event_key, (u.cost + c.so_far)::text, concat_ws(' ', l.cost, b.cost)
        FROM (
            SELECT tenant_id, event_key, kind, detail,
                sum(cost) OVER (PARTITION BY tenant_id, event_key ORDER BY correction_id) AS so_far
            FROM corrections
        ) c
        JOIN usage_events u ON u.tenant_id = c.tenant_id AND u.key = c.event_key
        CROSS JOIN LATERAL (
            SELECT coalesce(sum((line->>'cost')::numeric), 0) AS cost FROM jsonb_array_elements(c.detail->'lines') line
        ) l
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(CASE WHEN key = 'debt' THEN value::numeric ELSE -value::numeric END), 0) AS cost
            FROM jsonb_each_text(c.detail->'burned')
        ) b
        WHERE c.kind = 'rerate' AND (u.cost + c.so_far, u.cost + c.so_far) <> (l.cost, b.cost)
    """,
    "what is owed once has one live payment": """
        SELECT tenant_id, concat_ws(' ', customer_id, period_start, kind, tier, reference), '1 at most', count(*)::text
        FROM payments WHERE state NOT IN ('voided', 'refunded') AND unowed_at IS NULL
            AND NOT (kind = 'subscription' AND void_wished_at IS NOT NULL)
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
    "each period begins where the last one ended": """
        SELECT tenant_id, customer_id || ' ' || starts_at, ends_at::text, next_starts_at::text
        FROM (
            SELECT tenant_id, customer_id, starts_at, ends_at,
                lead(starts_at) OVER mine AS next_starts_at, lead(opened_at) OVER mine AS next_opened_at
            FROM periods WINDOW mine AS (PARTITION BY tenant_id, customer_id ORDER BY starts_at)
        ) p
        -- What usage has begun ahead is joined up when it is opened.
        WHERE next_starts_at <> ends_at AND next_opened_at IS NOT NULL
    """,
    "everybody's month turns, and not after their last period": """
        SELECT c.tenant_id, c.customer_id, coalesce(p.ends_at::text, 'a period'),
            CASE WHEN m.tenant_id IS NULL THEN 'never' ELSE m.due_at::text END
        FROM customers c
        LEFT JOIN month_turns m ON m.tenant_id = c.tenant_id AND m.customer_id = c.customer_id
        LEFT JOIN (
            SELECT tenant_id, customer_id, max(ends_at) AS ends_at FROM periods GROUP BY tenant_id, customer_id
        ) p ON p.tenant_id = c.tenant_id AND p.customer_id = c.customer_id
        WHERE m.tenant_id IS NULL OR p.ends_at IS NULL OR m.due_at > p.ends_at
            OR (m.due_at IS NULL AND c.ended_at IS NULL)
    """,
    "a statement's lines lead from its opening balances to its closing ones": """
        SELECT coalesce(b.tenant_id, l.tenant_id), concat_ws(' ', coalesce(b.number, l.number),
            coalesce(b.account, l.account), coalesce(b.currency, l.currency)),
            concat_ws(' ', b.opening, coalesce(l.amount, 0)), coalesce(b.closing::text, 'none')
        FROM statement_balances b FULL JOIN (
            SELECT tenant_id, number, account, currency, sum(amount) AS amount
            FROM statement_lines WHERE account IS NOT NULL GROUP BY tenant_id, number, account, currency
        ) l ON l.tenant_id = b.tenant_id AND l.number = b.number AND l.account = b.account AND l.currency = b.currency
        WHERE b.closing IS DISTINCT FROM b.opening + coalesce(l.amount, 0)
    """,
    "a statement opens as the last one closed": """
        SELECT tenant_id, concat_ws(' ', number, account, currency), last_closing::text, opening::text
        FROM (
            SELECT b.tenant_id, b.number, b.account, b.currency, b.opening,
                lag(b.closing) OVER (PARTITION BY s.tenant_id, s.customer_id, b.account, b.currency
                    ORDER BY s.period_start) AS last_closing
            FROM statement_balances b JOIN statements s ON s.tenant_id = b.tenant_id AND s.number = b.number
        ) b WHERE opening <> last_closing
    """,
    "statements are numbered without gaps, and each closed period has one of its own": """
        SELECT n.tenant_id, 'numbers', n.last_number::text,
            concat_ws(' ', coalesce(s.number, 0), coalesce(s.highest, 0))
        FROM statement_numbers n LEFT JOIN (
            SELECT tenant_id, count(*) AS number, max(number) AS highest FROM statements GROUP BY tenant_id
        ) s ON s.tenant_id = n.tenant_id
        WHERE (n.last_number, n.last_number) <> (coalesce(s.number, 0), coalesce(s.highest, 0))
        UNION ALL
        SELECT coalesce(p.tenant_id, s.tenant_id),
            coalesce(p.customer_id, s.customer_id) || ' ' || coalesce(p.starts_at, s.period_start),
            coalesce(p.statement_number::text, 'none'), coalesce(s.number::text, 'none')
        FROM periods p
        FULL JOIN statements s
            ON s.tenant_id = p.tenant_id AND s.customer_id = p.customer_id AND s.period_start = p.starts_at
        WHERE p.statement_number IS DISTINCT FROM s.number
    """,
    "a statement tells of the tokens and the usage of its period": """
        SELECT s.tenant_id, s.number::text, concat_ws(' ', p.tokens - coalesce(c.tokens, 0), coalesce(u.cost, 0)),
            concat_ws(' ', s.tokens, coalesce(l.cost, 0))
        FROM statements s
        JOIN periods p ON p.tenant_id = s.tenant_id AND p.customer_id = s.customer_id AND p.starts_at = s.period_start
        LEFT JOIN (
            SELECT tenant_id, customer_id, counted_in, sum(tokens)::bigint AS tokens
            FROM corrections WHERE told_in <> counted_in GROUP BY tenant_id, customer_id, counted_in
        ) c ON c.tenant_id = s.tenant_id AND c.customer_id = s.customer_id AND c.counted_in = s.period_start
        LEFT JOIN (
            SELECT tenant_id, customer_id, period_start, sum(cost) AS cost
            FROM usage_events WHERE status IN ('charged', 'voided') GROUP BY tenant_id, customer_id, period_start
        ) u ON u.tenant_id = s.tenant_id AND u.customer_id = s.customer_id AND u.period_start = s.period_start
        LEFT JOIN (
            SELECT tenant_id, number, -sum(amount) AS cost FROM statement_lines WHERE kind = 'usage' GROUP BY 1, 2
        ) l ON l.tenant_id = s.tenant_id AND l.number = s.number
        WHERE (s.tokens, coalesce(l.cost, 0)) <> (p.tokens - coalesce(c.tokens, 0), coalesce(u.cost, 0))
    """,
    "what statements told of a wallet, and what came since, is the wallet": """
        SELECT w.tenant_id, w.customer_id || ' ' || w.currency, t.told::text, w.balance::text
        FROM wallets w
        CROSS JOIN LATERAL (
            SELECT s.number, s.period_start FROM statements s
            WHERE s.tenant_id = w.tenant_id AND s.customer_id = w.customer_id ORDER BY s.period_start DESC LIMIT 1
        ) s
        LEFT JOIN statement_balances b
            ON b.tenant_id = w.tenant_id AND b.number = s.number AND b.account = 'wallet' AND b.currency = w.currency
        CROSS JOIN LATERAL (
            SELECT coalesce(b.closing, 0) + coalesce((
                SELECT sum(e.amount) FROM ledger_entries e
                WHERE e.tenant_id = w.tenant_id AND e.wallet_id = w.wallet_id AND e.kind <> 'usage'
                    AND e.period_start > s.period_start
            ), 0) - coalesce((
                SELECT sum(u.cost) FROM usage_events u
                WHERE u.tenant_id = w.tenant_id AND u.customer_id = w.customer_id AND u.currency = w.currency
                    AND u.status IN ('charged', 'voided') AND u.period_start > s.period_start
            ), 0) AS told
        ) t
        WHERE w.balance <> t.told
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
SELECT u.*, (SELECT count(*) FROM parked_inputs WHERE replayed_at IS NULL) AS parked_inputs,
    (SELECT count(*) FROM ledger_entries) AS entries, (SELECT count(*) FROM payments) AS payments
FROM (
    SELECT count(*) AS events, count(*) FILTER (WHERE status = 'charged') AS charged,
        count(*) FILTER (WHERE status = 'pending') AS pending, count(*) FILTER (WHERE status = 'voided') AS voided,
        count(*) FILTER (WHERE status = 'parked') AS parked_events
    FROM usage_events
) u
"""


#: The audit's own: nothing else runs in its transaction. Few rows come of each check, so workers are always worth it.
_LIMITS = """
SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0; SET LOCAL work_mem = '256MB';
SET LOCAL parallel_tuple_cost = 0; SET LOCAL parallel_setup_cost = 100; SET LOCAL jit = off
"""

#: The data of one tenant under the names of the tables: a name in WITH comes before a table's. Each is put where it
#: is named, so the condition reaches every scan, which a condition around a whole check does not.
_OWN = "{0} AS NOT MATERIALIZED (SELECT * FROM public.{0} WHERE tenant_id = %(tenant_id)s)"
_OF_ONE_TENANT = "WITH " + ", ".join(
    _OWN.format(table.name) for table in metadata.sorted_tables if "tenant_id" in table.columns
)


def take_snapshot(connection: Connection) -> None:
    """One moment for all checks, as long as they take, and nothing written, under a role that could not.

    Raises `AuditRefused` when there is no such role.
    """
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    if settings().audit_database_url is None:
        take_on(connection)
    refuse_writers(connection)
    connection.execute(_LIMITS)


def run(
    connection: Connection, check: str, tenant_id: str | None = None, shown_max: int = SHOWN_MAX
) -> tuple[int, list[Difference]]:
    """How many rows contradict a check, of everybody's or one tenant's, and the first of them."""
    counted = f"""
        SELECT d.*, count(*) OVER () FROM ({CHECKS[check]}) AS d(tenant_id, subject, expected, actual)
        LIMIT {shown_max}
    """  # noqa: S608 - words of ours, no input
    rows = _asked(connection, counted, tenant_id).fetchall()
    shown = [Difference(check, *(str(value) for value in row[:4])) for row in rows]
    return (cast("int", rows[0][4]) if rows else 0), shown


def _asked(connection: Connection, query: str, tenant_id: str | None) -> psycopg.Cursor[tuple[object, ...]]:
    """Planned anew each time: what is quick for a small tenant is slow for a large one."""
    if tenant_id is None:
        return connection.execute(query.encode(), prepare=False)
    said = {"tenant_id": tenant_id}
    return connection.execute(f"{_OF_ONE_TENANT} {query}".encode(), said, prepare=False)


def counts(connection: Connection, tenant_id: str | None = None) -> dict[str, int]:
    """How much there is of what."""
    cursor = _asked(connection, _COUNTS, tenant_id)
    row = cursor.fetchone()
    assert row is not None
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return dict(zip(names, cast("tuple[Any, ...]", row), strict=True))
