"""Tables of archiving: what was written to files, and what stands in the ledger for what was taken out of it."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    Numeric,
    Table,
    event,
    text,
)

from db.schema.base import Moment, Money, Text, belongs_to, ddl, lasting, metadata, tenant_key

archives = Table(
    "archives",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("archive_id", BigInteger, Identity(always=True), nullable=False),
    Column("month", Text, nullable=False, comment="such as 2026-10: that of its periods"),
    Column("path", Text, nullable=False, comment="in which it has a folder, named by its number"),
    Column("begun_at", Moment, nullable=False, comment="its periods are chosen: nothing in them is corrected any more"),
    Column("written_at", Moment, comment="its files are written, and were read back"),
    Column("finished_at", Moment, comment="what is in them is no longer in the tables"),
    Column("events", BigInteger),
    Column("entries", BigInteger),
    Column("tokens", BigInteger),
    Column("cost", Money, comment="of all currencies together: a check sum"),
    Column("bytes", BigInteger),
    Column("sha256", LargeBinary),
    tenant_key("archive_id"),
    belongs_to("tenants"),
    # One at a time: two that share wallets would each hold what the other is to take out.
    Index("archives_unfinished", "tenant_id", unique=True, postgresql_where=text("finished_at IS NULL")),
    CheckConstraint(
        "num_nulls(written_at, events, entries, tokens, cost, bytes, sha256) IN (0, 7)"
        " AND (finished_at IS NULL OR written_at IS NOT NULL)",
        name="written",
    ),
    CheckConstraint("events >= 0 AND entries BETWEEN 0 AND events", name="numbers"),
    comment="Usage that was written to files: a month of a tenant's, or a part of it.",
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("wallet_id", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False, comment="of its entry"),
    Column("entries", BigInteger, nullable=False, comment="how many entries of usage it stands for"),
    Column("usage_hash", Numeric, nullable=False, comment="the sum of their hashes, as the audit reckons them"),
    Column("kept_hash", Numeric, nullable=False, comment="by how much the entries kept before it break the chain"),
    Column("occurred_from", Moment, nullable=False, comment="of the earliest usage that it stands for"),
    Column("archive_id", BigInteger, nullable=False, comment="the latest of which it stands for something"),
    Column("at", Moment, nullable=False),
    tenant_key("wallet_id"),
    belongs_to("wallets", "wallet_id"),
    ForeignKeyConstraint(["tenant_id", "archive_id"], ["archives.tenant_id", "archives.archive_id"]),
    CheckConstraint("entries > 0 AND seq >= entries", name="numbers"),
    comment="What a wallet's entry of that kind stands for: all entries of usage up to it, which are archived.",
)

#: Not who asks decides, but what is true: only what a checkpoint stands for may go, while its archive is emptied into.
_REFUSE_CHANGE_OF_LEDGER = ddl("""
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
""")
event.listen(metadata, "before_create", _REFUSE_CHANGE_OF_LEDGER)
lasting(checkpoints, "tenant_id", "wallet_id")
