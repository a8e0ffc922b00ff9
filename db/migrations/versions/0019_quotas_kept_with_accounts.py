"""A change of a customer's own quota moves the revision of its account."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TOUCH = """
CREATE OR REPLACE FUNCTION touch_account_of_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE wallets SET account_revision = account_revision + 1
    WHERE tenant_id = NEW.tenant_id AND customer_id = NEW.subject;
    RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.execute(TOUCH)
    op.execute(
        "CREATE TRIGGER quotas_touch_account AFTER INSERT OR UPDATE ON quotas FOR EACH ROW "
        "WHEN (NEW.scope = 'customer' AND NEW.subject <> '') EXECUTE FUNCTION touch_account_of_quota()"
    )
