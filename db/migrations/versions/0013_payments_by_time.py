"""A tenant's payments by when they were made: they are listed a page at a time."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX payments_of_tenant ON payments (tenant_id, created_at, payment_id)")
