"""Collecting whole: refunds, disputes, webhooks, cards, top-ups, holds and caps; payments move only forward."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Integer, Text
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PAYMENT_RANK = """
CREATE OR REPLACE FUNCTION payment_rank(state text) RETURNS integer LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE state WHEN 'submitting' THEN 1 WHEN 'unknown' THEN 2 WHEN 'processing' THEN 2 WHEN 'awaiting_approval' THEN 3 WHEN 'due' THEN 3 WHEN 'needs_authentication' THEN 3 WHEN 'needs_payment_method' THEN 3 WHEN 'retry_scheduled' THEN 3 WHEN 'uncollectible' THEN 3 WHEN 'voided' THEN 4 WHEN 'disputed' THEN 5 WHEN 'partially_refunded' THEN 5 WHEN 'refunded' THEN 5 WHEN 'succeeded' THEN 5 END $$
"""

ONLY_FORWARD = """
CREATE OR REPLACE FUNCTION payments_only_forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.attempts_made < OLD.attempts_made
        OR (greatest(3, payment_rank(NEW.state)), NEW.attempts_made, payment_rank(NEW.state))
            < (greatest(3, payment_rank(OLD.state)), OLD.attempts_made, payment_rank(OLD.state)) THEN
        RAISE EXCEPTION 'payment % can''t go back from % (attempt %) to % (attempt %)',
            OLD.payment_id, OLD.state, OLD.attempts_made, NEW.state, NEW.attempts_made
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""


