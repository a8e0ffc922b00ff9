"""What an operator looks at: beat's last tick, payments that are not over; and a tenant its own payments' webhooks."""

import sqlalchemy as sa
from alembic import op

from db.policies import protect

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "last_seen",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "ticked_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="a tick of beat's came through to a worker; NULL before the first time",
        ),
        sa.Column(
            "stripe_reached_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="a worker reached Stripe; likewise",
        ),
        sa.CheckConstraint("is_only", name=op.f("last_seen_only_one_check")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("last_seen_pkey")),
        comment="When what everything waits for was last seen at work.",
    )
    op.execute("INSERT INTO last_seen DEFAULT VALUES")
    op.create_index(
        "payments_open",
        "payments",
        ["state"],
        postgresql_where=sa.text("NOT (state IN ('partially_refunded', 'refunded', 'succeeded', 'voided'))"),
    )
    protect(op.get_bind())
