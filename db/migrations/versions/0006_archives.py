"""Archives: old usage in files, and checkpoints in the ledger for it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ENTRY_KINDS = (
    "kind IN ('adjustment', 'breakage', 'checkpoint', 'correction', 'grant', 'purchase', 'refund', 'reversal', "
    "'subscription', 'usage', 'void')"
)

REFUSE_CHANGE_OF_LEDGER = """
CREATE OR REPLACE FUNCTION refuse_change_of_ledger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.kind IN ('usage', 'checkpoint') THEN
        PERFORM FROM checkpoints c
        JOIN archives a ON a.tenant_id = c.tenant_id AND a.archive_id = c.archive_id
        WHERE c.tenant_id = OLD.tenant_id AND c.wallet_id = OLD.wallet_id
            AND (c.seq > OLD.seq OR (c.seq = OLD.seq AND OLD.kind = 'usage'))
            AND a.written_at IS NOT NULL AND a.finished_at IS NULL;
        IF FOUND THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION '% refused: rows of % are never changed or removed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'write a correcting entry instead';
END $$
"""


def upgrade() -> None:
    op.create_table(
        "archives",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("archive_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("month", sa.Text(), nullable=False, comment="such as 2026-10: that of its periods"),
        sa.Column("path", sa.Text(), nullable=False, comment="in which it has a folder, named by its number"),
        sa.Column(
            "begun_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="its periods are chosen: nothing in them is corrected any more",
        ),
        sa.Column(
            "written_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="its files are written, and were read back",
        ),
        sa.Column(
            "finished_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="what is in them is no longer in the tables",
        ),
        sa.Column("events", sa.BigInteger(), nullable=True),
        sa.Column("entries", sa.BigInteger(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), nullable=True),
        sa.Column(
            "cost",
            sa.Numeric(precision=38, scale=12),
            nullable=True,
            comment="of all currencies together: a check sum",
        ),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "num_nulls(written_at, events, entries, tokens, cost, bytes, sha256) IN (0, 7)"
            " AND (finished_at IS NULL OR written_at IS NOT NULL)",
            name=op.f("archives_written_check"),
        ),
        sa.CheckConstraint("events >= 0 AND entries BETWEEN 0 AND events", name=op.f("archives_numbers_check")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"], name=op.f("archives_tenants_fkey")),
        sa.PrimaryKeyConstraint("tenant_id", "archive_id", name=op.f("archives_pkey")),
        comment="Usage that was written to files: a month of a tenant's, or a part of it.",
    )
    op.create_index(
        "archives_unfinished",
        "archives",
        ["tenant_id"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("wallet_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="of its entry"),
        sa.Column("entries", sa.BigInteger(), nullable=False, comment="how many entries of usage it stands for"),
        sa.Column(
            "usage_hash", sa.Numeric(), nullable=False, comment="the sum of their hashes, as the audit reckons them"
        ),
        sa.Column(
            "kept_hash",
            sa.Numeric(),
            nullable=False,
            comment="by how much the entries kept before it break the chain",
        ),
        sa.Column(
            "occurred_from",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="of the earliest usage that it stands for",
        ),
        sa.Column(
            "archive_id", sa.BigInteger(), nullable=False, comment="the latest of which it stands for something"
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("entries > 0 AND seq >= entries", name=op.f("checkpoints_numbers_check")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "wallet_id"],
            ["wallets.tenant_id", "wallets.wallet_id"],
            name=op.f("checkpoints_wallets_fkey"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "archive_id"],
            ["archives.tenant_id", "archives.archive_id"],
            name=op.f("checkpoints_archives_fkey"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "wallet_id", name=op.f("checkpoints_pkey")),
        comment="What a wallet's entry of that kind stands for: all entries of usage up to it, which are archived.",
    )
    op.add_column(
        "usage_events",
        sa.Column(
            "archive_id",
            sa.BigInteger(),
            nullable=True,
            comment="where its lines and its context are, and its entry",
        ),
    )
    op.add_column(
        "periods",
        sa.Column(
            "archive_id",
            sa.BigInteger(),
            nullable=True,
            comment="the archive that its usage goes to: nothing in it is corrected",
        ),
    )
    op.create_check_constraint(
        op.f("periods_archived_check"), "periods", "archive_id IS NULL OR statement_number IS NOT NULL"
    )
    op.drop_constraint(op.f("ledger_entries_kind_check"), "ledger_entries", type_="check")
    op.create_check_constraint(op.f("ledger_entries_kind_check"), "ledger_entries", ENTRY_KINDS)
    op.create_table_comment(
        "ledger_entries",
        "One movement between a wallet and a named contra account. Never changed; old usage is archived.",
    )
    op.execute(REFUSE_CHANGE_OF_LEDGER)
    op.execute(
        "CREATE OR REPLACE TRIGGER ledger_entries_immutable_row BEFORE UPDATE OR DELETE ON ledger_entries "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change_of_ledger()"
    )
    op.execute(
        "CREATE TRIGGER checkpoints_lasting_row BEFORE DELETE OR UPDATE OF tenant_id, wallet_id ON checkpoints "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER checkpoints_lasting_all BEFORE TRUNCATE ON checkpoints "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
