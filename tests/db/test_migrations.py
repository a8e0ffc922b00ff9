"""The model and the migrations build the same database."""

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from db import migrate
from db.schema import metadata
from db.session import make_engine
from sandbox.postgres import PostgresServer

#: Everything that can differ, each row with enough words to recognise what it is.
CATALOGUE = {
    "tables": """
        SELECT relname, reloptions, obj_description(oid, 'pg_class') FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    """,
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
            pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated, condeferrable
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "triggers": """
        SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), tgenabled
        FROM pg_trigger WHERE NOT tgisinternal
    """,
    "functions": """
        SELECT p.proname, pg_get_functiondef(p.oid) FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
    """,
    "extensions": "SELECT extname FROM pg_extension",
    "rows that are always there": """
        SELECT 'installation', count(*)::text FROM installation
        UNION ALL SELECT 'price_book', string_agg(revision::text, ',') FROM price_book
    """,
}


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[str]:
    """A database in which nothing is yet."""
    name = f"empty_{uuid4().hex}"
    postgres.create_database(name)
    yield postgres.uri(name)
    postgres.drop_database(name)


def described(url: str) -> dict[str, set[tuple[Any, ...]]]:
    with psycopg.connect(url) as connection:
        found = {what: connection.execute(statement.encode()).fetchall() for what, statement in CATALOGUE.items()}
    return {
        what: {tuple(map(str, row)) for row in rows if not str(row[0]).startswith("alembic_version")}
        for what, rows in found.items()
    }


def test_alembic_finds_no_difference(database: str) -> None:
    """What `alembic revision --autogenerate` would write is nothing."""
    engine = make_engine(database, limits=False)
    try:
        with engine.connect() as connection:
            options = {"compare_type": True, "compare_server_default": True}
            found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    finally:
        engine.dispose()

    assert found == []


def test_the_catalogues_of_both_are_equal(database: str, empty_database: str) -> None:
    """What Alembic does not look at, too: checks, exclusions, predicates, triggers, functions, comments."""
    engine = make_engine(empty_database, limits=False)
    try:
        metadata.create_all(engine)
    finally:
        engine.dispose()

    migrated, modelled = described(database), described(empty_database)

    for what, rows in migrated.items():
        assert rows, what
        assert rows - modelled[what] == set(), f"{what} that the model lacks"
        assert modelled[what] - rows == set(), f"{what} that the migrations lack"


def test_a_database_tells_its_revision_and_migrating_again_is_harmless(empty_database: str) -> None:
    assert migrate.current(empty_database) is None

    first = migrate.migrate(empty_database)
    before = described(empty_database)

    assert migrate.migrate(empty_database) == first == migrate.current(empty_database) == migrate.head()
    assert described(empty_database) == before


def test_two_migrators_wait_for_each_other(empty_database: str) -> None:
    """A deployment starts several processes at once, and each migrates."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            migrate.migrate(empty_database)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test says it
            failures.append(error)

    # Alembic's context is one per process; the second migrator of this test is another process's stand-in.
    with psycopg.connect(empty_database) as other:
        other.execute("SELECT pg_advisory_xact_lock(7226274486)")
        thread = threading.Thread(target=run)
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        with psycopg.connect(empty_database, autocommit=True) as watcher:
            while thread.is_alive() and watcher.execute(waiting).fetchone() == (0,):
                pass
        assert migrate.current(empty_database) is None
    thread.join()

    assert failures == []
    assert migrate.current(empty_database) == migrate.head()
