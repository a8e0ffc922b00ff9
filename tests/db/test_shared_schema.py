"""In the schema of an application: what is its own stays as it is."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from billing.errors import Rejected
from db import own
from db.migrate import migrate
from db.schema import metadata
from db.scope import API_ROLE
from sandbox.postgres import PostgresServer
from tests.db.test_migrations import upgrade

OF_THE_APPLICATION = """
CREATE TABLE orders (id bigint PRIMARY KEY, tenant_id text, customer_id text, note text);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON orders USING (note <> 'hidden');
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER stamp BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stamp();
ALTER TABLE orders DISABLE TRIGGER stamp;
CREATE VIEW open_orders AS SELECT id, note FROM orders;
COMMENT ON VIEW open_orders IS 'what the shop reads';
CREATE FUNCTION orders_of() RETURNS SETOF open_orders LANGUAGE sql AS 'SELECT * FROM open_orders';
"""
#: Everything of theirs that a migration has touched, or could.
THEIRS = """
SELECT c.relname::text, c.oid, c.relowner, c.relrowsecurity, c.relforcerowsecurity, c.relacl::text,
    obj_description(c.oid, 'pg_class'),
    ARRAY(SELECT a.attname || a.attcollation FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
    ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid),
    ARRAY(SELECT t.tgname || t.tgenabled::text FROM pg_trigger t WHERE t.tgrelid = c.oid)
FROM pg_class c WHERE c.relname IN ('orders', 'open_orders') ORDER BY c.relname
"""


@pytest.fixture
def shop(postgres: PostgresServer) -> Iterator[str]:
    """The address of an application's database."""
    name = f"shop_{uuid4().hex}"
    postgres.create_database(name)
    with psycopg.connect(postgres.uri(name)) as connection:
        connection.execute(OF_THE_APPLICATION.encode())
    yield postgres.uri(name)
    postgres.drop_database(name)


def looked_at(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def test_what_is_the_applications_stays_as_it_is(shop: str) -> None:
    before = looked_at(shop, THEIRS)

    migrate(shop)

    assert len(before) == 2
    assert looked_at(shop, THEIRS) == before
    rights = f"has_table_privilege('{API_ROLE}', relname::text, 'SELECT')"
    assert looked_at(shop, f"SELECT relname, {rights} FROM pg_class WHERE relname IN ('orders', 'wallets')") == [
        ("orders", False),
        ("wallets", True),
    ]


def test_a_view_of_theirs_over_a_table_that_changes_is_named(shop: str) -> None:
    upgrade(shop, "0019")
    with psycopg.connect(shop) as connection:
        connection.execute("CREATE VIEW rich AS SELECT tenant_id, balance FROM wallets")

    with pytest.raises(Rejected, match=r"drop public\.rich, migrate"):
        migrate(shop)

    assert looked_at(shop, "SELECT version_num FROM alembic_version") == [("0019",)]


def test_what_is_centavos_is_known(database: str) -> None:
    relations = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = '{}'"

    assert set(metadata.tables) == own.TABLES
    assert {name for (name,) in looked_at(database, relations.format("r"))} == own.TABLES | {"alembic_version"}
    assert {name for (name,) in looked_at(database, relations.format("v"))} == own.VIEWS
