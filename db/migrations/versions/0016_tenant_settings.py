"""What tenants set for themselves."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db.policies import protect

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(precision=38, scale=12)


def upgrade() -> None:
    op.create_table(
        "tenant_settings",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column(
            "free_tier_credits",
            MONEY,
            nullable=True,
            comment="NULL, here and below: as the installation's setting says",
        ),
        sa.Column("affordability_buffer", MONEY, nullable=True),
        sa.Column(
            "low_balance",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="below how much a wallet is low, by currency; '': in every other",
        ),
        sa.Column("audit_alert_percent", MONEY, nullable=True),
        sa.Column("audit_alert_value_percent", MONEY, nullable=True),
        sa.Column(
            "low_requests_per_minute",
            sa.Integer(),
            nullable=True,
            comment="of a customer whose wallet is low; NULL: any number",
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "free_tier_credits >= 0 AND audit_alert_percent >= 0 AND audit_alert_value_percent >= 0",
            name=op.f("tenant_settings_not_negative_check"),
        ),
        sa.CheckConstraint("affordability_buffer BETWEEN 1 AND 100", name=op.f("tenant_settings_buffer_check")),
        sa.CheckConstraint("jsonb_typeof(low_balance) = 'object'", name=op.f("tenant_settings_low_balance_check")),
        sa.CheckConstraint("low_requests_per_minute > 0", name=op.f("tenant_settings_low_requests_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("tenant_settings_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("tenant_settings_pkey")),
        comment="What a tenant has otherwise than the installation.",
    )
    protect(op.get_bind())
