"""The model and the migrations build the same database."""

import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from psycopg.types.json import Jsonb

from db import migrate
from db.schema import metadata
from db.session import make_engine
from sandbox.postgres import PostgresServer
from tests.db.valid_rows import NOW, STANDING, Row, insert

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
        UNION ALL SELECT 'collecting_switch', count(*)::text FROM collecting_switch
    """,
}

#: What the first revision knew of payments: how many attempts each had, and where it stood.
FIRST_PAYMENTS: list[Row] = [
    {"tier": 1, "state": "succeeded", "attempts_made": 2, "due_at": None, "succeeded_at": NOW},
    {"tier": 2, "state": "due", "stripe_payment_intent_id": None},
    {"tier": 3, "state": "retry_scheduled", "attempts_made": 1, "last_decline_code": "insufficient_funds"},
    {"tier": 4, "state": "submitting", "attempts_made": 1},
    {"tier": 5, "state": "needs_payment_method", "due_at": None},
]
#: (tier, attempt), state, card.
FIRST_ATTEMPTS = [
    ((1, 1), "declined", "pm_old"),
    ((1, 2), "succeeded", "pm_new"),
    ((3, 1), "declined", "pm_old"),
    ((4, 1), "submitting", "pm_new"),
]


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


def test_payments_of_the_first_revision_stay_as_they_are(empty_database: str) -> None:
    """Every column keeps its value, the new ones say that nothing was refunded, voided or topped up yet."""
    _upgrade(empty_database, "0001")
    with psycopg.connect(empty_database) as connection:
        _write_as_first(connection)
        before = _rows(connection, "payments"), _rows(connection, "payment_attempts")

    migrate.migrate(empty_database)

    with psycopg.connect(empty_database) as connection:
        payments, attempts = _rows(connection, "payments"), _rows(connection, "payment_attempts")
        plans = connection.execute("SELECT dunning_days, dunning_hour, open_tiers_max FROM plans").fetchall()
    new = dict.fromkeys(("approved_at", "void_wished_at", "void_reason", "wallet_id", "credit_amount"))
    new |= {"reference": "", "refunded_minor": 0, "credit_given": 0}
    assert payments == [row | new for row in before[0]]
    assert [row.pop("payment_method_id") for row in attempts] == [card for _, _, card in FIRST_ATTEMPTS]
    assert attempts == before[1]
    assert plans == [([1, 3, 5, 7], 9, 5)]


def _upgrade(database_url: str, revision: str) -> None:
    """As `migrate`, and no further than to a revision."""
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    config.attributes["database_url"] = database_url
    command.upgrade(config, revision)


def _write_as_first(connection: psycopg.Connection) -> None:
    for table in ("tenants", "plans", "customers"):
        insert(connection, table, STANDING[table])
    for changes in FIRST_PAYMENTS:
        tier = changes["tier"]
        mine = {"payment_id": UUID(int=tier), "stripe_payment_intent_id": f"pi_{tier}"}
        insert(connection, "payments", STANDING["payments"] | mine | changes)
    for (tier, attempt), state, card in FIRST_ATTEMPTS:
        row = STANDING["payment_attempts"] | {
            "payment_id": UUID(int=tier),
            "attempt": attempt,
            "state": state,
            "parameters": Jsonb({"payment_method": card, "off_session": True}),
            "finished_at": None if state == "submitting" else NOW,
        }
        del row["payment_method_id"]
        insert(connection, "payment_attempts", row)


def _rows(connection: psycopg.Connection, table: str) -> list[dict[str, Any]]:
    """A table's rows, whatever columns it has, in the order of its key."""
    order = {"payments": "payment_id", "payment_attempts": "payment_id, attempt"}[table]
    found = connection.execute(f"SELECT to_jsonb(t) FROM {table} t ORDER BY {order}".encode()).fetchall()
    return [row for (row,) in found]
