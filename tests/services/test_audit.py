"""The audit, as it is asked for: everything counted, differences said aloud, nothing written."""

from datetime import UTC, datetime

import psycopg
import pytest
from structlog.testing import capture_logs

from billing.errors import TenantNotFound
from db import audit as checks
from db import session
from services.books.tenants import create_tenant
from services.metering.usage import record_usage
from services.oversight import audit as service
from services.oversight.audit import audit
from tests.conftest import forget
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one


@pytest.fixture
def database_url(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database that may be made wrong: nothing looks at it when the test is over."""
    monkeypatch.setenv("CENTAVO_DATABASE_URL", database)
    forget()
    return database


@pytest.fixture(autouse=True)
def _forgotten() -> object:
    yield None
    forget()


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
    assert [(log["event"], log["check"]) for log in logs] == [("invariant checked", check) for check in checks.CHECKS]
    assert result.seconds.keys() == result.checks.keys()


def test_every_difference_is_said_aloud(database_url: str) -> None:
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", credit="10")
    with psycopg.connect(database_url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE wallets SET last_seq = 11")

    with capture_logs() as logs:
        result = audit()

    assert result.differences == 1
    said = [log for log in logs if log["event"] != "invariant checked"]
    assert [(log["event"], log["log_level"], log["check"], log["subject"]) for log in said] == [
        ("balance inconsistency", "error", "wallet balance is the sum of its entries", "ana USD")
    ]


def test_one_tenant_is_audited_alone(database_url: str) -> None:
    """What is wrong elsewhere is not counted, nor is what there is."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", credit="10")
    create_tenant("other", "Other", now)
    record_usage(an_envelope(an_event()), now)
    with psycopg.connect(database_url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE wallets SET last_seq = 11")

    own, others = audit(tenant_id=TENANT), audit(tenant_id="other")

    assert (own.differences, own.counts["events"]) == (1, 1)
    assert (others.differences, set(others.counts.values())) == (0, {0})
    with pytest.raises(TenantNotFound, match="nobody"):
        audit(tenant_id="nobody")


def test_an_audit_is_not_cut_short_by_the_limits_of_the_usage_path(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement of a second, in a transaction of two, where both limits are shorter than that."""
    limits = {"statement_timeout": "500ms", "transaction_timeout": "500ms"}
    monkeypatch.setattr(session, "LIMITS", session.LIMITS | limits)
    monkeypatch.setitem(checks.CHECKS, "slow", "SELECT '', '', '', '' FROM pg_sleep(1) WHERE false")
    monkeypatch.setattr(service, "CHECKS", ("slow", "slow"))

    assert audit().checks == {"slow": 0}


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
