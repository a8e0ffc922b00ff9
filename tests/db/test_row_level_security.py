"""Every table, looked at by a stranger and by a fellow customer under the API's role: nothing of others is there.

The tables are those of the database, not of a list: a new one without a policy, or without a row to hide, fails here.
"""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors, sql
from sqlalchemy import create_engine

from db.api_role import is_ready, make_role
from db.audit_role import AUDIT_ROLE
from db.policies import protect
from db.scope import API_ROLE
from tests.db.valid_rows import STANDING, another, insert, stand

TENANT, OWNER, FELLOW, STRANGER = "acme", "ana", "fay", "stranger"

#: What anybody sees in whose name a transaction runs, and why.
FOR_EVERYBODY = {
    "prices": "those that hold for everybody; a tenant's own are hidden from others",
    "price_book": "a number: how often prices were added to",
    "quota_book": "a number: how often quotas were changed",
    "installation": "a number, which payments' ids are made from",
}

#: Rows that say nothing of a tenant, and are those of whoever may see a payment.
THROUGH_PAYMENTS = {"webhook_events"}

#: What a tenant's customers have in common.
FOR_CUSTOMERS = {
    "tenants": "the tenant that they are customers of",
    "plans": "what the tenant offers",
    "tenant_settings": "what the tenant has set for all of them",
}

EVERYTHING = """
    SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    ORDER BY c.relname
"""

#: What makes a row of theirs of those tables that `valid_rows` has none of, or none of the tenant's.
ONLY = {"is_only": True}
#: One row of its own tenant's scope, of prices, so that hiding it can be seen.
OF_ACME = STANDING["prices"] | {"scope": TENANT, "model": "of acme"}

ADDED = dict.fromkeys(
    (
        *("installation", "price_book", "quota_book", "collecting_switch"),
        *("audit_turn", "last_seen", "price_replays", "alert_looks"),
    ),
    ONLY,
) | {
    "prices": OF_ACME,
    "alembic_version": {"version_num": "1"},
}

Found = dict[str, int | None]
"""table: rows that are seen there; None where the table itself is denied"""


@pytest.fixture(scope="module")
def standing_database(shared_database: str) -> str:
    """One right row in each table, all of them ana's or her tenant's, and a second tenant without rows."""
    with psycopg.connect(shared_database) as connection:
        stand(connection)
        insert(connection, "prices", OF_ACME)
        insert(connection, "tenants", STANDING["tenants"] | {"tenant_id": STRANGER})
    return shared_database


@pytest.fixture
def standing(standing_database: str) -> Iterator[psycopg.Connection]:
    """A transaction among those rows that is rolled back."""
    with psycopg.connect(standing_database) as connection:
        yield connection
        connection.rollback()


def become(connection: psycopg.Connection, tenant_id: str | None, customer_id: str | None = None) -> None:
    """As `db.scope` says it; without a tenant nothing is set at all."""
    connection.execute(f"SET LOCAL ROLE {API_ROLE}".encode())
    for name, value in (("tenant_id", tenant_id), ("customer_id", customer_id)):
        if value is not None:
            connection.execute("SELECT set_config(%s, %s, true)", (f"centavo.{name}", value))


def tables(connection: psycopg.Connection, *kinds: str) -> list[str]:
    found = connection.execute(EVERYTHING).fetchall()
    assert {schema for schema, _, _ in found} == {"public"}, "a further schema: these tests would have to walk it"
    return [name for _, name, kind in found if kind in (kinds or ("r", "p", "v", "m", "f"))]


def counted(connection: psycopg.Connection, where: str = "true") -> Found:
    """How many rows are seen in everything that can be read from."""
    found: Found = {}
    for table in tables(connection):
        try:
            with connection.transaction():
                row = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}".encode()).fetchone()
                found[table] = row[0] if row else None
        except (errors.InsufficientPrivilege, errors.UndefinedColumn):
            found[table] = None
    return found


def seen(found: Found) -> set[str]:
    return {table for table, rows in found.items() if rows}


def test_there_is_something_to_hide_in_every_table(standing: psycopg.Connection) -> None:
    """Else the walks below would prove nothing about it; a new table comes with a row in `valid_rows`."""
    standing.execute("SELECT set_config('centavo.tenant_id', %s, true)", (TENANT,))
    found = counted(standing)

    assert len(found) > 40
    assert {table for table, rows in found.items() if not rows} == set()


