"""What remains of open grants stands on the wallet's own row."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WALLETS_KEEP_THEIR_GRANTS = """
UPDATE wallets w SET open_grants = g.kept FROM (
    SELECT tenant_id, wallet_id, json_agg(
        json_build_array(grant_id, remaining::text, valid_from, expires_at, priority, number)
        ORDER BY priority, expires_at NULLS LAST, number
    )::text AS kept
    FROM credit_grants WHERE remaining > 0 GROUP BY tenant_id, wallet_id
) g
WHERE w.tenant_id = g.tenant_id AND w.wallet_id = g.wallet_id
"""
GRANTS_REMAINING = """
CREATE VIEW grants_remaining AS
SELECT g.*, coalesce(kept.remaining, 0) AS remaining
FROM credit_grants g
JOIN wallets w ON w.tenant_id = g.tenant_id AND w.wallet_id = g.wallet_id
LEFT JOIN LATERAL (
    SELECT (one->>1)::numeric AS remaining FROM json_array_elements(w.open_grants::json) AS one
    WHERE one->>0 = g.grant_id::text
) kept ON true
"""


def upgrade() -> None:
    op.add_column(
        "wallets",
        sa.Column(
            "open_grants",
            sa.Text(),
            server_default=sa.text("'[]'"),
            nullable=False,
            comment="JSON, in burn order: [[grant_id, remaining, valid_from, expires_at, priority, number], ...]",
        ),
    )
    op.execute(WALLETS_KEEP_THEIR_GRANTS)
    op.drop_constraint(op.f("credit_grants_ended_check"), "credit_grants", type_="check")
    op.drop_constraint(op.f("credit_grants_amounts_check"), "credit_grants", type_="check")
    op.drop_column("credit_grants", "remaining")
    op.create_check_constraint(
        op.f("credit_grants_amounts_check"), "credit_grants", "amount > 0 AND paid_debt >= 0"
    )
    op.execute("ALTER TABLE credit_grants RESET (fillfactor)")
    op.create_table_comment(
        "credit_grants", "Value given to a wallet: from where and for when. What remains of it, its wallet keeps."
    )
    op.execute(GRANTS_REMAINING)
