"""The SQL face: functions and views for applications that speak SQL, and the inbox into which they write usage.

They are described in `docs/sql.md`. Views read under the rights of whoever asks, so row-level security holds in them.
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Table, event
from sqlalchemy.dialects.postgresql import JSONB

from db.schema.base import Moment, Text, belongs_to, ddl, metadata, tenant_key

#: Of an event as text: four times what its metadata may have.
INBOX_EVENT_BYTES_MAX = 64 * 1024

usage_inbox = Table(
    "usage_inbox",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("inbox_id", BigInteger, Identity(always=True), nullable=False),
    Column("customer_id", Text, nullable=False),
    Column("event", JSONB, nullable=False, comment="as it would travel in an envelope"),
    Column("written_at", Moment, nullable=False),
    tenant_key("inbox_id"),
    belongs_to("tenants"),
    Index("usage_inbox_in_order", "inbox_id"),
    # Whoever may write rows of a tenant must not write usage of another's into them.
    CheckConstraint(
        "event->>'tenant_id' IS NOT DISTINCT FROM tenant_id AND event->>'customer_id' IS NOT DISTINCT FROM customer_id",
        name="event",
    ),
    CheckConstraint(f"octet_length(event::text) <= {INBOX_EVENT_BYTES_MAX}", name="size"),
    comment="Usage that was written by SQL and is not yet recorded: a tick takes it, and removes what it has taken.",
)

ASKED_TENANT = """
CREATE OR REPLACE FUNCTION asked_tenant() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    asked text := nullif(current_setting('centavo.tenant_id', true), '');
    known text[];
BEGIN
    IF asked IS NULL THEN
        SELECT array_agg(tenant_id) INTO known FROM (SELECT tenant_id FROM tenants LIMIT 2) t;
        IF cardinality(known) = 1 THEN
            RETURN known[1];
        END IF;
        RAISE EXCEPTION 'it is not clear whose rows are meant: no tenant is set'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'say it before, in this session or transaction: SET centavo.tenant_id = ''…''';
    END IF;
    RETURN asked;
END $$
"""

BILLING_TIER = """
CREATE OR REPLACE FUNCTION calculate_billing_tier(
    tokens_used bigint, included_tokens bigint DEFAULT 8000000, tier_size bigint DEFAULT 8000000
) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN $1 IS NOT NULL AND $2 IS NOT NULL
        THEN greatest(0, div($1::numeric - $2 + $3 - 1, $3))::bigint END
