"""The model and the migrations build the same database."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from psycopg.types.json import Jsonb

from billing.periods import calendar_month
from db import audit, migrate
from db.schema import metadata
from db.session import make_engine
from tests.db.valid_rows import NOW, STANDING, Row, insert

#: Everything that can differ, each row with enough words to recognise what it is.
CATALOGUE = {
    "tables": """
        SELECT relname, reloptions, obj_description(oid, 'pg_class') FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    """,
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
            a.attstattarget, a.attcollation::regcollation, pg_get_expr(d.adbin, d.adrelid),
            col_description(c.oid, a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated, condeferrable
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "views": """
        SELECT relname, reloptions, pg_get_viewdef(oid) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
    """,
    "row-level security": """
        SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    """,
    "policies": """
        SELECT tablename, policyname, permissive, roles, cmd, qual, with_check FROM pg_policies
        WHERE schemaname = 'public'
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
        UNION ALL SELECT 'quota_book', string_agg(revision::text, ',') FROM quota_book
        UNION ALL SELECT 'audit_turn', count(*)::text FROM audit_turn
        UNION ALL SELECT 'last_seen', count(*)::text FROM last_seen
        UNION ALL SELECT 'alert_looks', count(*)::text FROM alert_looks
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


#: A month long before the migration: who used last then has no period of now.
BEFORE = calendar_month(datetime(2026, 3, 15, tzinfo=UTC), "America/Sao_Paulo")


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
    upgrade(empty_database, "0001")
    with psycopg.connect(empty_database) as connection:
        _write_as_first(connection)
        before = _rows(connection, "payments"), _rows(connection, "payment_attempts")

    migrate.migrate(empty_database)

    with psycopg.connect(empty_database) as connection:
        payments, attempts = _rows(connection, "payments"), _rows(connection, "payment_attempts")
        plans = connection.execute("SELECT dunning_days, dunning_hour, open_tiers_max FROM plans").fetchall()
    new = dict.fromkeys(("approved_at", "void_wished_at", "void_reason", "wallet_id", "credit_amount"))
    new |= {"unowed_at": None, "reference": "", "refunded_minor": 0, "credit_given": 0}
    assert payments == [row | new for row in before[0]]
    assert [row.pop("payment_method_id") for row in attempts] == [card for _, _, card in FIRST_ATTEMPTS]
    assert attempts == before[1]
    assert plans == [([1, 3, 5, 7], 9, 5)]


@pytest.fixture
def brought_from_the_second(empty_database: str) -> Iterator[psycopg.Connection]:
    """A database in which people had used and owed before grants were kept, brought to the newest revision."""
    upgrade(empty_database, "0002")
    with psycopg.connect(empty_database) as connection:
        _write_as_second(connection)
    migrate.migrate(empty_database)
    with psycopg.connect(empty_database) as connection:
        yield connection


def test_a_balance_of_before_grants_becomes_one_and_a_debt_stays_a_debt(
    brought_from_the_second: psycopg.Connection,
) -> None:
    """An entry that moves nothing tells it; who had nothing gets neither."""
    wallets = brought_from_the_second.execute("""
        SELECT w.customer_id, w.currency, w.balance, w.debt, w.last_seq, g.source, g.reason, g.amount, g.remaining,
            g.paid_debt, g.priority, g.created_at
        FROM wallets w LEFT JOIN grants_remaining g USING (tenant_id, wallet_id) ORDER BY w.wallet_id
    """).fetchall()
    told = brought_from_the_second.execute("""
        SELECT w.customer_id, e.seq, e.amount, e.balance_after, e.kind, e.contra, e.reason,
            e.parts = jsonb_build_object(e.grant_id, 7.5::numeric(38, 12)::text, 'debt', 7.5::numeric(38, 12)::text)
        FROM ledger_entries e JOIN wallets w USING (tenant_id, wallet_id)
        WHERE e.grant_id IN (SELECT grant_id FROM credit_grants) ORDER BY w.wallet_id
    """).fetchall()

    carried = ("adjustment", "carried_over", Decimal("7.5"), Decimal("7.5"), Decimal(0), 40, NOW)
    assert wallets == [
        ("ana", "USD", Decimal("7.5"), 0, 3, *carried),
        ("ana", "GBP", 0, 0, 0, *[None] * len(carried)),
        ("bob", "USD", Decimal("-2.5"), Decimal("2.5"), 1, *[None] * len(carried)),
        ("eve", "USD", 0, 0, 2, *[None] * len(carried)),
    ]
    assert told == [("ana", 3, 0, Decimal("7.5"), "adjustment", "grants:adjustment", "carried_over", True)]


