"""Row-level security: which rows of each table the API's role may see and write.

The policies are written from what a table is: one with a `customer_id` shows a customer's rows to that customer, one
that hangs on a wallet or a payment follows it, any other of a tenant's is for the tenant as a whole. A table that says
nothing of a tenant shows nothing. So a new table is closed until somebody opens it here.

`protect` brings every table of `db.own` to that; a migration that makes a table calls it at its end, and a test fails
without.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, text

from db.own import TABLES

#: The transaction's own settings: whose rows, and, where it is set, which customer's of them.
#: What a transaction has set is empty after it, not absent: an empty name is none, least of all everybody's.
TENANT = "nullif(current_setting('centavo.tenant_id', true), '')"
CUSTOMER = "nullif(current_setting('centavo.customer_id', true), '')"

#: What a tenant has for all its customers: each of them may read it, none may write it.
SHARED = ("tenants", "plans", "tenant_settings")

#: Parts of a statement; they carry its number.
OF_STATEMENTS = ("statement_balances", "statement_lines")


class Policy(NamedTuple):
    """A policy of a table: for which command, for whom, and the rows that it lets through."""

    name: str
    command: str
    role: str
    rows: str


class Described(NamedTuple):
    """A table, its owner, and its columns."""

    name: str
    owner: str
    columns: frozenset[str]


_TABLES = text("""
SELECT c.relname, quote_ident(pg_get_userbyid(c.relowner)), array_agg(a.attname::text)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname = ANY (:own)
GROUP BY c.oid ORDER BY c.relname
""")


def protect(connection: Connection) -> None:
    """Write the policies of every table of ours that there is, anew; harmless when they stand already.

    The owner of the tables, who is the worker, and whoever may read all data, as the audit does, see all rows: their
    policies are constants, which Postgres folds away before it plans. All others see what the settings say.
    """
    for row in connection.execute(_TABLES, {"own": sorted(TABLES)}).all():
        table = Described(row[0], row[1], frozenset(row[2]))
        for statement in statements(table):
            connection.exec_driver_sql(statement)


def statements(table: Described) -> Iterator[str]:
    """What is to be run for a table."""
    yield f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY"
    yield f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY"
    for policy in policies(table):
        yield f"DROP POLICY IF EXISTS {policy.name} ON {table.name}"
        yield f"CREATE POLICY {policy.name} ON {table.name} FOR {policy.command} TO {policy.role} USING ({policy.rows})"


def policies(table: Described) -> Iterator[Policy]:
    """The policies of a table; those for everybody are what the API's role is given rights by."""
    yield Policy("owner_works", "ALL", table.owner, "true")
    yield Policy("reader_reads", "SELECT", "pg_read_all_data", "true")
    yield from (Policy(name, command, "PUBLIC", rows) for name, command, rows in _scoped(table))


def _scoped(table: Described) -> Iterator[tuple[str, str, str]]:
    special = _SPECIAL.get(table.name)
    if special is not None:
        yield from special()
    elif "tenant_id" in table.columns:
        mine = _customers(table)
        beyond = f"{CUSTOMER} IS NULL" + (f" OR {mine}" if mine else "")
        yield "scope_works", "ALL", f"tenant_id = {TENANT} AND ({beyond})"
        if table.name in SHARED:
            yield "scope_reads", "SELECT", f"tenant_id = {TENANT}"


def _customers(table: Described) -> str | None:
    """Which rows are a customer's own, in the scope of that customer."""
    if "customer_id" in table.columns:
        return f"customer_id = {CUSTOMER}"
    if table.name in OF_STATEMENTS:
        return _through("statements", "number")
    if "wallet_id" in table.columns:
        return _through("wallets", "wallet_id")
    return _through("payments", "payment_id") if "payment_id" in table.columns else None


def _through(table: str, column: str) -> str:
    """Rows that hang on one of the customer's rows of another table; those are looked up once a statement."""
    theirs = f"SELECT o.{column} FROM {table} o WHERE o.tenant_id = {TENANT} AND o.customer_id = {CUSTOMER}"  # noqa: S608 - words of ours
    return f"{column} = ANY (ARRAY({theirs}))"


def _prices() -> Iterator[tuple[str, str, str]]:
    yield "scope_works", "ALL", f"scope = {TENANT} AND {CUSTOMER} IS NULL"
    yield "scope_reads", "SELECT", f"scope IN ('', {TENANT}) AND {TENANT} IS NOT NULL"


def _book() -> Iterator[tuple[str, str, str]]:
    """Whoever adds a price, or a quota, moves the revision of its book."""
    yield "scope_works", "UPDATE", f"{TENANT} IS NOT NULL AND {CUSTOMER} IS NULL"
    yield "scope_reads", "SELECT", f"{TENANT} IS NOT NULL"


def _installation() -> Iterator[tuple[str, str, str]]:
    """A number that every payment's id follows from."""
    yield "scope_reads", "SELECT", f"{TENANT} IS NOT NULL"


def _webhooks() -> Iterator[tuple[str, str, str]]:
    """What Stripe told of one of the payments that are shown here; of what else it tells, nobody knows whose it is."""
    shown = f"SELECT FROM payments o WHERE o.tenant_id = {TENANT} AND o.payment_id = webhook_events.payment_id"
    yield "scope_reads", "SELECT", f"payment_id IS NOT NULL AND EXISTS ({shown})"


_SPECIAL: dict[str, Callable[[], Iterator[tuple[str, str, str]]]] = {
    "prices": _prices,
    "price_book": _book,
    "quota_book": _book,
    "installation": _installation,
    "webhook_events": _webhooks,
}