$$
"""

TIER_LABEL = """
CREATE OR REPLACE FUNCTION token_tier_label(tier bigint, included_tokens bigint, tier_size bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT string_agg(
        CASE WHEN bound = 0 THEN '0'
            WHEN bound % 1000000 = 0 THEN (bound / 1000000)::bigint || 'M'
            WHEN bound % 1000 = 0 THEN (bound / 1000)::bigint || 'K'
            ELSE bound::text END,
        '-' ORDER BY bound)
    FROM unnest(ARRAY[CASE WHEN $1 > 0 THEN $2 + ($1 - 1)::numeric * $3 ELSE 0 END, $2 + $1::numeric * $3]) AS bound
    WHERE $3 IS NOT NULL
$$
"""

CONSUMPTION = """
CREATE VIEW token_consumption WITH (security_invoker = true) AS
SELECT u.key AS id, u.tenant_id, u.customer_id AS user_id, u.client_id,
    u.tokens + coalesce(corrected.tokens, 0)::bigint AS tokens_used, u.operation AS operation_type, u.metadata,
    u.period_start, u.occurred_at AS created_at, u.recorded_at
FROM usage_events u
LEFT JOIN LATERAL (
    SELECT sum(c.tokens) AS tokens FROM corrections c WHERE c.tenant_id = u.tenant_id AND c.event_key = u.key
) corrected ON true
WHERE u.tenant_id = (SELECT asked_tenant()) AND u.status = 'charged' AND u.period_start IS NOT NULL
"""

BILLING_CHARGES = """
CREATE VIEW token_billing_charges WITH (security_invoker = true) AS
SELECT p.payment_id AS id, p.tenant_id, p.customer_id AS user_id,
    token_tier_label(p.tier, plan.included_tokens, plan.tier_size) AS billing_tier, p.tier AS tier_number,
    p.amount_minor - p.refunded_minor AS amount_charged, p.currency, p.state AS status, p.stripe_payment_intent_id,
    p.period_start, p.created_at, p.succeeded_at
FROM payments p
JOIN periods m ON m.tenant_id = p.tenant_id AND m.customer_id = p.customer_id AND m.starts_at = p.period_start
JOIN plans plan ON plan.tenant_id = m.tenant_id AND plan.plan_id = m.plan_id AND plan.version = m.plan_version
WHERE p.tenant_id = (SELECT asked_tenant()) AND p.kind = 'tier' AND p.state <> 'voided'
"""

USAGE_SUMMARY = """
CREATE VIEW token_usage_summary WITH (security_invoker = true) AS
SELECT m.tenant_id, m.customer_id AS user_id, to_char(m.starts_at AT TIME ZONE m.time_zone, 'YYYY-MM') AS period,
    m.starts_at AS period_start, m.ends_at AS period_end, m.tokens AS total_tokens,
    token_tier_label(
        calculate_billing_tier(m.tokens, plan.included_tokens, plan.tier_size), plan.included_tokens, plan.tier_size
    ) AS current_tier,
    calculate_billing_tier(m.tokens, plan.included_tokens, plan.tier_size) AS current_tier_number,
    charged.fee AS fixed_fee_charged, charged.tiers AS tier_charges_count, charged.tier_total AS tier_charges_total,
    charged.fee + charged.tier_total AS total_charged, plan.payment_currency AS currency
FROM periods m
JOIN plans plan ON plan.tenant_id = m.tenant_id AND plan.plan_id = m.plan_id AND plan.version = m.plan_version
CROSS JOIN LATERAL (
    SELECT coalesce(sum(p.amount_minor - p.refunded_minor) FILTER (WHERE p.kind = 'subscription'), 0)::bigint AS fee,
        coalesce(sum(p.amount_minor - p.refunded_minor) FILTER (WHERE p.kind = 'tier'), 0)::bigint AS tier_total,
        count(*) FILTER (WHERE p.kind = 'tier') AS tiers
    FROM payments p
    WHERE p.tenant_id = m.tenant_id AND p.customer_id = m.customer_id AND p.period_start = m.starts_at
        AND p.state <> 'voided'
) charged
WHERE m.tenant_id = (SELECT asked_tenant())
"""

USER_SUMMARY = """
CREATE OR REPLACE FUNCTION get_user_token_summary(user_id text, period text DEFAULT NULL)
RETURNS SETOF token_usage_summary LANGUAGE sql STABLE AS $$
    SELECT s.* FROM token_usage_summary s
    WHERE s.user_id = $1 AND ($2 IS NOT NULL OR (s.period_start <= now() AND s.period_end > now()))
        AND ($2 IS NULL OR s.period = $2)
    ORDER BY s.period_start
$$
"""

RECORD_CONSUMPTION = """
CREATE OR REPLACE FUNCTION record_token_consumption(
    user_id text, tokens_used bigint, operation_type text DEFAULT 'chat', client_id text DEFAULT NULL,
    metadata jsonb DEFAULT NULL, key text DEFAULT NULL, occurred_at timestamptz DEFAULT NULL,
    provider text DEFAULT 'unknown', model text DEFAULT 'unknown', category text DEFAULT 'llm'
) RETURNS text LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    written timestamptz := clock_timestamp();
    said text := coalesce(key, gen_random_uuid()::text);
    event jsonb;
BEGIN
    IF coalesce(user_id, '') = '' OR tokens_used IS NULL OR tokens_used < 0 THEN
        RAISE EXCEPTION 'no usage: user % used % tokens', coalesce(user_id, 'NULL'), coalesce(tokens_used::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'name the customer, and how many tokens were used: 0 or more';
    ELSIF jsonb_typeof(metadata) <> 'object' THEN
        RAISE EXCEPTION 'metadata is a JSON object, not %', jsonb_typeof(metadata)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'such as ''{"agentId": "agent-456"}''';
    END IF;
    event := jsonb_strip_nulls(jsonb_build_object(
        'tenant_id', asked_tenant(), 'customer_id', user_id, 'key', said,
        'occurred_at', to_char(coalesce(occurred_at, written) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'operation', operation_type, 'client_id', client_id,
        'items', jsonb_build_array(jsonb_build_object(
            'category', category, 'provider', provider, 'model', model, 'unit', 'token', 'quantity', tokens_used))));
    IF metadata IS NOT NULL THEN
        event := event || jsonb_build_object('metadata', metadata);
    END IF;
    INSERT INTO usage_inbox (tenant_id, customer_id, event, written_at)
    VALUES (event->>'tenant_id', user_id, event, written);
    RETURN said;
END $$
"""

for _statement in (
    ASKED_TENANT,
    BILLING_TIER,
    TIER_LABEL,
    CONSUMPTION,
    BILLING_CHARGES,
    USAGE_SUMMARY,
    USER_SUMMARY,
    RECORD_CONSUMPTION,
):
    event.listen(metadata, "after_create", ddl(_statement))
