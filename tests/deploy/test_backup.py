"""A night's dump, restored on another machine with the commands of docs/operations.md: nothing is lost that was in it,
and nothing that happened since is charged or collected twice.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from billing.payments import PaymentState
from config import clock
from db.migrate import migrate
from sandbox.postgres import PostgresServer
from services.metering.usage import Outcome, record_usage
from services.oversight.audit import audit
from tests.conftest import OF_A_TEST_SERVER, forget
from tests.deploy.test_operations import TEXT
from tests.factories import a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows
from tests.postgres_tools import administered, postgres_tool
from tests.services.collecting import captured, pays_with, taken

TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1"
#: For an owner who may make no roles, an administrator does this first; docs/operations.md says so.
ROLES = (
    "CREATE ROLE centavo_api NOLOGIN; GRANT centavo_api TO centavo",
    "CREATE ROLE centavo_audit NOLOGIN; GRANT pg_read_all_data TO centavo_audit; GRANT centavo_audit TO centavo",
)


class Owner(NamedTuple):
    """Whose database it is, and what the commands need more for it."""

    is_superuser: bool
    dumps_with: tuple[str, ...]


def as_written(program: str) -> list[str]:
    """A command of docs/operations.md, as far as it is PostgreSQL's."""
    command = re.search(rf"exec -T postgres ({program} .*?) [<>] ", TEXT)
    assert command is not None
    return shlex.split(command[1])


@pytest.fixture(params=[Owner(True, ()), Owner(False, ("--enable-row-security",))], ids=["compose", "managed"])
def owner(request: pytest.FixtureRequest) -> Owner:
    found: Owner = request.param
    return found


@pytest.fixture
def machines(owner: Owner, server_folder: Path) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """Two servers that have never heard of each other, each with an empty database and the same owner."""
    servers = [PostgresServer(server_folder / name, settings=OF_A_TEST_SERVER) for name in ("before", "after")]
    try:
        for server in servers:
            server.start()
            administered(server, f"CREATE ROLE centavo LOGIN {'SUPERUSER' if owner.is_superuser else ''}")
            administered(server, "CREATE DATABASE centavo OWNER centavo", *(() if owner.is_superuser else ROLES))
        before, after = servers
        yield before, after
    finally:
        forget()
        for server in servers:
            server.destroy()


def used(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Migrate a server's database as its owner, and let this process use it from now on."""
    url = server.uri("centavo").replace("postgres@", "centavo@", 1)
    migrate(url)
    forget()
    monkeypatch.setenv("CENTAVO_DATABASE_URL", url)
    forget()


def counted() -> dict[str, int]:
    """How many rows each table has."""
    return {table: one(f"SELECT count(*) FROM {table}")[0] for (table,) in rows(TABLES)}


def restored(owner: Owner, before: PostgresServer, after: PostgresServer) -> None:
    dumped = postgres_tool(before, *as_written("pg_dump"), *owner.dumps_with)
    assert (dumped.returncode, dumped.stderr) == (0, b"")
    restored = postgres_tool(after, *as_written("pg_restore"), given=dumped.stdout)
    assert (restored.returncode, restored.stderr) == (0, b"")


def test_a_database_that_was_restored_goes_on_where_it_was(
    owner: Owner,
    machines: tuple[PostgresServer, PostgresServer],
    billing_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine without our roles; what was collected after the dump is found at Stripe."""
    before, after = machines
    used(before, monkeypatch)
    catalogues()
    a_customer("ana", credit="10")
    a_customer("bia", plan="tiers-8m", currencies=("BRL",))
    pays_with("pm_card_visa", "bia")
    envelope = an_envelope(
        an_event("ana", key="charged"),
        an_event("bia", [tokens(16_000_001)], key="two tiers"),
        an_event("ana", [tokens(1, model="unknown")], key="parked"),
    )
    first = record_usage(envelope, clock.now())
    payments = [payment_id for (payment_id,) in rows("SELECT payment_id FROM payments ORDER BY tier")]
    assert taken(payments[0]) is PaymentState.SUCCEEDED
    in_the_dump = counted()

    restored(owner, before, after)
    assert taken(payments[1]) is PaymentState.SUCCEEDED  # and nobody will have heard of it
    used(after, monkeypatch)

    assert counted() == in_the_dump
    again = record_usage(envelope, clock.now())
    more = record_usage(an_envelope(an_event("ana"), an_event("bia", [tokens(8_000_000)])), clock.now())
    assert first == Outcome(received=3, charged=2, parked=1, payments_due=2)
    assert again == Outcome(received=3, duplicates=3)
    assert more == Outcome(received=2, charged=2, payments_due=1)
    assert taken(payments[1]) is PaymentState.SUCCEEDED
    assert captured() == dict.fromkeys(payments, (10_000, 1))
    assert audit().shown == []
