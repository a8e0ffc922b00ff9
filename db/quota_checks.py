"""What is always true of quotas; `db.audit` asks it."""

from db.quotas import AMOUNT, SUBJECT, WINDOW

QUOTA_CHECKS: dict[str, str] = {
    # A new rating changes no counter. What is archived has lost its context, and its counters stand as they are.
    "a quota's counters are those of its events": f"""
        SELECT coalesce(c.tenant_id, u.tenant_id),
            concat_ws(' ', 'quota', coalesce(c.quota_id, u.quota_id), coalesce(c.subject, u.subject),
                coalesce(c.window_start, u.window_start)),
            coalesce(u.used, 0)::text, coalesce(c.used, 0)::text
        FROM (
            SELECT tenant_id, quota_id, subject, window_start, sum(used) AS used FROM quota_counts
            GROUP BY tenant_id, quota_id, subject, window_start
        ) c
        FULL JOIN (
            SELECT q.tenant_id, q.quota_id, {SUBJECT} AS subject, {WINDOW} AS window_start,
                sum({AMOUNT})::numeric AS used
            FROM usage_events u
            CROSS JOIN LATERAL unnest(u.quota_ids) AS counted(quota_id)
            JOIN quotas q ON q.tenant_id = u.tenant_id AND q.quota_id = counted.quota_id
            WHERE u.quota_ids IS NOT NULL AND u.status = 'charged' AND u.archive_id IS NULL
            GROUP BY 1, 2, 3, 4
        ) u ON u.tenant_id = c.tenant_id AND u.quota_id = c.quota_id AND u.subject = c.subject
            AND u.window_start = c.window_start
        WHERE coalesce(c.used, 0) <> coalesce(u.used, 0) AND NOT EXISTS (
            SELECT FROM periods p WHERE p.tenant_id = coalesce(c.tenant_id, u.tenant_id)
                AND p.archive_id IS NOT NULL AND p.ends_at > coalesce(c.window_start, u.window_start) - 1
        )
    """,  # noqa: S608 - words of ours, no input
    # A transaction that began before its quota may have ended a little after. Who may have a quota of their own is put
    # in rows, to be found by equality: a tenant may have one for each customer.
    "an event counts in each quota that is for it": """
        SELECT u.tenant_id, u.key, 'quota ' || q.quota_id, coalesce(u.quota_ids::text, 'none')
        FROM usage_events u
        CROSS JOIN LATERAL (VALUES ('tenant', ''), ('customer', ''), ('customer', u.customer_id),
            ('user', u.user_id), ('user', CASE WHEN u.user_id IS NOT NULL THEN '' END),
            ('organization', u.organization_id), ('organization', CASE WHEN u.organization_id IS NOT NULL THEN '' END)
        ) AS used(scope, subject)
        JOIN quotas q ON q.tenant_id = u.tenant_id AND q.scope = used.scope AND q.subject = used.subject
        WHERE u.status = 'charged' AND u.archive_id IS NULL
            AND EXISTS (SELECT FROM quotas o WHERE o.tenant_id = u.tenant_id)
            AND least(u.recorded_at, u.charged_at) > q.created_at + interval '60 s'
            AND (q.ended_at IS NULL OR u.charged_at < q.ended_at)
            AND (q.service_type IS NULL OR q.service_type = u.service_type)
            AND (q.feature IS NULL OR q.feature = u.feature)
            AND (q.measure <> 'cost' OR q.currency = u.currency)
            AND NOT coalesce(q.quota_id = ANY (u.quota_ids), false)
    """,
}
