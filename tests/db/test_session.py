"""Databases whose owners have set things otherwise for everybody."""

import select
from uuid import uuid4

import psycopg
import pytest

from billing.errors import DatabaseBusy, DatabaseSlow, DatabaseUnavailable, Rejected
from config.settings import settings
from db import reports, session
from db.migrate import migrate
from db.session import Connection, in_transaction
from sandbox.postgres import PostgresServer

#: What `in_transaction` and its locks rely on.
RELIED_ON = ("default_transaction_isolation", "client_encoding", "TimeZone")


def said(name: str) -> object:
    row = in_transaction(lambda connection: connection.execute(f"SHOW {name}".encode()).fetchone())
    assert row is not None
    return row[0]


def test_transactions_are_as_they_were_written_whatever_the_database_is_set_to(billing_database: str) -> None:
    usual = [said(name) for name in RELIED_ON]
    with psycopg.connect(settings().required("database_url"), autocommit=True) as owner:
        for name, value in zip(RELIED_ON, ("serializable", "latin1", "Asia/Kathmandu"), strict=True):
            owner.execute(f"ALTER DATABASE {owner.info.dbname} SET {name} = '{value}'".encode())
    session.close()

    assert [said(name) for name in RELIED_ON] == usual == ["read committed", "UTF8", "UTC"]


def test_what_would_lose_commits_is_told(billing_database: str) -> None:
    before = in_transaction(reports.unsafe_settings)
    with psycopg.connect(settings().required("database_url"), autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {owner.info.dbname} SET synchronous_commit = off".encode())
    session.close()

    assert in_transaction(reports.unsafe_settings) == [*before, "synchronous_commit"]


def test_a_database_without_room_for_every_name_is_refused(postgres: PostgresServer) -> None:
    name = f"latin_{uuid4().hex}"
    with psycopg.connect(postgres.uri(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LOCALE_PROVIDER libc".encode())
    try:
        with pytest.raises(Rejected, match="keeps text as LATIN1"):
            migrate(postgres.uri(name))
    finally:
        postgres.drop_database(name)


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