def upgrade() -> None:
    op.execute(PAYMENT_RANK)
    op.execute(ONLY_FORWARD)
    op.create_table(
        "collecting_switch",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_reason", sa.Text(), nullable=True),
        sa.Column(
            "next_slot_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the pace allows the next payment to be worked",
        ),
        sa.CheckConstraint(
            "(paused_at IS NULL) = (paused_reason IS NULL)", name=op.f("collecting_switch_paused_check")
        ),
        sa.CheckConstraint("is_only", name=op.f("collecting_switch_only_one_check")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("collecting_switch_pkey")),
        comment="The kill switch of collecting, and its pace.",
    )
    op.create_table(
        "webhook_events",
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="by Stripe's clock"),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False, comment="delivered, or fetched by us"),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it is to be worked; NULL when it has been",
        ),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("payment_id", sa.Uuid(), nullable=True),
        sa.Column("worked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("source IN ('delivered', 'fetched')", name=op.f("webhook_events_source_check")),
        sa.CheckConstraint("(due_at IS NULL) = (worked_at IS NOT NULL)", name=op.f("webhook_events_worked_check")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("webhook_events_pkey")),
        comment="Each event of Stripe, once, as it came.",
    )
    op.create_index(
        "webhook_events_due", "webhook_events", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index(
        "webhook_events_of_payment",
        "webhook_events",
        ["payment_id"],
        unique=False,
        postgresql_where=sa.text("payment_id IS NOT NULL"),
    )
    op.create_table(
        "alerts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("alert_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="what it is about; said once while nobody has seen it"),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("times", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('cap_reached', 'collected_twice', 'collecting_fails', 'dispute_lost', 'dispute_opened', 'open_tiers', 'refund_failed', 'stripe_refuses', 'top_up_cap', 'voided_but_paid', 'webhook_unworkable')",
            name=op.f("alerts_kind_check"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("alerts_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "alert_id", name=op.f("alerts_pkey")),
        comment="What a person should look at.",
    )
    op.create_index(
        "alerts_unseen",
        "alerts",
        ["tenant_id", "kind", "subject"],
        unique=True,
        postgresql_where=sa.text("seen_at IS NULL"),
    )
    op.create_table(
        "collected_counts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False, comment="'' for the whole tenant"),
        sa.Column(
            "starts_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="of the day for a customer, of the hour for the tenant; UTC",
        ),
        sa.Column("payments", sa.BigInteger(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("payments >= 0 AND amount_minor >= 0", name=op.f("collected_counts_not_negative_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("collected_counts_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", "starts_at", name=op.f("collected_counts_pkey")),
        comment="How much was begun to be collected by itself: what the caps are compared with.",
    )
    op.create_table(
        "customer_holds",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "reason IN ('by_hand', 'declined_twice', 'disputed', 'hard_decline')",
            name=op.f("customer_holds_reason_check"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("customer_holds_customers_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", "reason", name=op.f("customer_holds_pkey")),
        comment="Why nothing more is collected from a customer for now.",
    )
    op.create_table(
        "payment_methods",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("payment_method_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("last4", sa.Text(), nullable=True),
        sa.Column("exp_month", sa.SmallInteger(), nullable=True),
        sa.Column("exp_year", sa.SmallInteger(), nullable=True),
        sa.Column("attached_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("detached_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("held_at", sa.DateTime(timezone=True), nullable=True, comment="never to be tried again"),
        sa.Column("hold_reason", sa.Text(), nullable=True),
        sa.CheckConstraint("(held_at IS NULL) = (hold_reason IS NULL)", name=op.f("payment_methods_hold_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("payment_methods_customers_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "payment_method_id", name=op.f("payment_methods_pkey")),
        comment="A customer's card, as Stripe knows it; no number is ever here.",
    )
    op.create_index("payment_methods_id", "payment_methods", ["payment_method_id"], unique=False)
    op.create_index("payment_methods_of_customer", "payment_methods", ["tenant_id", "customer_id"], unique=False)
    op.create_table(
        "top_up_rules",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("wallet_id", sa.BigInteger(), nullable=False),
        sa.Column("threshold", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("credit_amount", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("monthly_cap_minor", sa.BigInteger(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "credit_amount > 0 AND amount_minor > 0 AND monthly_cap_minor >= amount_minor",
            name=op.f("top_up_rules_amounts_check"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "wallet_id"],
            ["wallets.tenant_id", "wallets.wallet_id"],
            name=op.f("top_up_rules_wallets_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "wallet_id", name=op.f("top_up_rules_pkey")),
        comment="When a wallet falls below the threshold, this is bought; no more than the cap in a month.",
    )
    op.create_table(
        "disputes",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("stripe_dispute_id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status IN ('lost', 'needs_response', 'prevented', 'under_review', 'warning_closed', 'warning_needs_response', 'warning_under_review', 'won')",
            name=op.f("disputes_status_check"),
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("disputes_amount_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "payment_id"],
            ["payments.tenant_id", "payments.payment_id"],
            name=op.f("disputes_payments_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "stripe_dispute_id", name=op.f("disputes_pkey")),
        comment="A customer's bank wants a payment back.",
    )
    op.create_index("disputes_of_payment", "disputes", ["tenant_id", "payment_id"], unique=False)
    op.create_table(
        "payment_log",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "source",
            sa.Text(),
            nullable=False,
            comment="who moved it: answer, webhook, reconciler, sweep, person, usage",
        ),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "payment_id"],
            ["payments.tenant_id", "payments.payment_id"],
            name=op.f("payment_log_payments_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "payment_id", "entry_id", name=op.f("payment_log_pkey")),
        comment="Each move of a payment, and why: what `centavo explain payment` tells.",
    )
    op.create_table(
        "refunds",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("refund_id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False, comment="the caller's: asked twice, refunded once"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("stripe_refund_id", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(state IN ('submitting', 'pending')) <= (due_at IS NOT NULL)", name=op.f("refunds_due_check")
        ),
        sa.CheckConstraint(
            "state IN ('canceled', 'failed', 'pending', 'submitting', 'succeeded')", name=op.f("refunds_state_check")
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("refunds_amount_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "payment_id"],
            ["payments.tenant_id", "payments.payment_id"],
            name=op.f("refunds_payments_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "refund_id", name=op.f("refunds_pkey")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name=op.f("refunds_tenant_id_idempotency_key_key")),
        comment="Money to give back, asked for here.",
    )
    op.create_index("refunds_due", "refunds", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_index("refunds_of_payment", "refunds", ["tenant_id", "payment_id"], unique=False)
    op.create_index(
        "customers_of_stripe",
        "customers",
        ["stripe_customer_id"],
        unique=False,
        postgresql_where=sa.text("stripe_customer_id IS NOT NULL"),
    )
    op.add_column("payment_attempts", sa.Column("payment_method_id", sa.Text(), nullable=True))
    op.execute("UPDATE payment_attempts SET payment_method_id = parameters ->> 'payment_method'")
    op.alter_column("payment_attempts", "payment_method_id", nullable=False)
    op.create_index(
        "payment_attempts_declined",
        "payment_attempts",
        ["tenant_id", "payment_method_id", "finished_at"],
        unique=False,
        postgresql_where=sa.text("state = 'declined'"),
    )
    op.add_column(
        "payments",
        sa.Column(
            "reference", sa.Text(), server_default=sa.text("''"), nullable=False, comment="which top-up of the month"
        ),
    )
    op.add_column(
        "payments",
        sa.Column(
            "approved_at", sa.DateTime(timezone=True), nullable=True, comment="a person let it through above the caps"
        ),
    )
    op.add_column(
        "payments",
        sa.Column(
            "void_wished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="to be canceled, or refunded should it succeed first",
        ),
    )
    op.add_column("payments", sa.Column("void_reason", sa.Text(), nullable=True))
    op.add_column("payments", sa.Column("refunded_minor", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column(
        "payments", sa.Column("wallet_id", sa.BigInteger(), nullable=True, comment="of a top-up: who gets the value")
    )
    op.add_column(
        "payments",
        sa.Column("credit_amount", sa.Numeric(precision=38, scale=12), nullable=True, comment="of a top-up: the value"),
    )
    op.add_column(
        "payments",
        sa.Column(
            "credit_given",
            sa.Numeric(precision=38, scale=12),
            server_default=sa.text("0"),
            nullable=False,
            comment="what of it the wallet has now",
        ),
    )
    op.drop_constraint(op.f("payments_natural_key"), "payments", type_="unique")
    op.create_unique_constraint(
        "payments_natural_key",
        "payments",
        ["tenant_id", "customer_id", "period_start", "kind", "tier", "generation", "reference"],
    )
    op.create_index("payments_id", "payments", ["payment_id"], unique=False)
    op.create_index(
        "payments_of_intent",
        "payments",
        ["stripe_payment_intent_id"],
        unique=False,
        postgresql_where=sa.text("stripe_payment_intent_id IS NOT NULL"),
    )
    op.create_index(
        "payments_without_card",
        "payments",
        ["tenant_id", "customer_id"],
        unique=False,
        postgresql_where=sa.text("state = 'needs_payment_method'"),
    )
    op.create_foreign_key(
        op.f("payments_wallets_fkey"), "payments", "wallets", ["tenant_id", "wallet_id"], ["tenant_id", "wallet_id"]
    )
    op.add_column(
        "plans",
        sa.Column(
            "dunning_days",
            postgresql.ARRAY(Integer()),
            server_default=sa.text("'{1,3,5,7}'::integer[]"),
            nullable=False,
        ),
    )
    op.add_column("plans", sa.Column("dunning_hour", sa.SmallInteger(), server_default=sa.text("9"), nullable=False))
    op.add_column("plans", sa.Column("open_tiers_max", sa.Integer(), server_default=sa.text("5"), nullable=False))
    op.drop_constraint(op.f("payments_succeeded_check"), "payments", type_="check")
    op.drop_constraint(op.f("payments_due_check"), "payments", type_="check")
    op.create_check_constraint(
        op.f("payments_submitted_check"),
        "payments",
        "(state IN ('submitting', 'processing')) <= (attempts_made > 0 AND stripe_payment_intent_id IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("payments_credit_check"),
        "payments",
        "credit_given BETWEEN 0 AND coalesce(credit_amount, 0) AND (credit_given > 0) <= (succeeded_at IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("payments_top_up_check"),
        "payments",
        "CASE WHEN kind = 'top_up' THEN reference <> '' AND wallet_id IS NOT NULL AND coalesce(credit_amount, 0) > 0 ELSE reference = '' AND wallet_id IS NULL AND credit_amount IS NULL END",
    )
    op.create_check_constraint(
        op.f("payments_paid_check"),
        "payments",
        "(state IN ('disputed', 'partially_refunded', 'refunded', 'succeeded')) = (succeeded_at IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("payments_due_check"),
        "payments",
        "(state IN ('due', 'processing', 'retry_scheduled', 'submitting', 'unknown')) <= (due_at IS NOT NULL) AND (due_at IS NOT NULL) <= (state IN ('due', 'processing', 'retry_scheduled', 'submitting', 'unknown') OR void_wished_at IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("payments_refunded_check"),
        "payments",
        "refunded_minor BETWEEN 0 AND amount_minor AND (state = 'refunded') <= (refunded_minor = amount_minor) AND (state = 'partially_refunded') <= (refunded_minor > 0 AND refunded_minor < amount_minor) AND (refunded_minor > 0) <= (succeeded_at IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("payment_attempts_finished_check"),
        "payment_attempts",
        "(state IN ('processing', 'submitting')) = (finished_at IS NULL)",
    )
    op.create_check_constraint(
        op.f("plans_dunning_days_check"),
        "plans",
        "0 < ALL (dunning_days) AND 60 >= ALL (dunning_days) AND cardinality(dunning_days) <= 10 AND array_position(dunning_days, NULL) IS NULL",
    )
    op.create_check_constraint(op.f("plans_dunning_hour_check"), "plans", "dunning_hour BETWEEN 0 AND 23")
    op.create_check_constraint(op.f("plans_open_tiers_max_check"), "plans", "open_tiers_max > 0")
    op.execute(
        "CREATE TRIGGER payments_only_forward BEFORE UPDATE OF state, attempts_made ON payments FOR EACH ROW EXECUTE FUNCTION payments_only_forward()"
    )
    op.execute(
        "CREATE TRIGGER payment_log_immutable_row BEFORE UPDATE OR DELETE ON payment_log FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER payment_log_immutable_all BEFORE TRUNCATE ON payment_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute("INSERT INTO collecting_switch DEFAULT VALUES")
