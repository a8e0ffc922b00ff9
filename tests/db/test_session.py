"""Databases whose owners have set things otherwise for everybody."""

import select
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

from billing.errors import DatabaseBusy, DatabaseSlow, DatabaseUnavailable, Rejected
from config.settings import settings
from db import session
from db.migrate import head, migrate
from db.scope import as_tenant
from db.session import Connection, in_transaction, make_engine
from sandbox.postgres import PostgresServer
from services.books.credits import Grant, grant
from tests.conftest import forget
from tests.factories import TENANT, a_customer, catalogues

#: What `in_transaction` and its locks rely on.
RELIED_ON = {
    "default_transaction_isolation": ("serializable", "read committed"),
    "client_encoding": ("latin1", "UTF8"),
    "TimeZone": ("Asia/Kathmandu", "UTC"),
    "synchronous_commit": ("off", "on"),
    "DateStyle": ("SQL, DMY", "ISO, MDY"),
    "IntervalStyle": ("iso_8601", "postgres"),
    "row_security": ("off", "on"),
    "array_nulls": ("off", "on"),
}


def said(name: str) -> object:
    row = in_transaction(lambda connection: connection.execute(f"SHOW {name}".encode()).fetchone())
    assert row is not None
    return row[0]


def set_by_the_owner(values: Mapping[str, str]) -> None:
    with psycopg.connect(settings().required("database_url"), autocommit=True) as owner:
        for name, value in values.items():
            owner.execute(f"ALTER DATABASE {owner.info.dbname} SET {name} = '{value}'".encode())
    session.close()


def test_transactions_are_as_they_were_written_whatever_the_database_is_set_to(billing_database: str) -> None:
    set_by_the_owner({name: theirs for name, (theirs, _) in RELIED_ON.items()})

    assert {name: said(name) for name in RELIED_ON} == {name: ours for name, (_, ours) in RELIED_ON.items()}


def test_a_limit_of_the_owners_does_not_end_a_migration(empty_database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {owner.info.dbname} SET statement_timeout = 20".encode())

    assert migrate(empty_database) == head()


@pytest.mark.parametrize("named", ["$user", "billing"])
def test_all_happens_in_one_schema_whoever_it_runs_as(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """Also where another installation, of the same tenant and customer, has the schema that everybody sees."""
    options = "" if named == "$user" else f"&options={quote(f'-c search_path={named}')}"
    monkeypatch.setenv("CENTAVO_DATABASE_URL", empty_database)
    migrated_with_ana(empty_database, "1")
    with psycopg.connect(empty_database) as connection:
        schema = connection.info.user if named == "$user" else named
        connection.execute(f"CREATE SCHEMA {schema}".encode())
    monkeypatch.setenv("CENTAVO_DATABASE_URL", empty_database + options)

    migrated_with_ana(empty_database + options, "2")
    with as_tenant(TENANT):
        grant(Grant(TENANT, "ana", "USD", Decimal(40), "promo", "", "later"), datetime.now(UTC))

    forget()
    balances = f"SELECT o.balance, w.balance FROM public.wallets o, {schema}.wallets w"
    with psycopg.connect(empty_database) as connection:
        assert connection.execute(balances.encode()).fetchall() == [(1, 42)]


def migrated_with_ana(url: str, credit: str) -> None:
    forget()
    migrate(url)
    catalogues()
    a_customer("ana", credit=credit)


def test_a_database_without_room_for_every_name_is_refused(postgres: PostgresServer) -> None:
    name = f"latin_{uuid4().hex}"
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LOCALE_PROVIDER libc".encode())
    try:
        with pytest.raises(Rejected, match="keeps text as LATIN1"):
            migrate(postgres.uri(name))
    finally:
        postgres.drop_database(name)


def test_addresses_are_those_that_psycopg_takes(database: str) -> None:
    engine = make_engine(database.replace("postgresql://", "postgres://") + "&application_name=shop")
    try:
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW application_name").scalar() == "shop"
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("limit", "statement", "is_slow"),
    [
        ("statement_timeout", b"SELECT pg_sleep(5)", True),
        ("transaction_timeout", b"SELECT pg_sleep(5)", True),
        ("idle_in_transaction_session_timeout", b"SELECT 1", False),
    ],
)
def test_what_takes_too_long_is_no_mistake_of_the_input(
    billing_database: str, monkeypatch: pytest.MonkeyPatch, limit: str, statement: bytes, is_slow: bool
) -> None:
    monkeypatch.setattr(session, "LIMITS", session.LIMITS | {limit: "200ms"})
    session.close()

    def work(connection: Connection) -> None:
        connection.execute("SELECT 1")
        if not is_slow:
            until_closed(connection)
        connection.execute(statement)

    with pytest.raises(DatabaseUnavailable) as refused:
        in_transaction(work)
    assert isinstance(refused.value, DatabaseSlow) == is_slow


@pytest.mark.parametrize("tries", [session.TRIES, session.LOCK_TRIES_OF_PARTS])
def test_a_lock_that_stays_taken_is_told_from_an_outage(
    billing_database: str, monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    monkeypatch.setattr(session, "LIMITS", session.LIMITS | {"lock_timeout": "20ms"})
    session.close()
    tried = 0

    def work(connection: Connection) -> None:
        nonlocal tried
        tried += 1
        connection.execute("LOCK TABLE tenants IN EXCLUSIVE MODE")

    with psycopg.connect(settings().required("database_url")) as holder:
        holder.execute("LOCK TABLE tenants IN EXCLUSIVE MODE")
        with pytest.raises(DatabaseBusy, match=f"gave up after {tries} tries"):
            in_transaction(work, lock_tries=tries)
    assert tried == tries


def until_closed(connection: Connection) -> None:
    """Wait until the server has said its last."""
    assert select.select([connection.pgconn.socket], [], [], 10)[0]
