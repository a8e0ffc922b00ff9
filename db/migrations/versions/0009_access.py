"""Access: servers' keys, requests under idempotency keys, the trail of administrators' acts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="for people: which server has it"),
        sa.Column(
            "secret_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="SHA-256 of the key; the key itself is nowhere",
        ),
        sa.Column("capabilities", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 128", name=op.f("api_keys_name_check")),
        sa.CheckConstraint("octet_length(secret_hash) = 32", name=op.f("api_keys_secret_hash_check")),
        sa.CheckConstraint(
            "cardinality(capabilities) > 0"
            " AND capabilities <@ ARRAY['billing.admin', 'billing.view', 'billing.write']::text[]",
            name=op.f("api_keys_capabilities_check"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("api_keys_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "key_id", name=op.f("api_keys_pkey")),
        comment="What servers ask with. Revoked ones stay, so that it can be told whose they were.",
    )
    op.create_index("api_keys_secret_hash", "api_keys", ["secret_hash"])
    op.create_table(
        "idempotent_requests",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False, comment="method and path"),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of what was asked for"),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False, comment="when it was asked for first"),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True, comment="the JSON that was answered, letter by letter"),
        sa.CheckConstraint("octet_length(body_hash) = 32", name=op.f("idempotent_requests_body_hash_check")),
        sa.CheckConstraint(
            "num_nulls(answered_at, status, answer) IN (0, 3)", name=op.f("idempotent_requests_answered_check")
        ),
        sa.CheckConstraint("status BETWEEN 200 AND 299", name=op.f("idempotent_requests_status_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("idempotent_requests_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "idempotency_key", name=op.f("idempotent_requests_pkey")),
        comment="Which request an idempotency key belongs to, and what it was answered.",
    )
    op.create_table(
        "admin_acts",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("act_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "subject", sa.Text(), nullable=False, comment="who: of a token its subject, of a server its key"
        ),
        sa.Column("through", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False, comment="to what or whom"),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column(
            "detail", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.CheckConstraint(
            "through IN ('api_key', 'command_line', 'token')", name=op.f("admin_acts_through_check")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("admin_acts_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "act_id", name=op.f("admin_acts_pkey")),
        comment="Who asked for what only administrators may, written before it is done. Never changed.",
    )
    for name, changes in {
        "api_keys_lasting": "DELETE OR UPDATE OF tenant_id, key_id, secret_hash, capabilities",
        "admin_acts_immutable": "UPDATE OR DELETE",
    }.items():
        table = name.rpartition("_")[0]
        op.execute(
            f"CREATE TRIGGER {name}_row BEFORE {changes} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {name}_all BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
