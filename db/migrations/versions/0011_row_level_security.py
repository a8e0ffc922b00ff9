"""Row-level security on every table, forced; the policies are those of `db.policies`."""

from alembic import op

from db.policies import protect

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER VIEW grants_remaining SET (security_invoker = true)")
    protect(op.get_bind())
