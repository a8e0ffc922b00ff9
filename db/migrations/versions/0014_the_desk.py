"""Alerts that are said once while their cause holds, when a wallet is low, and what happened to events."""

import sqlalchemy as sa
from alembic import op

from db.policies import protect

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

ALERT_KINDS = (
    "kind IN ('audit_differs', 'budget_threshold', 'cap_reached', 'cap_threshold', 'collected_twice', "
    "'collecting_fails', 'credits_expiring', 'dispute_lost', 'dispute_opened', 'low_balance', 'month_fails', "
    "'open_tiers', 'payment_failed', 'payment_given_up', 'quota_threshold', 'refund_failed', 'statement_fails', "
    "'stripe_refuses', 'tier_threshold', 'top_up_cap', 'unpriced', 'voided_but_paid', 'webhook_given_up', "
    "'webhook_unworkable')"
)

IMMUTABLE_ROW = (
    "CREATE TRIGGER usage_log_immutable_row BEFORE UPDATE OR DELETE ON usage_log "
    "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
)
IMMUTABLE_ALL = (
    "CREATE TRIGGER usage_log_immutable_all BEFORE TRUNCATE ON usage_log "
    "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
)


def upgrade() -> None:
    op.drop_constraint(op.f("alerts_kind_check"), "alerts")
    op.create_check_constraint(op.f("alerts_kind_check"), "alerts", ALERT_KINDS)
    op.create_table(
        "alert_causes",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column(
            "subject",
            sa.Text(),
            nullable=False,
            comment="which wallet, grant, product or customer, as its kind has it",
        ),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(ALERT_KINDS, name=op.f("alert_causes_kind_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("alert_causes_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "subject", name=op.f("alert_causes_pkey")),
        comment="What was said and still holds: it is not said again until it was gone.",
    )
    op.add_column(
        "wallets",
        sa.Column(
            "low_below",
            sa.Numeric(precision=38, scale=12),
            nullable=True,
            comment="below how much it is low; NULL: as the setting low_balance says",
        ),
    )
    op.create_check_constraint(op.f("wallets_low_below_check"), "wallets", "low_below >= 0")
    op.create_table(
        "usage_log",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("entry_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_key", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "step IN ('cancelled', 'deferred', 'method_asked', 'replayed', 'settle_refused', 'settled')",
            name=op.f("usage_log_step_check"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("usage_log_customers_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "entry_id", name=op.f("usage_log_pkey")),
        comment="What happened to an event that its row does not say: most events have nothing here.",
    )
    op.create_index("usage_log_of_event", "usage_log", ["tenant_id", "event_key"])
    op.execute(IMMUTABLE_ROW)
    op.execute(IMMUTABLE_ALL)
    protect(op.get_bind())
