"""Up to which price parked events were replayed by themselves."""

import sqlalchemy as sa
from alembic import op

from db.policies import protect

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "price_replays",
        sa.Column("is_only", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "done_price_id",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="what waited for prices up to this one was tried again, for good",
        ),
        sa.Column(
            "seen_price_id",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="the last price that a pass has begun for",
        ),
        sa.Column(
            "again_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when those are looked for once more; NULL: not needed",
        ),
        sa.Column(
            "is_last",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="no pass follows this one",
        ),
        sa.Column(
            "place_tenant_id",
            sa.Text(),
            nullable=True,
            comment="the event that the pass under way came to; NULL: none is under way",
        ),
        sa.Column("place_recorded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("place_key", sa.Text(), nullable=True),
        sa.CheckConstraint("is_only", name=op.f("price_replays_only_one_check")),
        sa.CheckConstraint("done_price_id <= seen_price_id", name=op.f("price_replays_order_check")),
        sa.CheckConstraint(
            "(place_tenant_id IS NULL) = (place_recorded_at IS NULL) AND "
            "(place_tenant_id IS NULL) = (place_key IS NULL)",
            name=op.f("price_replays_place_check"),
        ),
        sa.PrimaryKeyConstraint("is_only", name=op.f("price_replays_pkey")),
        comment="Up to which price parked events were replayed by themselves, and where the pass under way stands.",
    )
    op.execute("INSERT INTO price_replays DEFAULT VALUES")
    protect(op.get_bind())