def test_every_customer_of_before_has_a_period_now_and_none_that_has_begun_owes_a_fee(
    brought_from_the_second: psycopg.Connection,
) -> None:
    """Opened means that its fee is decided; who is billed from the migration on owes nothing for what ended before."""
    periods = brought_from_the_second.execute("""
        SELECT p.customer_id, p.starts_at, p.ends_at, p.opened_at = p.starts_at, p.time_zone, p.closed_at
        FROM periods p ORDER BY p.customer_id, p.starts_at
    """).fetchall()
    (migrated_at,) = brought_from_the_second.execute("SELECT DISTINCT billed_from FROM customers").fetchall()[0]

    now = calendar_month(migrated_at, "America/Sao_Paulo")
    months = [BEFORE]
    while months[-1] != now:
        months.append(calendar_month(months[-1][1], "America/Sao_Paulo"))
    kept = (True, "America/Sao_Paulo", None)
    assert periods == [
        ("ana", *now, *kept),
        *[("bob", *month, *kept) for month in months],
        ("eve", *calendar_month(migrated_at, "Asia/Tokyo"), True, "Asia/Tokyo", None),
    ]


def test_the_audit_holds_for_a_database_of_before_grants(brought_from_the_second: psycopg.Connection) -> None:
    found = {check: audit.run(brought_from_the_second, check) for check in audit.CHECKS}

    assert found == dict.fromkeys(audit.CHECKS, (0, []))


def upgrade(database_url: str, revision: str) -> None:
    """As `migrate`, and no further than to a revision."""
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    config.attributes["database_url"] = database_url
    command.upgrade(config, revision)


def _write_as_first(connection: psycopg.Connection) -> None:
    for table in ("tenants", "plans", "customers"):
        _insert_known(connection, table, STANDING[table])
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


def _write_as_second(connection: psycopg.Connection) -> None:
    """Ana has something left, bob owes, eve has used up all: each by entries that say so."""
    for table in ("tenants", "plans"):
        _insert_known(connection, table, STANDING[table])
    now = calendar_month(datetime.now(UTC), "America/Sao_Paulo")
    for customer_id, zone in (("ana", "America/Sao_Paulo"), ("bob", "America/Sao_Paulo"), ("eve", "Asia/Tokyo")):
        whose = {"customer_id": customer_id, "time_zone": zone}
        _insert_known(connection, "customers", STANDING["customers"] | whose)
    for customer_id, period, tokens in (("ana", now, 5), ("bob", BEFORE, 5)):
        mine = {"customer_id": customer_id, "starts_at": period[0], "ends_at": period[1]}
        _insert_known(connection, "periods", STANDING["periods"] | mine | {"tokens": tokens, "events": 1})
        event = {"customer_id": customer_id, "key": customer_id, "period_start": period[0], "tokens": tokens}
        line = {"cost": "2.5", "quantity": "5", "unit": "token", "price_id": None}
        paid = {"cost": Decimal("2.5"), "currency": "USD", "items": Jsonb([line])}
        _insert_known(connection, "usage_events", STANDING["usage_events"] | event | paid)
    _write_wallet(connection, 1, "ana", {"grant": Decimal(10), "usage": Decimal("-2.5")})
    _write_wallet(connection, 2, "ana", {}, currency="GBP")
    _write_wallet(connection, 3, "bob", {"usage": Decimal("-2.5")})
    _write_wallet(connection, 4, "eve", {"grant": Decimal(10), "breakage": Decimal(-10)})


def _write_wallet(
    connection: psycopg.Connection, wallet_id: int, customer_id: str, moved: dict[str, Decimal], currency: str = "USD"
) -> None:
    """A wallet of the second revision, and one entry of each kind given."""
    totals = {
        "balance": sum(moved.values()),
        "used_total": -moved.get("usage", Decimal(0)),
        "received_total": sum(amount for kind, amount in moved.items() if kind != "usage"),
        "last_seq": len(moved),
    }
    whose = {"customer_id": customer_id, "wallet_id": wallet_id, "currency": currency}
    _insert_known(connection, "wallets", STANDING["wallets"] | whose | totals)
    balance = Decimal(0)
    for seq, (kind, amount) in enumerate(moved.items(), start=1):
        balance += amount
        entry = {"wallet_id": wallet_id, "seq": seq, "amount": amount, "balance_after": balance, "kind": kind}
        event_key = customer_id if kind == "usage" else None
        more = {"event_key": event_key, "idempotency_key": None}
        _insert_known(connection, "ledger_entries", STANDING["ledger_entries"] | entry | more)


def _insert_known(connection: psycopg.Connection, table: str, row: Row) -> None:
    """A row, without the columns that this revision does not know yet."""
    statement = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
    known = {name for (name,) in connection.execute(statement, (table,))}
    insert(connection, table, {name: value for name, value in row.items() if name in known})


def _rows(connection: psycopg.Connection, table: str) -> list[dict[str, Any]]:
    """A table's rows, whatever columns it has, in the order of its key."""
    order = {"payments": "payment_id", "payment_attempts": "payment_id, attempt"}[table]
    found = connection.execute(f"SELECT to_jsonb(t) FROM {table} t ORDER BY {order}".encode()).fetchall()
    return [row for (row,) in found]
