"""What is always true of wallets, their grants and their ledger; `db.audit` asks it."""

#: The balance comes first of what it expects and of what it found.
BALANCE = "wallet balance is the sum of its entries"

#: The checks that name a wallet by its customer and currency; the others of wallets, by its number.
NAMED_BY_CUSTOMER = {BALANCE, "a wallet's balance is what remains of its grants, less its debt"}

WALLET_CHECKS: dict[str, str] = {
    BALANCE: """
        SELECT w.tenant_id, w.customer_id || ' ' || w.currency,
            concat_ws(' ', coalesce(e.total, 0), coalesce(e.number, 0) + coalesce(c.entries - 1, 0),
                coalesce(e.used, 0), coalesce(e.received, 0)),
            concat_ws(' ', w.balance, w.last_seq, w.used_total, w.received_total)
        FROM wallets w LEFT JOIN (
            SELECT tenant_id, wallet_id, sum(amount) AS total, count(*) AS number,
                -coalesce(sum(amount) FILTER (WHERE kind IN ('usage', 'void', 'correction', 'checkpoint')), 0) AS used,
                coalesce(sum(amount) FILTER (WHERE kind NOT IN ('usage', 'void', 'correction', 'checkpoint')), 0)
                    AS received
            FROM ledger_entries GROUP BY tenant_id, wallet_id
        ) e ON e.tenant_id = w.tenant_id AND e.wallet_id = w.wallet_id
        LEFT JOIN checkpoints c ON c.tenant_id = w.tenant_id AND c.wallet_id = w.wallet_id
        WHERE (w.balance, w.last_seq, w.used_total, w.received_total)
            <> (coalesce(e.total, 0), coalesce(e.number, 0) + coalesce(c.entries - 1, 0), coalesce(e.used, 0),
                coalesce(e.received, 0))
    """,
    "a wallet's balance is what remains of its grants, less its debt": """
        SELECT w.tenant_id, w.customer_id || ' ' || w.currency, w.balance::text,
            concat_ws(' ', coalesce(g.remaining, 0), w.debt)
        FROM wallets w LEFT JOIN (
            SELECT v.tenant_id, v.wallet_id, sum((one->>1)::numeric) AS remaining
            FROM wallets v CROSS JOIN LATERAL json_array_elements(v.open_grants::json) AS one GROUP BY 1, 2
        ) g ON g.tenant_id = w.tenant_id AND g.wallet_id = w.wallet_id
        WHERE w.balance <> coalesce(g.remaining, 0) - w.debt
    """,
    "what a grant or a debt is, its entries made it": """
        SELECT coalesce(s.tenant_id, m.tenant_id), concat_ws(' ', coalesce(s.wallet_id, m.wallet_id),
            coalesce(s.name, m.name)), coalesce(m.moved, 0)::text, coalesce(s.stands, 0)::text
        FROM (
            SELECT v.tenant_id, v.wallet_id, one->>0 AS name, (one->>1)::numeric AS stands
            FROM wallets v CROSS JOIN LATERAL json_array_elements(v.open_grants::json) AS one
            UNION ALL SELECT tenant_id, wallet_id, 'debt', debt FROM wallets
        ) s
        FULL JOIN (
            SELECT tenant_id, wallet_id, name, sum(moved) AS moved
            FROM (
                SELECT tenant_id, wallet_id, coalesce(grant_id::text, 'debt') AS name,
                    sum(CASE WHEN grant_id IS NULL THEN -amount ELSE amount END) AS moved
                FROM ledger_entries WHERE parts IS NULL GROUP BY tenant_id, wallet_id, grant_id
                UNION ALL
                SELECT e.tenant_id, e.wallet_id, p.key, p.value::numeric
                FROM ledger_entries e CROSS JOIN LATERAL jsonb_each_text(e.parts) p WHERE e.parts IS NOT NULL
            ) moves GROUP BY tenant_id, wallet_id, name
        ) m ON m.tenant_id = s.tenant_id AND m.wallet_id = s.wallet_id AND m.name = s.name
        WHERE coalesce(s.stands, 0) <> coalesce(m.moved, 0)
    """,
    # As `db.grants` reads and writes them.
    "a wallet keeps its grants that have not ended, as they were given": """
        SELECT coalesce(g.tenant_id, k.tenant_id), concat_ws(' ', coalesce(g.wallet_id, k.wallet_id),
            coalesce(g.grant_id::text, k.grant_id)), coalesce(g.facts, 'none'), coalesce(k.facts, 'none')
        FROM (
            SELECT tenant_id, wallet_id, grant_id, concat_ws(' ', row_number() OVER (
                PARTITION BY tenant_id, wallet_id ORDER BY priority, expires_at NULLS LAST, number
            ), coalesce(valid_from, '-infinity'), coalesce(expires_at, 'infinity'), priority, number) AS facts
            FROM credit_grants WHERE ended_at IS NULL
        ) g
        FULL JOIN (
            SELECT w.tenant_id, w.wallet_id, one->>0 AS grant_id, (one->>1)::numeric AS remaining,
                concat_ws(' ', place, coalesce((one->>2)::timestamptz, '-infinity'),
                    coalesce((one->>3)::timestamptz, 'infinity'), one->>4, one->>5) AS facts
            FROM wallets w CROSS JOIN LATERAL json_array_elements(w.open_grants::json) WITH ORDINALITY AS o(one, place)
        ) k ON k.tenant_id = g.tenant_id AND k.wallet_id = g.wallet_id AND k.grant_id = g.grant_id::text
        WHERE g.facts IS DISTINCT FROM k.facts OR k.remaining <= 0
    """,
    "an entry's parts come to its amount": """
        SELECT e.tenant_id, e.wallet_id || ' #' || e.seq, e.amount::text, p.total::text
        FROM ledger_entries e CROSS JOIN LATERAL (
            SELECT sum(CASE WHEN key = 'debt' THEN -value::numeric ELSE value::numeric END) AS total
            FROM jsonb_each_text(e.parts)
        ) p
        WHERE e.parts IS NOT NULL AND e.amount IS DISTINCT FROM p.total
    """,
    # In a wallet that holds, what is before each entry is after another, or nothing; and what is after each is before
    # another, or is the wallet. Then the hashes of (number, balance) sum to the same before and after. The others,
    # which are few or none, are gone through entry by entry. Before a checkpoint is nothing; what was kept of the
    # entries before it breaks the chain, by as much as was reckoned when the others were archived.
    "each entry's balance follows from the one before": """
        WITH odd AS MATERIALIZED (
            SELECT e.tenant_id, e.wallet_id
            FROM (
                SELECT tenant_id, wallet_id, sum(hash_numeric_extended(balance_after, seq)) AS after,
                    sum(CASE kind WHEN 'checkpoint' THEN hash_numeric_extended(0, 0)
                        ELSE hash_numeric_extended(balance_after - amount, seq - 1) END) AS before
                FROM ledger_entries GROUP BY tenant_id, wallet_id
            ) e
            LEFT JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
            LEFT JOIN checkpoints c ON c.tenant_id = e.tenant_id AND c.wallet_id = e.wallet_id
            WHERE e.after + hash_numeric_extended(0, 0)
                IS DISTINCT FROM e.before + hash_numeric_extended(w.balance, w.last_seq) + coalesce(c.kept_hash, 0)
        )
        SELECT tenant_id, wallet_id || ' #' || seq, concat_ws(' ', place, due), concat_ws(' ', seq, balance_after)
        FROM (
            SELECT e.tenant_id, e.wallet_id, e.seq, e.balance_after, coalesce(c.seq, 0) AS since,
                sum(CASE e.kind WHEN 'checkpoint' THEN c.entries ELSE 1 END) OVER entries AS place,
                sum(e.amount) OVER entries AS due
            FROM ledger_entries e
            LEFT JOIN checkpoints c ON c.tenant_id = e.tenant_id AND c.wallet_id = e.wallet_id
            WHERE EXISTS (SELECT FROM odd) AND (e.tenant_id, e.wallet_id) IN (SELECT tenant_id, wallet_id FROM odd)
            WINDOW entries AS (PARTITION BY e.tenant_id, e.wallet_id ORDER BY e.seq)
        ) e
        WHERE seq >= since AND (place <> seq OR due <> balance_after)
        UNION ALL
        SELECT c.tenant_id, c.wallet_id || ' #1 to #' || c.seq, c.kept_hash::text, coalesce(k.hash, 0)::text
        FROM checkpoints c
        LEFT JOIN LATERAL (
            SELECT sum(hash_numeric_extended(balance_after, seq)::numeric
                - hash_numeric_extended(balance_after - amount, seq - 1)) AS hash
            FROM ledger_entries e
            WHERE e.tenant_id = c.tenant_id AND e.wallet_id = c.wallet_id AND e.seq < c.seq AND e.kind <> 'usage'
        ) k ON true
        WHERE (c.tenant_id, c.wallet_id) IN (SELECT tenant_id, wallet_id FROM odd)
            AND c.kept_hash <> coalesce(k.hash, 0)
    """,
    "a checkpoint stands in the ledger": """
        SELECT coalesce(c.tenant_id, e.tenant_id), concat_ws(' ', coalesce(c.wallet_id, e.wallet_id), '#'
            || coalesce(c.seq, e.seq)), (c.seq IS NOT NULL)::int::text, (e.seq IS NOT NULL)::int::text
        FROM checkpoints c
        FULL JOIN (SELECT tenant_id, wallet_id, seq FROM ledger_entries WHERE kind = 'checkpoint') e
            ON e.tenant_id = c.tenant_id AND e.wallet_id = c.wallet_id AND e.seq = c.seq
        WHERE c.seq IS NULL OR e.seq IS NULL
    """,
    "what a wallet reserves is what its open holds reserve": """
        SELECT w.tenant_id, w.customer_id || ' ' || w.currency, coalesce(h.reserved, 0)::text, w.reserved::text
        FROM wallets w LEFT JOIN (
            SELECT tenant_id, wallet_id, customer_id, sum(amount - captured) AS reserved
            FROM credit_holds WHERE state = 'open' GROUP BY tenant_id, wallet_id, customer_id
        ) h ON h.tenant_id = w.tenant_id AND h.wallet_id = w.wallet_id AND h.customer_id = w.customer_id
        WHERE w.reserved <> coalesce(h.reserved, 0)
    """,
    "what was captured of a hold, usage took": """
        SELECT coalesce(h.tenant_id, c.tenant_id), coalesce(h.hold_id, c.hold_id),
            concat_ws(' ', coalesce(c.taken, 0), coalesce(c.customer_id, h.customer_id)),
            coalesce(concat_ws(' ', h.captured, h.customer_id), 'no hold')
        FROM credit_holds h FULL JOIN (
            SELECT tenant_id, hold_id, customer_id, sum(taken) AS taken
            FROM credit_captures WHERE taken > 0 GROUP BY tenant_id, hold_id, customer_id
        ) c ON c.tenant_id = h.tenant_id AND c.hold_id = h.hold_id
        WHERE h.hold_id IS NULL OR h.captured <> coalesce(c.taken, 0)
            OR h.customer_id <> coalesce(c.customer_id, h.customer_id)
    """,
    # What is archived no longer says which hold it named; and what was voided has cost something before.
    "a capture is of charged usage that names its hold, and costs as much": """
        SELECT c.tenant_id, c.event_key, concat_ws(' ', c.hold_id, c.customer_id, 'at least', c.taken),
            coalesce(concat_ws(' ', coalesce(u.hold_id, 'no hold'), u.customer_id, u.status, u.cost), 'no event')
        FROM credit_captures c LEFT JOIN usage_events u ON u.tenant_id = c.tenant_id AND u.key = c.event_key
        WHERE u.key IS NULL OR u.charged_at IS NULL OR u.cost < c.taken OR u.customer_id <> c.customer_id
            OR (c.mark IS NULL AND u.cost <> c.taken)
            OR (u.archive_id IS NULL AND u.hold_id IS DISTINCT FROM c.hold_id)
    """,
}
