"""Holds on wallets, what usage captures of them, and how far below zero a wallet may be asked."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "wallets",
        sa.Column(
            "overdraft",
            sa.Numeric(precision=38, scale=12),
            server_default=sa.text("0"),
            nullable=False,
            comment="how far below zero it may be asked",
        ),
    )
    op.create_check_constraint(op.f("wallets_overdraft_check"), "wallets", "overdraft >= 0")
    op.create_table(
        "credit_holds",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("hold_id", sa.Text(), nullable=False, comment="as usage events name it"),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("wallet_id", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=38, scale=12), nullable=False),
        sa.Column(
            "captured",
            sa.Numeric(precision=38, scale=12),
            server_default=sa.text("0"),
            nullable=False,
            comment="an open one reserves the rest",
        ),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column(
            "asked",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="what the caller said: under the same key it must be the same",
        ),
        sa.CheckConstraint(
            "state IN ('expired', 'open', 'released', 'used_up')", name=op.f("credit_holds_state_check")
        ),
        sa.CheckConstraint("amount > 0 AND captured BETWEEN 0 AND amount", name=op.f("credit_holds_amounts_check")),
        sa.CheckConstraint("(state = 'used_up') = (captured = amount)", name=op.f("credit_holds_used_up_check")),
        sa.CheckConstraint("(state = 'open') = (closed_at IS NULL)", name=op.f("credit_holds_closed_check")),
        sa.CheckConstraint("expires_at > opened_at", name=op.f("credit_holds_expires_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "customer_id"],
            ["customers.tenant_id", "customers.customer_id"],
            name=op.f("credit_holds_customers_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "wallet_id"],
            ["wallets.tenant_id", "wallets.wallet_id"],
            name=op.f("credit_holds_wallets_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "hold_id", name=op.f("credit_holds_pkey")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name="credit_holds_idempotency_key"),
        comment="Value of a wallet that is kept back for usage under way. Who changes one holds its customer's"
        " wallets.",
    )
    open_only = sa.text("state = 'open'")
    op.create_index("credit_holds_due", "credit_holds", ["expires_at"], postgresql_where=open_only)
    op.create_index("credit_holds_open", "credit_holds", ["tenant_id", "wallet_id"], postgresql_where=open_only)
    op.create_index("credit_holds_of_customer", "credit_holds", ["tenant_id", "customer_id", "opened_at"])
    op.create_table(
        "credit_captures",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("event_key", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("hold_id", sa.Text(), nullable=False, comment="as the event names it"),
        sa.Column(
            "taken",
            sa.Numeric(precision=38, scale=12),
            nullable=False,
            comment="of the hold; the event's cost is debited in any case",
        ),
        sa.Column("mark", sa.Text(), nullable=True, comment="why that is less than the event's cost"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("taken >= 0", name=op.f("credit_captures_taken_check")),
        sa.CheckConstraint(
            "mark IN ('beyond', 'expired', 'other_wallet', 'released', 'unknown')",
            name=op.f("credit_captures_mark_check"),
        ),
        sa.CheckConstraint(
            "taken = 0 OR mark IS NULL OR mark = 'beyond'", name=op.f("credit_captures_marked_check")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "event_key", name=op.f("credit_captures_pkey")),
        comment="What an event took of the hold that it names.",
    )
    op.create_index("credit_captures_of_hold", "credit_captures", ["tenant_id", "hold_id"])
