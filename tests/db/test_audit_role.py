"""The role of the audit reads every table and writes none; what could write is refused, and so is what is not there."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors, sql

from billing.errors import AuditRefused
from db.audit_role import AUDIT_ROLE, is_ready, make_role, refuse_writers, take_on
from sandbox.postgres import PostgresServer
from services.oversight.audit import audit
from tests.conftest import forget

TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
SOMEBODY = "audit_test_somebody"


@pytest.fixture
def somebody(connection: psycopg.Connection) -> psycopg.Connection:
    """A role that may do nothing yet, in a transaction that is rolled back."""
    connection.execute(f"CREATE ROLE {SOMEBODY}".encode())
    return connection


@pytest.fixture
def somebodys_url(postgres: PostgresServer, database: str) -> Iterator[str]:
    """The address of a fresh database for a user that may log in, and read everything."""
    with psycopg.connect(database) as connection:
        connection.execute(f"CREATE ROLE {SOMEBODY} LOGIN; GRANT pg_read_all_data TO {SOMEBODY}".encode())
    yield database.replace("postgres@", f"{SOMEBODY}@", 1)
    with psycopg.connect(postgres.uri()) as connection:
        connection.execute(f"DROP ROLE {SOMEBODY}".encode())


@pytest.fixture
def settled(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """This process, set up to use the fresh database."""
    monkeypatch.setenv("CENTAVO_DATABASE_URL", database)
    forget()
    yield monkeypatch
    forget()


def test_migrating_makes_the_role_and_making_it_again_is_harmless(connection: psycopg.Connection) -> None:
    assert is_ready(connection)
    assert make_role(connection)


def test_the_role_reads_every_table_and_changes_none(connection: psycopg.Connection) -> None:
    """Not even where the transaction is not read-only."""
    tables = [str(name) for (name,) in connection.execute(TABLES)]
    take_on(connection)

    refuse_writers(connection)
    assert len(tables) > 30
    for table in tables:
        connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
        for change in ("DELETE FROM {}", "TRUNCATE {}", "INSERT INTO {} DEFAULT VALUES"):
            with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
                connection.execute(sql.SQL(change).format(sql.Identifier(table)))


@pytest.mark.parametrize(
    "grant",
    [
        "GRANT INSERT ON alerts TO {}",
        "GRANT UPDATE (balance) ON wallets TO {}",
        "GRANT TRUNCATE ON usage_events TO {}",
        "GRANT pg_write_all_data TO {}",
        "GRANT pg_write_all_data TO {} WITH INHERIT FALSE",
        "GRANT CREATE ON SCHEMA public TO {}",
        "ALTER ROLE {} SUPERUSER",
    ],
)
def test_a_role_that_could_write_is_refused(somebody: psycopg.Connection, grant: str) -> None:
    """Whatever the right came by, and though it would have to become another first."""
    somebody.execute(f"GRANT pg_read_all_data TO {SOMEBODY}".encode())
    somebody.execute(f"SET LOCAL ROLE {SOMEBODY}".encode())
    refuse_writers(somebody)
    somebody.execute("RESET ROLE")
    somebody.execute(grant.format(SOMEBODY).encode())
    somebody.execute(f"SET LOCAL ROLE {SOMEBODY}".encode())

    with pytest.raises(AuditRefused, match=f"{SOMEBODY} could write"):
        refuse_writers(somebody)


def test_who_may_not_take_the_role_on_is_told_what_to_do(somebody: psycopg.Connection) -> None:
    somebody.execute(f"SET LOCAL ROLE {SOMEBODY}".encode())

    assert not make_role(somebody)
    with pytest.raises(AuditRefused, match=f"GRANT {AUDIT_ROLE} TO {SOMEBODY}"):
        take_on(somebody)


def test_an_address_of_its_own_is_used_as_it_is(settled: pytest.MonkeyPatch, somebodys_url: str) -> None:
    """Its user needs no other role; the user of the database would be refused there."""
    settled.setenv("CENTAVO_AUDIT_DATABASE_URL", somebodys_url)
    forget()

    assert audit().differences == 0


def test_an_address_whose_user_could_write_is_refused(settled: pytest.MonkeyPatch, database: str) -> None:
    settled.setenv("CENTAVO_AUDIT_DATABASE_URL", database)
    forget()

    with pytest.raises(AuditRefused, match="postgres could write"):
        audit()
