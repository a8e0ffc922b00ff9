"""The tables of metering, rating, the ledger and collecting."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

REFUSE_CHANGE = """
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% refused: rows of % are never changed or removed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'write a correcting entry instead';
END $$
"""

BUMP_PRICE_BOOK = """
CREATE OR REPLACE FUNCTION bump_price_book() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE price_book SET revision = revision + 1;
    RETURN NULL;
END $$
"""

TOUCH_ACCOUNT = """
CREATE OR REPLACE FUNCTION touch_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE wallets w SET account_revision = w.account_revision + 1
    FROM (SELECT DISTINCT tenant_id, customer_id FROM changed) c
    WHERE w.tenant_id = c.tenant_id AND w.customer_id = c.customer_id;
    RETURN NULL;
END $$
"""

TOUCH_ACCOUNT_OF_PERIOD = """
CREATE OR REPLACE FUNCTION touch_account_of_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE wallets SET account_revision = account_revision + 1
    WHERE tenant_id = NEW.tenant_id AND customer_id = NEW.customer_id;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    op.execute(REFUSE_CHANGE)
    op.execute(BUMP_PRICE_BOOK)
    op.execute(TOUCH_ACCOUNT)
    op.execute(TOUCH_ACCOUNT_OF_PERIOD)
    op.create_table(
        "envelope_attempts",
        sa.Column("envelope_hash", sa.LargeBinary(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("envelope_hash", name=op.f("envelope_attempts_pkey")),
        comment="Redelivered envelopes that were begun and not yet finished: how often they may have killed a worker.",
    )
    op.create_table(
        "installation",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("installation_id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("is_only", name=op.f("installation_only_one_check")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("installation_pkey")),
        comment="Which database this is: part of every payment id, so that no other database's intents are taken.",
    )
    op.create_table(
        "ledger_entries",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("wallet_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("balance_after", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("contra", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("event_key", sa.Text(), nullable=True),
        sa.Column("payment_id", sa.Uuid(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind <> 'usage' OR (amount <= 0 AND event_key IS NOT NULL)", name=op.f("ledger_entries_usage_check")
        ),
        sa.CheckConstraint(
            "kind IN ('adjustment', 'breakage', 'grant', 'purchase', 'refund', 'reversal', 'subscription', 'usage')",
            name=op.f("ledger_entries_kind_check"),
        ),
        sa.CheckConstraint("seq > 0", name=op.f("ledger_entries_seq_check")),
        sa.PrimaryKeyConstraint("tenant_id", "wallet_id", "seq", name=op.f("ledger_entries_pkey")),
        comment="One movement between a wallet and a named contra account. Never changed, never removed.",
    )
    op.create_index(
        "ledger_entries_idempotency_key",
        "ledger_entries",
        ["tenant_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "parked_inputs",
        sa.Column("input_hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the bytes"),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("times_seen", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("times_seen > 0", name=op.f("parked_inputs_times_seen_check")),
        sa.PrimaryKeyConstraint("input_hash", name=op.f("parked_inputs_pkey")),
        comment="What is not a well-formed event of a known customer: the bytes, the reason, how often.",
    )
    op.create_index(
        "parked_inputs_waiting",
        "parked_inputs",
        ["first_seen_at"],
        unique=False,
        postgresql_where=sa.text("replayed_at IS NULL"),
    )
    op.create_table(
        "price_book",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("is_only", name=op.f("price_book_only_one_check")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("price_book_pkey")),
        comment="Moves with every change of prices; who keeps prices in memory compares it in each transaction.",
    )
    op.create_table(
        "prices",
        sa.Column("price_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False, comment="a tenant, or '' for everybody"),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("unit_price", sa.Numeric(precision=38, scale=18), nullable=False),
        sa.Column("per", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("ladder", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("ladder_span", sa.Text(), nullable=False),
        sa.Column("is_provider_default", sa.Boolean(), nullable=False),
        sa.Column("is_ended", sa.Boolean(), nullable=False),
        sa.Column("effective_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("ladder_span IN ('event', 'period')", name=op.f("prices_ladder_span_check")),
        sa.CheckConstraint("unit_price >= 0 AND per > 0 AND revision >= 0", name=op.f("prices_positive_check")),
        sa.PrimaryKeyConstraint("price_id", name=op.f("prices_pkey")),
        sa.UniqueConstraint(
            "scope", "category", "provider", "model", "unit", "effective_from", "revision", name="prices_product_key"
        ),
        comment="The price book: only ever added to; a mistake is corrected by a higher revision.",
    )
    op.create_table(
        "tenants",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("tenant_id <> ''", name=op.f("tenants_tenant_id_check")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("tenants_pkey")),
        comment="Who runs applications and bills customers.",
    )
    op.create_table(
        "usage_events",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("charged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_late", sa.Boolean(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("items", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint_version", sa.SmallInteger(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("organization_id", sa.Text(), nullable=True),
        sa.Column("client_id", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("feature", sa.Text(), nullable=True),
        sa.Column("service_type", sa.Text(), nullable=True),
        sa.Column("operation", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("hold_id", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("park_reason", sa.Text(), nullable=True),
        sa.Column("park_detail", sa.Text(), nullable=True),
        sa.CheckConstraint("(status = 'parked') = (park_reason IS NOT NULL)", name=op.f("usage_events_parked_check")),
        sa.CheckConstraint(
            "status <> 'charged' OR (period_start IS NOT NULL AND charged_at IS NOT NULL)",
            name=op.f("usage_events_charged_check"),
        ),
        sa.CheckConstraint(
            "status IN ('charged', 'parked', 'pending', 'voided')", name=op.f("usage_events_status_check")
        ),
        sa.CheckConstraint("cost <= 0 OR currency IS NOT NULL", name=op.f("usage_events_currency_check")),
        sa.CheckConstraint("cost >= 0 AND tokens >= 0", name=op.f("usage_events_not_negative_check")),
        sa.PrimaryKeyConstraint("tenant_id", "key", name=op.f("usage_events_pkey")),
        comment="One usage event; the first payload owns the key, for ever.",
    )
    op.create_index(
        "usage_events_waiting",
        "usage_events",
        ["tenant_id", "recorded_at", "key"],
        unique=False,
        postgresql_where=sa.text("status IN ('parked', 'pending')"),
    )
    op.create_table(
        "plans",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("payment_currency", sa.Text(), nullable=False),
        sa.Column("fixed_fee_minor", sa.BigInteger(), nullable=False),
        sa.Column("included_tokens", sa.BigInteger(), nullable=False),
        sa.Column("tier_size", sa.BigInteger(), nullable=True),
        sa.Column("tier_fee_minor", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "fixed_fee_minor >= 0 AND tier_fee_minor >= 0 AND included_tokens >= 0",
            name=op.f("plans_not_negative_check"),
        ),
        sa.CheckConstraint("tier_size > 0", name=op.f("plans_tier_size_check")),
        sa.CheckConstraint("tier_size IS NULL OR tier_fee_minor > 0", name=op.f("plans_tier_fee_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("plans_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "plan_id", "version", name=op.f("plans_pkey")),
        comment="What a customer agreed to pay; a version never changes.",
    )
    op.create_table(
        "customers",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("plan_version", sa.Integer(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("stripe_customer_id", sa.Text(), nullable=True),
        sa.Column("default_payment_method_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "plan_id", "plan_version"],
            ["plans.tenant_id", "plans.plan_id", "plans.version"],
            name=op.f("customers_plans_fkey"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("customers_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", name=op.f("customers_pkey")),
        comment="Who is billed.",
    )
    op.create_table(
        "payments",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stripe_payment_intent_id", sa.Text(), nullable=True),
        sa.Column("stripe_latest_charge_id", sa.Text(), nullable=True),
        sa.Column("attempts_made", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_decline_code", sa.Text(), nullable=True),
        sa.Column("last_decline_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("succeeded_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(kind = 'tier') = (tier > 0) AND tier >= 0 AND generation >= 0", name=op.f("payments_tier_check")
        ),
        sa.CheckConstraint(
            "(state = 'succeeded') <= (succeeded_at IS NOT NULL)", name=op.f("payments_succeeded_check")
        ),
        sa.CheckConstraint("kind IN ('subscription', 'tier', 'top_up')", name=op.f("payments_kind_check")),
        sa.CheckConstraint(
            "state IN ('awaiting_approval', 'disputed', 'due', 'needs_authentication', 'needs_payment_method', 'partially_refunded', 'processing', 'refunded', 'retry_scheduled', 'submitting', 'succeeded', 'uncollectible', 'unknown', 'voided')",
            name=op.f("payments_state_check"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('due', 'retry_scheduled', 'submitting', 'unknown', 'processing') OR due_at IS NOT NULL",
            name=op.f("payments_due_check"),
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("payments_amount_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("payments_customers_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "payment_id", name=op.f("payments_pkey")),
        sa.UniqueConstraint(
            "tenant_id", "customer_id", "period_start", "kind", "tier", "generation", name="payments_natural_key"
        ),
        comment="Money to collect.",
    )
    op.create_index(
        "payments_due", "payments", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index(
        "payments_intent",
        "payments",
        ["tenant_id", "stripe_payment_intent_id"],
        unique=True,
        postgresql_where=sa.text("stripe_payment_intent_id IS NOT NULL"),
    )
    op.create_table(
        "periods",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("plan_version", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("events", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("tiers_reached", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        postgresql.ExcludeConstraint(
            (sa.column("tenant_id"), "="),
            (sa.text("(customer_id || '')"), "="),
            (sa.text("tstzrange(starts_at, ends_at)"), "&&"),
            using="gist",
            name="periods_never_overlap",
        ),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("periods_span_check")),
        sa.CheckConstraint(
            "tokens >= 0 AND events >= 0 AND tiers_reached >= 0", name=op.f("periods_not_negative_check")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("periods_customers_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "plan_id", "plan_version"],
            ["plans.tenant_id", "plans.plan_id", "plans.version"],
            name=op.f("periods_plans_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", "starts_at", name=op.f("periods_pkey")),
        comment="A customer's month. Cost is read from the ledger, which keeps currencies apart.",
        postgresql_with={"fillfactor": 60},
    )
    op.create_table(
        "wallets",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("wallet_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("balance", sa.Numeric(precision=38, scale=12), server_default=sa.text("0"), nullable=False),
        sa.Column("reserved", sa.Numeric(precision=38, scale=12), server_default=sa.text("0"), nullable=False),
        sa.Column("used_total", sa.Numeric(precision=38, scale=12), server_default=sa.text("0"), nullable=False),
        sa.Column("received_total", sa.Numeric(precision=38, scale=12), server_default=sa.text("0"), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "account_revision",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="moves when plan, zone, wallets or periods of the customer change; who keeps them compares it",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("balance = received_total - used_total", name=op.f("wallets_balance_check")),
        sa.CheckConstraint("last_seq >= 0", name=op.f("wallets_last_seq_check")),
        sa.CheckConstraint("reserved >= 0", name=op.f("wallets_reserved_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("wallets_customers_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "wallet_id", name=op.f("wallets_pkey")),
        sa.UniqueConstraint(
            "tenant_id", "customer_id", "currency", name=op.f("wallets_tenant_id_customer_id_currency_key")
        ),
        comment="A customer's stored value in one currency; a negative balance is debt. Its row is the customer's lock.",
        postgresql_with={"fillfactor": 60},
    )
    op.create_table(
        "payment_attempts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("charge_before", sa.Text(), nullable=True),
        sa.Column("charge_id", sa.Text(), nullable=True),
        sa.Column("decline", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("decline_class", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('abandoned', 'declined', 'processing', 'submitting', 'succeeded')",
            name=op.f("payment_attempts_state_check"),
        ),
        sa.CheckConstraint("attempt > 0", name=op.f("payment_attempts_attempt_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "payment_id"],
            ["payments.tenant_id", "payments.payment_id"],
            name=op.f("payment_attempts_payments_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "payment_id", "attempt", name=op.f("payment_attempts_pkey")),
        comment="One try to collect a payment: its exact parameters and key, written before the call.",
    )
    op.create_index(
        "payment_attempts_open",
        "payment_attempts",
        ["tenant_id", "payment_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('processing', 'submitting')"),
    )
    op.create_table(
        "period_quantities",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("price_id", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Numeric(precision=42, scale=12), nullable=False),
        sa.CheckConstraint("quantity >= 0", name=op.f("period_quantities_not_negative_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id", "period_start"],
            ["periods.tenant_id", "periods.customer_id", "periods.starts_at"],
            name=op.f("period_quantities_periods_fkey"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "customer_id", "period_start", "price_id", name=op.f("period_quantities_pkey")
        ),
        comment="How far a customer has climbed a ladder that adds up over the period; each price has a climb of its own.",
    )
    op.execute(
        "CREATE TRIGGER tenants_lasting_row BEFORE DELETE OR UPDATE OF tenant_id ON tenants FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER tenants_lasting_all BEFORE TRUNCATE ON tenants FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER customers_lasting_row BEFORE DELETE OR UPDATE OF tenant_id, customer_id ON customers FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER customers_lasting_all BEFORE TRUNCATE ON customers FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER wallets_lasting_row BEFORE DELETE OR UPDATE OF tenant_id, wallet_id, customer_id, currency ON wallets FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER wallets_lasting_all BEFORE TRUNCATE ON wallets FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER plans_immutable_row BEFORE UPDATE OR DELETE ON plans FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER plans_immutable_all BEFORE TRUNCATE ON plans FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER ledger_entries_immutable_row BEFORE UPDATE OR DELETE ON ledger_entries FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER ledger_entries_immutable_all BEFORE TRUNCATE ON ledger_entries FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER prices_immutable_row BEFORE UPDATE OR DELETE ON prices FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER prices_immutable_all BEFORE TRUNCATE ON prices FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER prices_bump_book AFTER INSERT ON prices FOR EACH STATEMENT EXECUTE FUNCTION bump_price_book()"
    )
    op.execute(
        "CREATE TRIGGER wallets_touch_account_insert AFTER INSERT ON wallets REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_account()"
    )
    op.execute(
        "CREATE TRIGGER customers_touch_account_update AFTER UPDATE ON customers REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_account()"
    )
    op.execute(
        "CREATE TRIGGER periods_touch_account_insert AFTER INSERT ON periods REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION touch_account()"
    )
    op.execute(
        "CREATE TRIGGER periods_touch_account_update AFTER UPDATE OF ends_at, closed_at, plan_id, plan_version ON periods FOR EACH ROW EXECUTE FUNCTION touch_account_of_period()"
    )
    op.execute("INSERT INTO installation DEFAULT VALUES")
    op.execute("INSERT INTO price_book DEFAULT VALUES")
