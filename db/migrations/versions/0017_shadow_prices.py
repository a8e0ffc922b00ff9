"""Price lists that are rated beside the live one."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db.policies import protect

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(precision=38, scale=12)


def upgrade() -> None:
    op.create_table(
        "shadow_lists",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "prices",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="those that come before the book's",
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="what is charged from then on is rated by it, too",
        ),
        sa.Column("stopped_at", sa.DateTime(timezone=True), nullable=True, comment="and before this"),
        sa.CheckConstraint("name <> ''", name=op.f("shadow_lists_name_check")),
        sa.CheckConstraint("stopped_at >= started_at", name=op.f("shadow_lists_span_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("shadow_lists_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("shadow_lists_pkey")),
        comment="A price list that is tried beside the live one.",
    )
    op.create_table(
        "shadow_periods",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False, comment="of the period, when it was rated last"),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("rated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "due_at", sa.DateTime(timezone=True), nullable=False, comment="it is not rated again before this"
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "name"],
            ["shadow_lists.tenant_id", "shadow_lists.name"],
            name=op.f("shadow_periods_shadow_lists_fkey"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "name", "customer_id", "period_start", name=op.f("shadow_periods_pkey")
        ),
        comment="How far a period was rated by a list beside the live one.",
    )
    op.create_table(
        "shadow_sums",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="on which it occurred, in UTC"),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column(
            "unrated",
            sa.BigInteger(),
            nullable=False,
            comment="of these, which the list can't rate: they count as live",
        ),
        sa.Column("live", MONEY, nullable=False),
        sa.Column("shadow", MONEY, nullable=False),
        sa.CheckConstraint("events > 0 AND unrated BETWEEN 0 AND events", name=op.f("shadow_sums_events_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "name"],
            ["shadow_lists.tenant_id", "shadow_lists.name"],
            name=op.f("shadow_sums_shadow_lists_fkey"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "name", "customer_id", "period_start", "day", "currency", name=op.f("shadow_sums_pkey")
        ),
        comment="What a customer's usage of a day costs, and would cost by a list beside the live one.",
    )
    protect(op.get_bind())
