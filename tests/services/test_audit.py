"""The audit, as it is asked for: everything counted, differences said aloud, nothing written."""

from datetime import UTC, datetime

import psycopg
import pytest
from structlog.testing import capture_logs

from db import audit as checks
from services.audit import audit
from services.usage import record_usage
from tests.conftest import _forget
from tests.factories import a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one


@pytest.fixture
def database_url(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database that may be made wrong: nothing looks at it when the test is over."""
    monkeypatch.setenv("CENTAVO_DATABASE_URL", database)
    _forget()
    return database


@pytest.fixture(autouse=True)
def _forgotten() -> object:
    yield None
    _forget()


def test_an_audit_counts_what_there_is_and_finds_nothing(database_url: str) -> None:
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", credit="10")
    record_usage(an_envelope(an_event(), an_event(items=[tokens(1, model="x")]), b'{"key": 1}'), now)
    heard: list[tuple[str, int]] = []

    with capture_logs() as logs:
        result = audit(lambda check, differences: heard.append((check, differences)))

    assert (result.differences, result.shown, result.parked) == (0, [], 2)
    assert (result.counts["charged"], result.counts["parked_events"], result.counts["parked_inputs"]) == (1, 1, 1)
    assert heard == [(check, 0) for check in checks.CHECKS] == list(result.checks.items())
    assert logs == []


def test_every_difference_is_said_aloud(database_url: str) -> None:
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", credit="10")
    with psycopg.connect(database_url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE wallets SET balance = 11, received_total = 11")

    with capture_logs() as logs:
        result = audit()

    assert result.differences == 1
    assert [(log["event"], log["log_level"], log["check"], log["subject"]) for log in logs] == [
        ("balance inconsistency", "error", "wallet balance is the sum of its entries", "ana USD")
    ]


def test_an_audit_reads_one_moment_while_others_write(database_url: str) -> None:
    """Usage is recorded between two checks; all of them still look at the moment the audit began."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", credit="10")

    def meanwhile(check: str, _differences: int) -> None:
        if check == next(iter(checks.CHECKS)):
            record_usage(an_envelope(an_event()), now)

    result = audit(meanwhile)

    assert (result.differences, result.counts["events"]) == (0, 0)
    assert one("SELECT count(*) FROM usage_events") == (1,)
