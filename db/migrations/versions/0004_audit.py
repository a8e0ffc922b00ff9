"""The audit by itself: its turn, what it found, and the words for it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ALERT_KINDS = (
    "kind IN ('audit_differs', 'cap_reached', 'collected_twice', 'collecting_fails', 'dispute_lost', 'dispute_opened', "
    "'month_fails', 'open_tiers', 'refund_failed', 'statement_fails', 'stripe_refuses', 'top_up_cap', "
    "'voided_but_paid', 'webhook_unworkable')"
)
HOLD_REASONS = "reason IN ('audit_differs', 'by_hand', 'declined_twice', 'disputed', 'hard_decline')"


def upgrade() -> None:
    op.create_table(
        "audit_turn",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the audit runs next; NULL before the first time",
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True, comment="of the last one"),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="of the last one that came to its end",
        ),
        sa.CheckConstraint("is_only", name=op.f("audit_turn_only_one_check")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("audit_turn_pkey")),
        comment="When the audit runs by itself.",
    )
    op.execute("INSERT INTO audit_turn DEFAULT VALUES")
    op.create_table(
        "audit_differences",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("difference_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("check_name", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="which row"),
        sa.Column("expected", sa.Text(), nullable=False),
        sa.Column("actual", sa.Text(), nullable=False),
        sa.Column("times", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "resolved_at", sa.DateTime(timezone=True), nullable=True, comment="when an audit found it no longer"
        ),
        sa.CheckConstraint("times > 0", name=op.f("audit_differences_times_check")),
        sa.PrimaryKeyConstraint("tenant_id", "difference_id", name=op.f("audit_differences_pkey")),
        comment="What the audit found, once as long as it stands.",
    )
    op.create_index(
        "audit_differences_standing",
        "audit_differences",
        ["tenant_id", "check_name", "subject"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.drop_constraint(op.f("alerts_kind_check"), "alerts")
    op.create_check_constraint(op.f("alerts_kind_check"), "alerts", ALERT_KINDS)
    op.drop_constraint(op.f("customer_holds_reason_check"), "customer_holds")
    op.create_check_constraint(op.f("customer_holds_reason_check"), "customer_holds", HOLD_REASONS)
