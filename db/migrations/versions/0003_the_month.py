"""The month: grants, subscriptions, fees, closing, statements, corrections."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: Fees begin with the next period: what has begun was used before anybody said that it would be charged.
SUBSCRIPTIONS_BEGIN = """
UPDATE customers SET billed_from = now()
"""

PERIODS_GO_ON = """
UPDATE periods p SET time_zone = c.time_zone, opened_at = p.starts_at
FROM customers c WHERE c.tenant_id = p.tenant_id AND c.customer_id = p.customer_id
"""

#: A customer always has a period of now, which the next one follows, and no month is missing before it. They are
#: begun here: begun later, they would owe a fee.
FIRST_PERIODS = """
INSERT INTO periods (tenant_id, customer_id, starts_at, ends_at, plan_id, plan_version, time_zone, opened_at)
SELECT c.tenant_id, c.customer_id, b.starts_at, b.ends_at, c.plan_id, c.plan_version, c.time_zone, b.starts_at
FROM customers c
CROSS JOIN LATERAL (
    SELECT coalesce(min(p.starts_at), now()) AS since FROM periods p
    WHERE p.tenant_id = c.tenant_id AND p.customer_id = c.customer_id
) l
CROSS JOIN LATERAL generate_series(
    date_trunc('month', l.since AT TIME ZONE c.time_zone), date_trunc('month', now() AT TIME ZONE c.time_zone),
    interval '1 month'
) AS m(first)
CROSS JOIN LATERAL (
    SELECT m.first AT TIME ZONE c.time_zone AS starts_at,
        (m.first + interval '1 month') AT TIME ZONE c.time_zone AS ends_at
) b
WHERE NOT EXISTS (
    SELECT FROM periods p
    WHERE p.tenant_id = c.tenant_id AND p.customer_id = c.customer_id
        AND p.starts_at < b.ends_at AND p.ends_at > b.starts_at
)
"""

#: Where the last period of a customer ends, the next begins.
MONTHS_TURN = """
INSERT INTO month_turns (tenant_id, customer_id, due_at)
SELECT tenant_id, customer_id, max(ends_at) FROM periods GROUP BY tenant_id, customer_id
"""

#: Led by a number, it takes a quarter of the time: GiST is slow at sorting names.
DROP_OVERLAP = "ALTER TABLE periods DROP CONSTRAINT periods_never_overlap"
NEVER_OVERLAP = """
ALTER TABLE periods ADD CONSTRAINT periods_never_overlap EXCLUDE USING gist (
    hashtextextended(customer_id, 0) WITH =, tenant_id WITH =, (customer_id || '') WITH =,
    tstzrange(starts_at, ends_at) WITH &&)
"""

#: What was there before grants were kept is one grant. To the entries of that time, which name no grant, all was
#: debt: one entry that moves nothing turns what they left into the grant.
BALANCES_BECOME_GRANTS = """
INSERT INTO credit_grants (tenant_id, grant_id, wallet_id, source, priority, amount, remaining, reason, created_at)
SELECT tenant_id, gen_random_uuid(), wallet_id, 'adjustment', 40, balance, balance, 'carried_over', created_at
FROM wallets WHERE balance > 0
"""
TOLD_BY_AN_ENTRY = """
INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, reason, occurred_at,
    recorded_at, grant_id, parts)
SELECT w.tenant_id, w.wallet_id, w.last_seq + 1, 0, w.balance, 'adjustment', 'grants:adjustment', 'carried_over',
    now(), now(), g.grant_id, jsonb_build_object(g.grant_id::text, g.amount::text, 'debt', g.amount::text)