@pytest.mark.parametrize(
    ("tenant_id", "customer_id", "but_for"),
    [
        (STRANGER, None, {"tenants"}),
        (STRANGER, OWNER, {"tenants"}),
        ("nobody", None, set()),
        (TENANT, FELLOW, set(FOR_CUSTOMERS)),
    ],
)
def test_nothing_of_others_is_seen_in_any_table(
    standing: psycopg.Connection, tenant_id: str, customer_id: str | None, but_for: set[str]
) -> None:
    """Nor in any view. A stranger's own tenant is there; a customer of the same name is another's."""
    become(standing, tenant_id, customer_id)

    found = counted(standing)

    assert seen(found) == set(FOR_EVERYBODY) | but_for
    assert found["tenants"] == len(but_for & {"tenants"})
    scopes = standing.execute("SELECT DISTINCT scope FROM prices").fetchall()
    assert {scope for (scope,) in scopes} == ({"", TENANT} if tenant_id == TENANT else {""})


def test_without_a_tenant_nothing_is_seen_at_all(standing: psycopg.Connection) -> None:
    """Neither when nothing was set, nor when it was set to nothing, which is what remains of it after a transaction."""
    become(standing, None)
    with pytest.raises(errors.InvalidParameterValue), standing.transaction():
        standing.execute("SELECT * FROM token_consumption")
    plain = tables(standing, "r", "p")
    for tenant_id in (None, ""):
        become(standing, tenant_id, None)
        for table in plain:
            try:
                with standing.transaction():
                    rows = standing.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall()
            except errors.InsufficientPrivilege:
                continue
            assert rows == [], table


def test_a_tenant_sees_all_of_its_own_and_nothing_else(standing: psycopg.Connection) -> None:
    """The other side of it: policies that hide everything would be of no use."""
    standing.execute("SELECT set_config('centavo.tenant_id', %s, true)", (TENANT,))
    theirs = {table: rows for table, rows in counted(standing, f"tenant_id = '{TENANT}'").items() if rows}
    become(standing, TENANT)

    found = counted(standing)

    assert {table: found[table] for table in theirs} == theirs
    assert seen(found) == theirs.keys() | FOR_EVERYBODY.keys() | THROUGH_PAYMENTS


#: Rows of the tenant's that none of its customers sees: they are about all of them.
OF_THE_TENANT = {
    "admin_acts",
    "alert_deliveries",
    "api_keys",
    "archives",
    "audit_differences",
    "idempotent_requests",
    "limit_warnings",
    "quota_counts",
    "quotas",
    "shadow_lists",
    "statement_numbers",
    "webhook_endpoints",
}


def test_a_customer_sees_her_own_rows(standing: psycopg.Connection) -> None:
    become(standing, TENANT)
    of_tenant = seen(counted(standing))
    become(standing, TENANT, OWNER)

    found = counted(standing)

    # Of these, the rows that stand say nothing of a customer.
    nobodys = {"alerts"}
    assert of_tenant - seen(found) == OF_THE_TENANT | nobodys
    assert found["customers"] == 1
    assert standing.execute("SELECT count(*) FROM wallets WHERE customer_id <> %s", (OWNER,)).fetchone() == (0,)


@pytest.mark.parametrize(("tenant_id", "customer_id"), [(STRANGER, None), (TENANT, FELLOW), ("nobody", OWNER)])
def test_no_row_of_others_is_written(standing: psycopg.Connection, tenant_id: str, customer_id: str | None) -> None:
    """Neither changed, nor removed, nor added in their name, in any table."""
    become(standing, tenant_id, customer_id)

    for table in tables(standing, "r", "p"):
        for statement in ("DELETE FROM {}", "UPDATE {} SET {} = {}"):
            column = sql.Identifier(_a_column(standing, table))
            change = sql.SQL(statement).format(sql.Identifier(table), column, column)
            may_touch = (
                {"price_book", "quota_book"} if statement.startswith("UPDATE") and customer_id is None else set()
            )
            own = {"tenants"} if tenant_id == STRANGER else set()
            try:
                with standing.transaction() as undone:
                    changed = standing.execute(change).rowcount
                    assert changed == 0 or table in may_touch | own, (table, statement)
                    raise psycopg.Rollback(undone)
            except errors.InsufficientPrivilege:
                pass
            except errors.IntegrityConstraintViolation:
                assert table in own
        with pytest.raises(errors.InsufficientPrivilege), standing.transaction():
            insert(standing, table, another(table, **ADDED.get(table, {})))
        with pytest.raises(errors.InsufficientPrivilege), standing.transaction():
            standing.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.Identifier(table)))


