"""Tables of the audit: when it runs next, and what it found."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Identity, Index, Table, event, text

from db.schema.base import Moment, Text, ddl, metadata, only_one_row, tenant_key

audit_turn = Table(
    "audit_turn",
    metadata,
    Column("is_only", Boolean, primary_key=True, server_default=text("true")),
    Column("due_at", Moment, comment="when the audit runs next; NULL before the first time"),
    Column("started_at", Moment, comment="of the last one"),
    Column("finished_at", Moment, comment="of the last one that came to its end"),
    only_one_row(),
    comment="When the audit runs by itself.",
)

# No foreign key: what is wrong may be of a tenant that is not there.
audit_differences = Table(
    "audit_differences",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("difference_id", BigInteger, Identity(always=True), nullable=False),
    Column("check_name", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="which row"),
    Column("expected", Text, nullable=False),
    Column("actual", Text, nullable=False),
    Column("times", BigInteger, nullable=False, server_default=text("1")),
    Column("first_seen_at", Moment, nullable=False),
    Column("last_seen_at", Moment, nullable=False),
    Column("resolved_at", Moment, comment="when an audit found it no longer"),
    tenant_key("difference_id"),
    Index(
        "audit_differences_standing",
        "tenant_id",
        "check_name",
        "subject",
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
    ),
    CheckConstraint("times > 0", name="times"),
    comment="What the audit found, once as long as it stands.",
)

event.listen(audit_turn, "after_create", ddl("INSERT INTO audit_turn DEFAULT VALUES"))
