"""What all tables share: their metadata, column types, keys, and rows that stay as they were written."""

from collections.abc import Iterable

import sqlalchemy
from sqlalchemy import (
    DDL,
    CheckConstraint,
    DateTime,
    ForeignKeyConstraint,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    event,
)

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(referred_table_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

#: Compared byte by byte, as this code does, whatever the database's own language is. And a collation of the system's
#: may be another after an upgrade of it: an index on keys would miss what is there, and an event be charged twice.
Text = sqlalchemy.Text(collation="C")
Moment = DateTime(timezone=True)
Money = Numeric(38, 12)


def one_of(column: str, values: Iterable[str]) -> str:
    """The CHECK that keeps a text column to the words given."""
    words = ", ".join(f"'{value}'" for value in sorted(str(value) for value in values))
    return f"{column} IN ({words})"


def only_one_row() -> CheckConstraint:
    """For a table whose key is a boolean: it has one row."""
    return CheckConstraint("is_only", name="only_one")


def tenant_key(*columns: str) -> PrimaryKeyConstraint:
    return PrimaryKeyConstraint("tenant_id", *columns)


def belongs_to(table: str, *columns: str) -> ForeignKeyConstraint:
    names = ["tenant_id", *columns]
    return ForeignKeyConstraint(names, [f"{table}.{name}" for name in names])


def ddl(statement: str) -> DDL:
    """A statement that `create_all` runs as it is written."""
    return DDL(statement.replace("%", "%%"))  # DDL takes a percent sign for a place to fill


REFUSE_CHANGE = ddl("""
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% refused: rows of % are never changed or removed', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'write a correcting entry instead';
END $$
""")
event.listen(metadata, "before_create", REFUSE_CHANGE)


def lasting(table: Table, *key: str) -> None:
    """Rows of this table keep their key and never go away: what refers to them needs no foreign key for that.

    The foreign keys of `usage_events` and `ledger_entries` cost 8 of 66 microseconds an event, and a write to
    the customer's row for each. Both insert only what they have read in the same transaction; that it can't be
    removed is what was left to guarantee. The audit looks for strays all the same.
    """
    _refused(table, "lasting", f"DELETE OR UPDATE OF {', '.join(key)}")


def immutable(table: Table, judge: str = "refuse_change") -> None:
    """Rows of this table are never changed or removed, but for what the judge of a row lets pass."""
    _refused(table, "immutable", "UPDATE OR DELETE", judge)


def _refused(table: Table, name: str, changes: str, judge: str = "refuse_change") -> None:
    for scope, when, each in (("row", changes, "ROW"), ("all", "TRUNCATE", "STATEMENT")):
        function = judge if scope == "row" else "refuse_change"
        trigger = ddl(
            f"CREATE TRIGGER {table.name}_{name}_{scope} BEFORE {when} ON {table.name} "
            f"FOR EACH {each} EXECUTE FUNCTION {function}()"
        )
        event.listen(table, "after_create", trigger)
