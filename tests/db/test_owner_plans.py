"""A database whose owner is nobody special, as managed ones are: the worker's plans carry nothing of the policies."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from billing.errors import DatabaseUnavailable, NotFound
from db import api_role, audit_role
from db.migrate import migrate
from db.scope import API_ROLE, as_tenant
from sandbox.postgres import PostgresServer
from services.desk import wallets
from services.metering.redelivery import record_in_parts
from services.metering.usage import Outcome, record_usage
from services.oversight.audit import audit
from tests.conftest import forget
from tests.db.valid_rows import STANDING, insert
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens

OWNER = "test_plain_owner"
TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
A_COLUMN = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND attidentity = '' LIMIT 1"
FILTERS = ("Filter", "current_setting", "InitPlan", "SubPlan")


@pytest.fixture(scope="module")
def owned(postgres: PostgresServer) -> Iterator[str]:
    """The address of a database for its owner, who may log in, and make tables there."""
    name = f"owned_{uuid4().hex}"
    postgres.create_database(name)
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {OWNER} LOGIN; ALTER DATABASE {name} OWNER TO {OWNER}".encode())
    url = postgres.uri(name).replace("postgres@", f"{OWNER}@", 1)
    migrate(url)
    yield url
    postgres.drop_database(name)
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        connection.execute(f"DROP ROLE {OWNER}".encode())


@pytest.fixture(scope="module")
def granted(owned: str, postgres: PostgresServer) -> str:
    """The same, after an administrator has done what its owner may not, and it was migrated again."""
    with psycopg.connect(owned) as connection:
        assert not api_role.is_ready(connection)
        assert not api_role.make_role(connection)
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        connection.execute(f"GRANT {API_ROLE} TO {OWNER}; GRANT {audit_role.AUDIT_ROLE} TO {OWNER}".encode())
    migrate(owned)
    return owned


@pytest.fixture
def settled(granted: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process, set up to use that database as its owner."""
    monkeypatch.setenv("CENTAVO_DATABASE_URL", granted)
    monkeypatch.setenv("CENTAVO_ENVIRONMENT", "sandbox")
    forget()
    yield
    forget()


def plans(connection: psycopg.Connection, table: str, *statements: str) -> str:
    row = connection.execute(A_COLUMN, (table,)).fetchone()
    assert row is not None
    said: list[str] = []
    for statement in statements:
        filled = f"EXPLAIN (VERBOSE, COSTS OFF) {statement}".format(table=table, column=row[0])
        said += [str(line) for (line,) in connection.execute(filled.encode()).fetchall()]
    return "\n".join(said)


EVERYTHING = "SELECT * FROM {table}", "UPDATE {table} SET {column} = {column}", "DELETE FROM {table}"


def test_the_owner_is_nobody_special(owned: str) -> None:
    with psycopg.connect(owned) as connection:
        row = connection.execute("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user").fetchone()

        assert row == (False, False)
        assert connection.execute("SELECT row_security_active('wallets')").fetchone() == (True,)


def test_no_plan_of_the_owners_has_a_condition_more(owned: str) -> None:
    """Security is forced on the owner, and its policy is folded away: reading, changing and removing are as before."""
    with psycopg.connect(owned) as connection:
        for (table,) in connection.execute(TABLES).fetchall():
            plan = plans(connection, table, *EVERYTHING)

            assert not any(word in plan for word in FILTERS), plan


def test_no_plan_of_the_audits_has_a_condition_more(granted: str) -> None:
    with psycopg.connect(granted) as connection:
        found = connection.execute(TABLES).fetchall()
        audit_role.take_on(connection)
        for (table,) in found:
            plan = plans(connection, table, "SELECT * FROM {table}")

            assert not any(word in plan for word in FILTERS), plan


def test_every_plan_of_the_apis_has_one(granted: str) -> None:
    """Else the tests above would look for the wrong words."""
    with psycopg.connect(granted) as connection:
        found = [table for (table,) in connection.execute(TABLES).fetchall()]
        connection.execute(f"SET LOCAL ROLE {API_ROLE}".encode())
        looked_at = 0
        for table in found:
            try:
                with connection.transaction():
                    plan = plans(connection, table, "SELECT * FROM {table}")
            except errors.InsufficientPrivilege:
                continue
            looked_at += 1
            assert "current_setting" in plan, plan

        assert looked_at > 25


def test_an_owner_who_wants_no_policies_applied_is_refused(owned: str) -> None:
    """As `pg_dump` asks for unless it is told `--enable-row-security`."""
    with psycopg.connect(owned) as connection:
        connection.execute("SET row_security = off")

        with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
            connection.execute("SELECT * FROM wallets")


def test_a_member_of_the_owner_sees_everything_and_a_mere_reader_of_tables_nothing(owned: str) -> None:
    """As whom a worker may log in, and as whom not."""
    with psycopg.connect(owned.replace(f"{OWNER}@", "postgres@", 1)) as connection:
        insert(connection, "tenants", STANDING["tenants"] | {"tenant_id": "seen"})
        connection.execute(f"CREATE ROLE test_member; GRANT {OWNER} TO test_member".encode())
        connection.execute(b"CREATE ROLE test_reader; GRANT SELECT ON ALL TABLES IN SCHEMA public TO test_reader")
        seen = {}
        for role in ("test_member", "test_reader"):
            connection.execute(f"SET LOCAL ROLE {role}".encode())
            seen[role] = connection.execute("SELECT count(*) FROM tenants WHERE tenant_id = 'seen'").fetchone()
            connection.execute("RESET ROLE")
        connection.rollback()

    assert seen == {"test_member": (1,), "test_reader": (0,)}


@pytest.mark.usefixtures("settled")
def test_usage_is_recorded_audited_and_asked_for_there() -> None:
    catalogues()
    a_customer("ana", credit="10")
    outcome = record_usage(an_envelope(an_event("ana", [tokens(1000)])), datetime.now(UTC))

    assert outcome == Outcome(received=1, charged=1)
    result = audit()
    assert (result.differences, result.shown) == (0, [])
    with as_tenant(TENANT, "ana"):
        (mine,) = wallets.balance(TENANT, "ana", datetime.now(UTC)).wallets
        assert 0 < mine.balance.available < 10
    with as_tenant("other"), pytest.raises(NotFound):
        wallets.balance("other", "ana", datetime.now(UTC))


def test_a_worker_who_is_shown_nothing_waits_and_parks_nothing(owned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one who may write every table, and is neither the owner nor a member of it."""
    administrator = owned.replace(f"{OWNER}@", "postgres@", 1)
    with psycopg.connect(administrator) as connection:
        connection.execute(b"CREATE ROLE test_worker LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO test_worker")
    monkeypatch.setenv("CENTAVO_DATABASE_URL", owned.replace(f"{OWNER}@", "test_worker@", 1))
    forget()
    try:
        for record in (record_usage, record_in_parts):
            with pytest.raises(DatabaseUnavailable, match="owner of the tables"):
                record(an_envelope(an_event("ana", [tokens(1000)], key="unseen")), datetime.now(UTC))
    finally:
        forget()
        with psycopg.connect(administrator) as connection:
            parked = connection.execute("SELECT count(*) FROM parked_inputs").fetchone()
            connection.execute(b"DROP OWNED BY test_worker; DROP ROLE test_worker")

    assert parked == (0,)