FROM wallets w JOIN credit_grants g ON g.tenant_id = w.tenant_id AND g.wallet_id = w.wallet_id
"""
COUNTED_BY_THE_WALLET = """
UPDATE wallets SET debt = greatest(0, -balance), last_seq = last_seq + (balance > 0)::int
"""


def upgrade() -> None:
    op.create_table(
        "statement_numbers",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("statement_numbers_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("statement_numbers_pkey")),
        comment="The last number given to a statement of the tenant: taken and given with the statement, or not at all.",
    )
    op.create_table(
        "corrections",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("correction_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("event_key", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("counted_in", sa.DateTime(timezone=True), nullable=False, comment="the event's period"),
        sa.Column("told_in", sa.DateTime(timezone=True), nullable=False, comment="the period whose statement tells it"),
        sa.Column("tokens", sa.BigInteger(), nullable=False, comment="added to the event's"),
        sa.Column("cost", sa.Numeric(precision=38, scale=12), nullable=False, comment="added to what the event costs"),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("wallet_id", sa.BigInteger(), nullable=True, comment="the entry that moved it, if it moved anything"),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column(
            "detail",
            postgresql.JSONB(astext_type=Text()),
            nullable=True,
            comment="of a new rating: the event's lines by the prices given",
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('rerate', 'void')", name=op.f("corrections_kind_check")),
        sa.CheckConstraint(
            "(wallet_id IS NULL) = (seq IS NULL) AND (cost <> 0) <= (seq IS NOT NULL)",
            name=op.f("corrections_entry_check"),
        ),
        sa.CheckConstraint("cost = 0 OR currency IS NOT NULL", name=op.f("corrections_currency_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("corrections_customers_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "correction_id", name=op.f("corrections_pkey")),
        comment="What was done to an event after it was charged; the event itself stays as it was.",
    )
    op.create_index("corrections_of_event", "corrections", ["tenant_id", "event_key"], unique=False)
    op.create_index("corrections_told", "corrections", ["tenant_id", "customer_id", "told_in"], unique=False)
    op.create_index(
        "corrections_voided",
        "corrections",
        ["tenant_id", "event_key"],
        unique=True,
        postgresql_where=sa.text("kind = 'void'"),
    )
    op.create_table(
        "month_turns",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column(
            "due_at", sa.DateTime(timezone=True), nullable=True, comment="when the next period begins; NULL: none does"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("month_turns_customers_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", name=op.f("month_turns_pkey")),
        comment="When a customer's month turns. Locked before the customer's wallets.",
    )
    op.create_index(
        "month_turns_due", "month_turns", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_table(
        "subscription_log",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("move", sa.Text(), nullable=False),
        sa.Column("effective_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.CheckConstraint(
            "move IN ('ended', 'paused', 'plan_changed', 'resumed', 'subscribed', 'zone_changed')",
            name=op.f("subscription_log_move_check"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("subscription_log_customers_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "customer_id", "entry_id", name=op.f("subscription_log_pkey")),
        comment="What a customer's subscription went through.",
    )
    op.create_table(
        "credit_grants",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Uuid(), nullable=False),
        sa.Column("wallet_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "number", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="the older has the smaller one"
        ),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False, comment="the smaller is burned first"),
        sa.Column("amount", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("remaining", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column(
            "paid_debt",
            sa.Numeric(precision=38, scale=12),
            server_default=sa.text("0"),
            nullable=False,
            comment="what of it went to debt on arrival",
        ),
        sa.Column(
            "valid_from", sa.DateTime(timezone=True), nullable=True, comment="it pays for what occurred from then on"
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True, comment="and before this"),
        sa.Column("breaks_at", sa.DateTime(timezone=True), nullable=True, comment="what remains then is gone"),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True, comment="nothing remains"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column(
            "period_start", sa.DateTime(timezone=True), nullable=True, comment="of free credits: for which period"
        ),
        sa.Column("payment_id", sa.Uuid(), nullable=True, comment="of a purchase"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "source IN ('adjustment', 'free', 'promo', 'purchase', 'refund', 'subscription')",
            name=op.f("credit_grants_source_check"),
        ),
        sa.CheckConstraint(
            "(expires_at IS NULL) = (breaks_at IS NULL) AND breaks_at >= expires_at AND expires_at > valid_from",
            name=op.f("credit_grants_validity_check"),
        ),
        sa.CheckConstraint("(remaining = 0) = (ended_at IS NOT NULL)", name=op.f("credit_grants_ended_check")),
        sa.CheckConstraint(
            "amount > 0 AND remaining >= 0 AND paid_debt >= 0", name=op.f("credit_grants_amounts_check")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "wallet_id"],
            ["wallets.tenant_id", "wallets.wallet_id"],
            name=op.f("credit_grants_wallets_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "grant_id", name=op.f("credit_grants_pkey")),
        comment="Value given to a wallet: from where, for when, and what remains. A balance is grants less debt.",
        postgresql_with={"fillfactor": 60},
    )
    op.create_index("credit_grants_of_wallet", "credit_grants", ["tenant_id", "wallet_id", "number"], unique=False)
    op.create_index(
        "credit_grants_open",
        "credit_grants",
        ["tenant_id", "wallet_id"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(
        "credit_grants_to_break",
        "credit_grants",
        ["breaks_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NULL AND breaks_at IS NOT NULL"),
    )
    op.create_table(
        "statements",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("plan_id", sa.Text(), nullable=False),
        sa.Column("plan_version", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("tiers", sa.Integer(), nullable=False),
        sa.CheckConstraint("number > 0", name=op.f("statements_number_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id", "period_start"],
            ["periods.tenant_id", "periods.customer_id", "periods.starts_at"],
            name=op.f("statements_periods_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "number", name=op.f("statements_pkey")),
        sa.UniqueConstraint(
            "tenant_id", "customer_id", "period_start", name=op.f("statements_tenant_id_customer_id_period_start_key")
        ),
        comment="What a closed period came to, as it was told; never changed. What is corrected later is told in the next.",
    )
    op.create_table(
        "statement_balances",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("opening", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("closing", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.CheckConstraint("account IN ('due', 'wallet')", name=op.f("statement_balances_account_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "number"],
            ["statements.tenant_id", "statements.number"],
            name=op.f("statement_balances_statements_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "number", "account", "currency", name=op.f("statement_balances_pkey")),
        comment="Each account of a statement, before and after its lines.",
    )
    op.create_table(
        "statement_lines",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("amount", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column("quantity", sa.Numeric(precision=42, scale=12), nullable=True),
        sa.Column("unit", sa.Text(), nullable=True),
        sa.Column("events", sa.BigInteger(), nullable=True),
        sa.Column("about", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("reference", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=True, comment="of lines about a payment: what of it was told"),
        sa.CheckConstraint(
            "account IS NULL OR account IN ('due', 'wallet')", name=op.f("statement_lines_account_check")
        ),
        sa.CheckConstraint(
            "kind IN ('adjustment', 'breakage', 'collected', 'corrected', 'correction', 'covered', 'disputed', 'fee', 'grant', 'purchase', 'refund', 'refunded', 'reversal', 'tier', 'top_up', 'usage', 'void', 'voided')",
            name=op.f("statement_lines_kind_check"),
        ),
        sa.CheckConstraint("account IS NOT NULL OR amount = 0", name=op.f("statement_lines_amount_check")),
        sa.CheckConstraint("account IS NULL OR currency IS NOT NULL", name=op.f("statement_lines_currency_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "number"],
            ["statements.tenant_id", "statements.number"],
            name=op.f("statement_lines_statements_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "number", "line", name=op.f("statement_lines_pkey")),
        comment="One line of a statement.",
    )
    op.create_index(
        "statement_lines_of_payment",
        "statement_lines",
        ["tenant_id", "payment_id"],
        unique=False,
        postgresql_where=sa.text("payment_id IS NOT NULL"),
    )
    op.add_column(
        "customers",
        sa.Column(
            "anchor_day",
            sa.SmallInteger(),
            server_default=sa.text("1"),
            nullable=False,
            comment="on which months begin",
        ),
    )
    op.add_column(
        "customers",
        sa.Column(
            "billed_from", sa.DateTime(timezone=True), nullable=True, comment="since when the plan's fees are owed"
        ),
    )
    op.add_column(
        "customers",
        sa.Column(
            "paused_at", sa.DateTime(timezone=True), nullable=True, comment="periods that begin from then on owe no fee"
        ),
    )
    op.add_column(
        "customers",
        sa.Column(
            "ended_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="likewise, for good; may lie ahead, at the end of a period",
        ),
    )
    op.add_column("customers", sa.Column("next_plan_id", sa.Text(), nullable=True))
    op.add_column("customers", sa.Column("next_plan_version", sa.Integer(), nullable=True))
    op.add_column(
        "customers",
        sa.Column(
            "next_plan_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="periods that begin from then on are on the next plan",
        ),
    )
    op.create_foreign_key(
        "customers_next_plan_fkey",
        "customers",
        "plans",
        ["tenant_id", "next_plan_id", "next_plan_version"],
        ["tenant_id", "plan_id", "version"],
    )
    op.add_column(
        "ledger_entries",
        sa.Column(
            "grant_id", sa.Uuid(), nullable=True, comment="the grant that all of it moved; NULL without parts: debt"
        ),
    )
    op.add_column(
        "ledger_entries",
        sa.Column(
            "parts",
            postgresql.JSONB(astext_type=Text()),
            nullable=True,
            comment="where it moved several grants, or a grant and debt: how much of each",
        ),
    )
    op.add_column(
        "ledger_entries",
        sa.Column(
            "period_start",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the period it is told in; of usage, its event's",
        ),
    )
    op.create_index(
        "ledger_entries_of_period",
        "ledger_entries",
        ["tenant_id", "wallet_id", "period_start"],
        unique=False,
        postgresql_where=sa.text("kind <> 'usage'"),
    )
    op.create_index(
        "ledger_entries_recorded_at",
        "ledger_entries",
        ["recorded_at"],
        unique=False,
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )
    op.add_column(
        "payments",
        sa.Column(
            "unowed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="usage was voided, and this tier is owed no longer; begun again, it re-opens",
        ),
    )
    op.add_column("periods", sa.Column("time_zone", sa.Text(), nullable=True, comment="in which its days are counted"))
    op.add_column(
        "periods",
        sa.Column(
            "opened_at", sa.DateTime(timezone=True), nullable=True, comment="its fee and free credits are decided"
        ),
    )
    op.add_column("periods", sa.Column("statement_number", sa.BigInteger(), nullable=True))
    op.alter_column(
        "periods",
        "closed_at",
        existing_type=postgresql.TIMESTAMP(timezone=True),
        comment="nothing counts in it any more",
        existing_nullable=True,
    )
    op.create_index(
        "periods_to_close", "periods", ["ends_at"], unique=False, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_index(
        "periods_to_open", "periods", ["starts_at"], unique=False, postgresql_where=sa.text("opened_at IS NULL")
    )
    op.create_index(
        "periods_to_state",
        "periods",
        ["ends_at"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NOT NULL AND statement_number IS NULL"),
    )
    op.add_column(
        "plans",
        sa.Column(
            "free_credits",
            sa.Numeric(precision=38, scale=12),
            server_default=sa.text("0"),
            nullable=True,
            comment="given for each period; NULL: as much as the setting free_tier_credits says",
        ),
    )
    op.add_column(
        "plans", sa.Column("free_credits_currency", sa.Text(), server_default=sa.text("'CREDIT'"), nullable=False)
    )
    op.add_column("plans", sa.Column("anchor", sa.Text(), server_default=sa.text("'calendar'"), nullable=False))
    op.add_column("plans", sa.Column("proration", sa.Text(), server_default=sa.text("'none'"), nullable=False))
    op.add_column("plans", sa.Column("late_events", sa.Text(), server_default=sa.text("'current'"), nullable=False))
    op.add_column("plans", sa.Column("grace_hours", sa.Integer(), server_default=sa.text("72"), nullable=False))
    op.add_column("plans", sa.Column("unowed_tiers", sa.Text(), server_default=sa.text("'refund'"), nullable=False))
    op.add_column("plans", sa.Column("day_payments_max", sa.Integer(), nullable=True))
    op.add_column("plans", sa.Column("day_minor_max", sa.BigInteger(), nullable=True))
    op.add_column("usage_events", sa.Column("voided_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("usage_events", sa.Column("void_reason", sa.Text(), nullable=True))
    op.create_index(
        "usage_events_of_period",
        "usage_events",
        ["tenant_id", "customer_id", "period_start"],
        unique=False,
        postgresql_where=sa.text("period_start IS NOT NULL"),
    )
    op.add_column(
        "wallets",
        sa.Column(
            "debt",
            sa.Numeric(precision=38, scale=12),
            server_default=sa.text("0"),
            nullable=False,
            comment="used, and covered by no grant",
        ),
    )
    op.execute(SUBSCRIPTIONS_BEGIN)
    op.execute(PERIODS_GO_ON)
    op.execute(DROP_OVERLAP)
    op.execute(NEVER_OVERLAP)
    op.execute(FIRST_PERIODS)
    op.execute(MONTHS_TURN)
    op.drop_constraint(op.f("ledger_entries_kind_check"), "ledger_entries", type_="check")
    op.drop_constraint(op.f("alerts_kind_check"), "alerts", type_="check")
    op.create_check_constraint(
        op.f("alerts_kind_check"),
        "alerts",
        "kind IN ('cap_reached', 'collected_twice', 'collecting_fails', 'dispute_lost', 'dispute_opened', 'month_fails', 'open_tiers', 'refund_failed', 'statement_fails', 'stripe_refuses', 'top_up_cap', 'voided_but_paid', 'webhook_unworkable')",
    )
    op.create_check_constraint(op.f("customers_anchor_day_check"), "customers", "anchor_day BETWEEN 1 AND 31")
    op.create_check_constraint(
        op.f("customers_next_plan_check"),
        "customers",
        "(next_plan_id IS NULL) = (next_plan_version IS NULL) AND (next_plan_id IS NULL) = (next_plan_at IS NULL)",
    )
    op.create_check_constraint(
        op.f("ledger_entries_kind_check"),
        "ledger_entries",
        "kind IN ('adjustment', 'breakage', 'correction', 'grant', 'purchase', 'refund', 'reversal', 'subscription', 'usage', 'void')",
    )
    op.create_check_constraint(op.f("payments_unowed_check"), "payments", "unowed_at IS NULL OR kind = 'tier'")
    op.create_check_constraint(op.f("periods_closed_check"), "periods", "closed_at IS NULL OR opened_at IS NOT NULL")
    op.create_check_constraint(
        op.f("periods_stated_check"), "periods", "statement_number IS NULL OR closed_at IS NOT NULL"
    )
    op.create_check_constraint(op.f("plans_anchor_check"), "plans", "anchor IN ('calendar', 'joined')")
    op.create_check_constraint(op.f("plans_day_limits_check"), "plans", "day_payments_max > 0 AND day_minor_max > 0")
    op.create_check_constraint(op.f("plans_free_credits_check"), "plans", "free_credits >= 0")
    op.create_check_constraint(op.f("plans_grace_hours_check"), "plans", "grace_hours BETWEEN 1 AND 840")
    op.create_check_constraint(op.f("plans_late_events_check"), "plans", "late_events IN ('current', 'park')")
    op.create_check_constraint(op.f("plans_proration_check"), "plans", "proration IN ('daily', 'none')")
    op.create_check_constraint(op.f("plans_unowed_tiers_check"), "plans", "unowed_tiers IN ('keep', 'refund')")
    op.create_check_constraint(
        op.f("usage_events_voided_check"),
        "usage_events",
        "(status = 'voided') = (voided_at IS NOT NULL) AND (voided_at IS NULL) = (void_reason IS NULL)",
    )
    op.create_check_constraint(op.f("wallets_debt_check"), "wallets", "debt >= 0")
    op.execute(BALANCES_BECOME_GRANTS)
    op.execute(TOLD_BY_AN_ENTRY)
    op.execute(COUNTED_BY_THE_WALLET)
    op.alter_column("customers", "billed_from", nullable=False)
    op.alter_column("periods", "time_zone", nullable=False)
    op.execute(
        "CREATE TRIGGER subscription_log_immutable_row BEFORE UPDATE OR DELETE ON subscription_log FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER subscription_log_immutable_all BEFORE TRUNCATE ON subscription_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER corrections_immutable_row BEFORE UPDATE OR DELETE ON corrections FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER corrections_immutable_all BEFORE TRUNCATE ON corrections FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER statements_immutable_row BEFORE UPDATE OR DELETE ON statements FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER statements_immutable_all BEFORE TRUNCATE ON statements FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER statement_balances_immutable_row BEFORE UPDATE OR DELETE ON statement_balances FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER statement_balances_immutable_all BEFORE TRUNCATE ON statement_balances FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER statement_lines_immutable_row BEFORE UPDATE OR DELETE ON statement_lines FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER statement_lines_immutable_all BEFORE TRUNCATE ON statement_lines FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
