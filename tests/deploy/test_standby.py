"""A standby for which no commit waits: whoever looks is told that a failover to it would lose commits."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from db.migrate import migrate
from sandbox.postgres import PostgresServer
from sandbox.postgres_files import give, system_user
from sandbox.processes import await_condition
from tests.cli.conftest import Command
from tests.conftest import OF_A_TEST_SERVER, forget
from tests.postgres_tools import administered, postgres_command, postgres_tool

SAID = "a failover to a standby may lose commits, with synchronous_standby_names empty"
STREAMED = {"wal_level": "logical", "max_wal_senders": "4"}


@pytest.fixture
def primary(server_folder: Path, broker: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresServer]:
    """A server from which others may stream, and whose database this process uses as an owner who is nobody special."""
    server = PostgresServer(server_folder / "primary", settings={**OF_A_TEST_SERVER, **STREAMED})
    server.start()
    administered(server, "CREATE ROLE centavo LOGIN", "CREATE DATABASE centavo OWNER centavo")
    url = server.uri("centavo").replace("postgres@", "centavo@", 1)
    migrate(url)
    for name, value in {"DATABASE_URL": url, "BROKER_URL": broker, "ENVIRONMENT": "sandbox"}.items():
        monkeypatch.setenv(f"CENTAVO_{name}", value)
    forget()
    yield server
    forget()
    server.destroy()


@pytest.fixture
def standby(primary: PostgresServer, server_folder: Path) -> Iterator[PostgresServer]:
    """A server that streams from it."""
    data, user = server_folder / "standby", system_user()
    data.mkdir(mode=0o700)
    give(data, user)
    copied = postgres_tool(
        primary,
        *("pg_basebackup", "--username=postgres", f"--pgdata={data / 'cluster'}"),
        *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
    )
    assert copied.returncode == 0, copied.stderr
    server = PostgresServer(data, settings={**OF_A_TEST_SERVER, **STREAMED})
    server.start()
    await_condition(lambda: followers(primary) == 1, 20, "the standby to stream")
    yield server
    server.destroy()


def followers(server: PostgresServer) -> int:
    with psycopg.connect(server.uri()) as connection:
        return len(connection.execute("SELECT FROM pg_stat_replication WHERE state = 'streaming'").fetchall())


@contextmanager
def reading(server: PostgresServer, slot: str) -> Iterator[None]:
    """Somebody who follows a slot, as those do who copy changes elsewhere."""
    options = ("proto_version=1", "publication_names=changes")
    with subprocess.Popen(
        postgres_command(
            server,
            *("pg_recvlogical", "--username=postgres", "--dbname=postgres", f"--slot={slot}", "--start", "--file=-"),
            *(f"--option={one}" for one in options),
        ),
        stdout=subprocess.DEVNULL,
        cwd="/",
        user=system_user(),
    ) as reader:
        try:
            yield
        finally:
            reader.kill()


def told(centavo: Command) -> bool:
    """Whether `centavo status` says so."""
    return SAID in " ".join(centavo("status").out.split())


def test_a_standby_that_commits_do_not_wait_for_is_told_of(
    primary: PostgresServer, standby: PostgresServer, forked: Command
) -> None:
    assert told(forked)
    assert "synchronous_standby_names" in forked("status", "--json").json["database"]["unsafe_settings"]

    administered(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    await_condition(lambda: not told(forked), 20, "the setting to be in force")

    assert followers(primary) == 1


def test_who_only_reads_what_changed_is_no_standby(primary: PostgresServer, forked: Command) -> None:
    administered(primary, "SELECT pg_create_logical_replication_slot('reader', 'pgoutput')")
    with reading(primary, "reader"):
        await_condition(lambda: followers(primary) == 1, 20, "the reader to stream")

        assert not told(forked)
