"""As `test_audit`, of what was archived: a checkpoint, an event or an archive that was changed is found."""

import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from config.settings import SANDBOX_STRIPE_KEY
from db import audit
from services.cycle.archiving import Asked, archive
from tests.conftest import forget
from tests.services.past_usage import LAST, Past

BALANCE = "wallet balance is the sum of its entries"
CHAIN = "each entry's balance follows from the one before"
GRANTS = "what a grant or a debt is, its entries made it"
PARTS = "an entry's parts come to its amount"
DEBITED = "a charged event's cost is debited once, from its customer's wallet"
LINES = "an event's cost and tokens are those of its lines"
STANDS = "a checkpoint stands in the ledger"
HOLDS = "an archive holds what its events say"
PERIOD = "a period's tokens are those of its events"
STATED = "a statement tells of the tokens and the usage of its period"

ONE = "wallet_id = (SELECT min(wallet_id) FROM checkpoints)"
AN_EVENT = """key = (
    SELECT min(key) FROM usage_events u WHERE archive_id IS NOT NULL AND cost > 0 AND status = 'charged'
        AND NOT EXISTS (SELECT FROM corrections c WHERE c.event_key = u.key)
)"""

CORRUPTIONS: list[tuple[set[str], str]] = [
    ({BALANCE}, f"UPDATE checkpoints SET entries = entries + 1 WHERE {ONE}"),
    ({DEBITED}, f"UPDATE checkpoints SET usage_hash = usage_hash + 1 WHERE {ONE}"),
    ({CHAIN}, f"UPDATE checkpoints SET kept_hash = kept_hash - 1 WHERE {ONE}"),
    ({STANDS}, f"UPDATE checkpoints SET seq = seq + 1 WHERE {ONE}"),
    ({STANDS, BALANCE, CHAIN, DEBITED}, f"DELETE FROM checkpoints WHERE {ONE}"),
    (
        {CHAIN},
        f"UPDATE ledger_entries SET balance_after = balance_after + 0.000000000001 WHERE kind = 'checkpoint' AND {ONE}",
    ),
    ({CHAIN}, f"UPDATE ledger_entries SET balance_after = balance_after + 0.000000000001 WHERE seq = 1 AND {ONE}"),
    (
        {BALANCE, PARTS},
        f"UPDATE ledger_entries SET amount = amount + 0.000000000001 WHERE kind = 'checkpoint' AND {ONE}",
    ),
    (
        {GRANTS},
        f"""UPDATE ledger_entries SET parts = jsonb_build_object(gen_random_uuid(), amount::text)
        WHERE kind = 'checkpoint' AND {ONE}""",
    ),
    (
        {GRANTS, PARTS},
        f"""UPDATE ledger_entries SET parts = parts || '{{"debt": "12345"}}' WHERE kind = 'checkpoint' AND {ONE}""",
    ),
    (
        {BALANCE, CHAIN, GRANTS, STANDS},
        f"DELETE FROM ledger_entries WHERE kind = 'checkpoint' AND {ONE}",
    ),
    ({HOLDS}, "UPDATE archives SET events = events + 1 WHERE archive_id = 1"),
    ({HOLDS}, "UPDATE archives SET tokens = tokens + 1 WHERE archive_id = 1"),
    ({HOLDS}, "UPDATE archives SET cost = cost + 0.000000000001 WHERE archive_id = 1"),
    ({HOLDS}, "DELETE FROM archives WHERE archive_id = 1"),
    ({HOLDS, LINES, DEBITED, STATED}, f"UPDATE usage_events SET archive_id = NULL, cost = cost + 1 WHERE {AN_EVENT}"),
    ({HOLDS, DEBITED, STATED}, f"UPDATE usage_events SET cost = cost + 0.000000000001 WHERE {AN_EVENT}"),
    ({HOLDS, PERIOD}, f"UPDATE usage_events SET tokens = tokens + 1 WHERE {AN_EVENT}"),
    ({HOLDS, PERIOD, DEBITED, STATED}, f"DELETE FROM usage_events WHERE {AN_EVENT}"),
    ({DEBITED}, f"UPDATE usage_events SET key = 'another' WHERE {AN_EVENT}"),
]


@pytest.fixture(scope="module")
def archived_database(shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Half a year of usage, and the half before it in files."""
    folder: Path = tmp_path_factory.mktemp("archive")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "DATABASE_URL": shared_database,
            "STRIPE_SECRET_KEY": SANDBOX_STRIPE_KEY,
            "ENVIRONMENT": "sandbox",
        }.items():
            patch.setenv(f"CENTAVO_{name}", value)
        forget()
        Past(random.Random(9)).live()
        assert archive(Asked(6, folder), LAST)
        forget()
    forget()
    return shared_database


@pytest.fixture
def connection(archived_database: str) -> Iterator[psycopg.Connection]:
    """A transaction past every trigger and foreign key, rolled back with the test."""
    with psycopg.connect(archived_database) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection
        connection.rollback()


def found(connection: psycopg.Connection) -> set[str]:
    return {check for check in audit.CHECKS if audit.run(connection, check)[0]}


def test_what_was_archived_agrees_with_what_is_left(connection: psycopg.Connection) -> None:
    """And it is worth looking at: a checkpoint has what was kept before it, and grants and debt in it."""
    assert found(connection) == set()
    worth = "SELECT count(*) FILTER (WHERE seq > entries) > 0, count(*) > 1 FROM checkpoints"
    assert connection.execute(worth).fetchone() == (True, True)
    parts = "SELECT max(n) > 1 FROM (SELECT count(*) AS n FROM ledger_entries, jsonb_object_keys(parts) "
    assert connection.execute(f"{parts} WHERE kind = 'checkpoint' GROUP BY wallet_id) k".encode()).fetchone() == (True,)


@pytest.mark.parametrize(("checks", "corruption"), CORRUPTIONS)
def test_what_was_changed_is_found(connection: psycopg.Connection, checks: set[str], corruption: str) -> None:
    """By these checks, and no other."""
    changed = connection.execute(corruption.encode()).rowcount

    assert changed > 0
    assert found(connection) == checks


def test_an_archived_event_that_is_missing_is_named_with_its_wallet(connection: psycopg.Connection) -> None:
    """Which one it was, its archive knows."""
    connection.execute(f"DELETE FROM usage_events WHERE {AN_EVENT}".encode())

    number, shown = audit.run(connection, DEBITED)

    assert number == 1
    assert shown[0].subject.endswith("USD archived")
    assert int(shown[0].expected.split()[0]) + 1 == int(shown[0].actual.split()[0])
