"""What is looked at some at a time, and JSON that no query chooses by."""

import sqlalchemy as sa
from alembic import op

from db.policies import protect

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE usage_events ALTER COLUMN items SET STATISTICS 0, ALTER COLUMN metadata SET STATISTICS 0")
    op.execute(
        "CREATE INDEX credit_grants_ending ON credit_grants (expires_at, tenant_id, grant_id) "
        "WHERE ended_at IS NULL AND expires_at IS NOT NULL AND period_start IS NULL"
    )
    op.create_table(
        "alert_looks",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "wallet_tenant_id",
            sa.Text(),
            nullable=True,
            comment="the wallet that the last look came to; NULL: it saw all",
        ),
        sa.Column("wallet_id", sa.BigInteger(), nullable=True),
        sa.Column("grant_ends_at", sa.DateTime(timezone=True), nullable=True, comment="likewise the grant"),
        sa.Column("grant_tenant_id", sa.Text(), nullable=True),
        sa.Column("grant_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint("is_only", name=op.f("alert_looks_only_one_check")),
        sa.CheckConstraint("(wallet_tenant_id IS NULL) = (wallet_id IS NULL)", name=op.f("alert_looks_wallet_check")),
        sa.CheckConstraint(
            "(grant_ends_at IS NULL) = (grant_tenant_id IS NULL) AND (grant_ends_at IS NULL) = (grant_id IS NULL)",
            name=op.f("alert_looks_grant_check"),
        ),
        sa.PrimaryKeyConstraint("is_only", name=op.f("alert_looks_pkey")),
        comment="Where the look for what is low, and for what ends, goes on.",
    )
    op.execute("INSERT INTO alert_looks DEFAULT VALUES")
    protect(op.get_bind())
