"""JSON in usage events has no statistics: no query chooses by it."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE usage_events ALTER COLUMN items SET STATISTICS 0, ALTER COLUMN metadata SET STATISTICS 0")