def _a_column(connection: psycopg.Connection, table: str) -> str:
    """A column that may be set at all."""
    row = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attidentity = '' ORDER BY attnum LIMIT 1",
        (table,),
    ).fetchone()
    assert row is not None
    return str(row[0])


def test_a_row_can_not_be_given_away(standing: psycopg.Connection) -> None:
    """A tenant changes its own row, and can't make it another's."""
    become(standing, TENANT)

    assert standing.execute("UPDATE alerts SET times = 2").rowcount > 0
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        standing.execute("UPDATE alerts SET tenant_id = %s", (STRANGER,))


def test_security_is_forced_on_every_table(connection: psycopg.Connection) -> None:
    """For the owner, too, whose policy lets everything through and says so."""
    lax = connection.execute("""
        SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
            AND NOT (relrowsecurity AND relforcerowsecurity)
    """).fetchall()

    assert lax == [("alembic_version",)]


def test_every_view_reads_as_whoever_asks(connection: psycopg.Connection) -> None:
    """Else it would read as its owner, who sees everybody's rows."""
    views = connection.execute("""
        SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')
    """).fetchall()

    assert {name for name, _ in views} >= {"token_consumption", "token_billing_charges", "token_usage_summary"}
    assert all(options == ["security_invoker=true"] for _, options in views)


def test_no_function_runs_as_its_owner(connection: psycopg.Connection) -> None:
    """It would see everybody's rows for whoever may call it."""
    definers = connection.execute("""
        SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
    """).fetchall()

    assert definers == []


def test_the_role_is_there_and_can_not_bypass(connection: psycopg.Connection) -> None:
    assert is_ready(connection)
    assert make_role(connection)


@pytest.mark.parametrize(
    "grant",
    [
        "ALTER ROLE centavo_api SUPERUSER",
        "ALTER ROLE centavo_api BYPASSRLS",
        "GRANT pg_read_all_data TO centavo_api",
        "CREATE ROLE an_owner; ALTER TABLE wallets OWNER TO an_owner; GRANT an_owner TO centavo_api",
    ],
)
def test_a_role_that_could_see_everything_is_not_taken_for_ready(connection: psycopg.Connection, grant: str) -> None:
    connection.execute(grant.encode())

    assert not is_ready(connection)
    assert not make_role(connection)


def test_protecting_again_changes_nothing(shared_database: str) -> None:
    policies = "SELECT tablename, policyname, cmd, roles::text, qual FROM pg_policies ORDER BY 1, 2"
    with psycopg.connect(shared_database) as connection:
        before = connection.execute(policies).fetchall()
    engine = create_engine(shared_database.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as connection_of_alembic:
        protect(connection_of_alembic)
    engine.dispose()

    with psycopg.connect(shared_database) as connection:
        assert connection.execute(policies).fetchall() == before


def test_a_new_table_is_closed_until_it_is_opened(standing: psycopg.Connection) -> None:
    """One that nobody has thought of: the role has no right to it, whatever is in it."""
    standing.execute("CREATE TABLE forgotten (tenant_id text, secret text)")
    standing.execute("INSERT INTO forgotten VALUES ('acme', 'x')")
    become(standing, TENANT)

    with pytest.raises(errors.InsufficientPrivilege):
        standing.execute("SELECT * FROM forgotten")


def test_the_audit_reads_everything(standing: psycopg.Connection) -> None:
    """It would find nothing wrong in tables of which it sees nothing."""
    standing.execute("SELECT set_config('centavo.tenant_id', %s, true)", (TENANT,))
    everything = counted(standing)
    standing.execute(f"SET LOCAL ROLE {AUDIT_ROLE}".encode())

    assert counted(standing) == everything
