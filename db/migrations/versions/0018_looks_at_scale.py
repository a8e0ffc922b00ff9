"""What is looked at some at a time, and JSON that no query chooses by."""

from alembic import op

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
