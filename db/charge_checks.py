"""What is always true of a charged event: of its lines, and of its entry; `db.audit` asks it."""


def _sums_of_lines(lines: int) -> str:
    """SQL: the cost and the tokens of an event that has so many lines, as an array."""
    each = [f"items->{place}->>" for place in range(lines)]
    cost = " + ".join(f"coalesce(({line}'cost')::numeric, 0)" for line in each)
    tokens = " + ".join(f"CASE {line}'unit' WHEN 'token' THEN ({line}'quantity')::numeric ELSE 0 END" for line in each)
    return f"ARRAY[{cost}, {tokens}]"


CHARGE_CHECKS: dict[str, str] = {
    # Accounts whose events and entries come to the same sum of 64-bit hashes of key and cost agree in each of them; of
    # the others, which are few or none, each event is held against its entries.
    "a charged event's cost is debited once, from its customer's wallet": """
        WITH odd AS MATERIALIZED (
            SELECT coalesce(u.tenant_id, e.tenant_id) AS tenant_id,
                coalesce(u.customer_id, e.customer_id) AS customer_id
            FROM (
                SELECT tenant_id, customer_id, currency,
                    sum(hash_numeric_extended(cost, hashtextextended(key, 0))) AS hash
                FROM usage_events WHERE status IN ('charged', 'voided') AND cost <> 0
                GROUP BY tenant_id, customer_id, currency
            ) u
            FULL JOIN (
                SELECT w.tenant_id, w.customer_id, w.currency, sum(e.hash) AS hash
                FROM (
                    SELECT tenant_id, wallet_id,
                        sum(hash_numeric_extended(-amount, hashtextextended(event_key, 0))) AS hash
                    FROM ledger_entries WHERE kind = 'usage' GROUP BY tenant_id, wallet_id
                    UNION ALL SELECT tenant_id, wallet_id, usage_hash FROM checkpoints
                ) e
                JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
                GROUP BY w.tenant_id, w.customer_id, w.currency
            ) e ON e.tenant_id = u.tenant_id AND e.customer_id = u.customer_id AND e.currency = u.currency
            WHERE u.hash IS DISTINCT FROM e.hash
        )
        SELECT coalesce(u.tenant_id, e.tenant_id), coalesce(u.key, e.event_key),
            coalesce(concat_ws(' ', 1, u.cost, u.customer_id, u.currency), 'no event'),
            concat_ws(' ', e.number, e.debited, e.customer_id, e.currency)
        FROM (
            SELECT tenant_id, key, cost, customer_id, currency
            FROM usage_events WHERE status IN ('charged', 'voided') AND cost <> 0 AND archive_id IS NULL
                AND EXISTS (SELECT FROM odd) AND (tenant_id, customer_id) IN (SELECT tenant_id, customer_id FROM odd)
        ) u
        FULL JOIN (
            SELECT e.tenant_id, e.event_key, count(*) AS number, -sum(e.amount) AS debited,
                min(w.customer_id) AS customer_id, min(w.currency) AS currency
            FROM ledger_entries e JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
            WHERE e.kind = 'usage'
                AND EXISTS (SELECT FROM odd)
                AND (w.tenant_id, w.customer_id) IN (SELECT tenant_id, customer_id FROM odd)
            GROUP BY e.tenant_id, e.event_key
        ) e ON e.tenant_id = u.tenant_id AND e.event_key = u.key
        WHERE (u.key IS NULL) OR (e.event_key IS NULL) OR e.number <> 1 OR e.debited <> u.cost
            OR (e.customer_id, e.currency) IS DISTINCT FROM (u.customer_id, u.currency)
        UNION ALL
        SELECT coalesce(u.tenant_id, c.tenant_id), concat_ws(' ', coalesce(u.customer_id, c.customer_id),
            coalesce(u.currency, c.currency), 'archived'), concat_ws(' ', coalesce(u.number, 0), coalesce(u.hash, 0)),
            concat_ws(' ', coalesce(c.entries, 0), coalesce(c.usage_hash, 0))
        FROM (
            SELECT tenant_id, customer_id, currency, count(*) AS number,
                sum(hash_numeric_extended(cost, hashtextextended(key, 0))) AS hash
            FROM usage_events WHERE archive_id IS NOT NULL AND cost <> 0
                AND EXISTS (SELECT FROM odd) AND (tenant_id, customer_id) IN (SELECT tenant_id, customer_id FROM odd)
            GROUP BY tenant_id, customer_id, currency
        ) u
        FULL JOIN (
            SELECT c.tenant_id, w.customer_id, w.currency, c.entries, c.usage_hash
            FROM checkpoints c JOIN wallets w ON w.tenant_id = c.tenant_id AND w.wallet_id = c.wallet_id
            WHERE (w.tenant_id, w.customer_id) IN (SELECT tenant_id, customer_id FROM odd)
        ) c ON c.tenant_id = u.tenant_id AND c.customer_id = u.customer_id AND c.currency = u.currency
        WHERE (u.number, u.hash) IS DISTINCT FROM (c.entries, c.usage_hash)
    """,
    # One by one for the usual few lines: taking an array apart costs more than the sums.
    "an event's cost and tokens are those of its lines": f"""
        SELECT tenant_id, key, concat_ws(' ', sums[1], sums[2]), concat_ws(' ', cost, tokens)
        FROM (
            SELECT tenant_id, key, cost, tokens, CASE jsonb_array_length(items)
                WHEN 1 THEN {_sums_of_lines(1)} WHEN 2 THEN {_sums_of_lines(2)} WHEN 3 THEN {_sums_of_lines(3)}
                ELSE (
                    SELECT ARRAY[coalesce(sum((line->>'cost')::numeric), 0),
                        coalesce(sum((line->>'quantity')::numeric) FILTER (WHERE line->>'unit' = 'token'), 0)]
                    FROM jsonb_array_elements(items) AS line
                ) END AS sums
            FROM usage_events WHERE status = 'charged' AND archive_id IS NULL
        ) u
        WHERE ARRAY[cost, tokens] <> sums
    """,  # noqa: S608 - words of ours, no input
    "an archive holds what its events say": """
        SELECT coalesce(a.tenant_id, u.tenant_id), coalesce(a.archive_id, u.archive_id)::text,
            coalesce(concat_ws(' ', a.events, a.tokens, a.cost), 'no archive'),
            concat_ws(' ', coalesce(u.number, 0), coalesce(u.tokens, 0), coalesce(u.cost, 0))
        FROM archives a
        FULL JOIN (
            SELECT tenant_id, archive_id, count(*) AS number, sum(tokens)::bigint AS tokens, sum(cost) AS cost
            FROM usage_events WHERE archive_id IS NOT NULL GROUP BY tenant_id, archive_id
        ) u ON u.tenant_id = a.tenant_id AND u.archive_id = a.archive_id
        WHERE a.archive_id IS NULL OR (a.finished_at IS NOT NULL AND (a.events, a.tokens, a.cost)
            <> (coalesce(u.number, 0), coalesce(u.tokens, 0), coalesce(u.cost, 0)))
    """,
    # Few wait, and an index leads to them. That nothing was debited for them, the check of entries finds.
    "what waits is counted nowhere": """
        SELECT u.tenant_id, u.key, 'in no period and no quota',
            concat_ws(' ', u.period_start, u.charged_at, u.quota_ids::text,
                CASE WHEN u.status = 'parked' THEN nullif(u.cost, 0) END)
        FROM usage_events u
        WHERE u.status IN ('parked', 'pending') AND (u.period_start IS NOT NULL OR u.charged_at IS NOT NULL
            OR u.quota_ids IS NOT NULL OR (u.status = 'parked' AND u.cost <> 0))
    """,
}
