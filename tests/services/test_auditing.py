"""The audit by itself: when it runs, what it keeps of what it found, whom it tells, whose money it leaves alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from billing.payments import PaymentState
from config.settings import settings
from services.collecting.collect import claim_due
from services.desk.overview import release
from services.metering.usage import record_usage
from services.oversight.auditing import LEASE, audit_due
from tests.conftest import forget
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(hours=24)
STANDING = (
    "SELECT tenant_id, check_name, subject, times, first_seen_at, last_seen_at, resolved_at FROM audit_differences"
)
ALERTS = "SELECT kind, subject, times FROM alerts ORDER BY 1, 2"
BALANCE = "wallet balance is the sum of its entries"


@pytest.fixture(autouse=True)
def _settled(database: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """A database that may be made wrong: nothing looks at it when the test is over."""
    monkeypatch.setenv("CENTAVO_DATABASE_URL", database)
    forget()
    catalogues(NOW)
    a_customer("ana", credit="10", now=NOW)
    a_customer("bob", credit="10", now=NOW)
    yield None
    forget()


def broken(statement: str) -> None:
    """Behind everybody's back."""
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement.encode())


def chosen(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"CENTAVO_AUDIT_{name.upper()}", str(value))
    settings.cache_clear()


def test_it_runs_when_it_is_due_and_not_before() -> None:
    """However often somebody looks; a day after it ran, it is due again."""
    ran = [audit_due(at) is not None for at in (NOW, NOW, NOW + DAY - timedelta(seconds=1), NOW + DAY, NOW + DAY)]

    assert ran == [True, False, False, True, False]
    assert one("SELECT started_at, finished_at, due_at FROM audit_turn") == (NOW + DAY, NOW + DAY, NOW + 2 * DAY)
    assert rows(STANDING) == []
    assert rows(ALERTS) == []


def test_one_that_died_is_begun_anew_when_its_lease_is_over() -> None:
    one("UPDATE audit_turn SET started_at = %s, due_at = %s RETURNING 1", NOW, NOW + LEASE)

    assert audit_due(NOW + LEASE - timedelta(seconds=1)) is None
    assert audit_due(NOW + LEASE) is not None


def test_none_runs_where_none_is_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(monkeypatch, every_hours=0)

    assert audit_due(NOW) is None


def test_a_difference_is_kept_once_seen_again_and_resolved() -> None:
    """And one that comes back is another one."""
    broken("UPDATE wallets SET last_seq = last_seq + 1 WHERE customer_id = 'ana'")
    audit_due(NOW)
    audit_due(NOW + DAY)
    twice = rows(STANDING)
    broken("UPDATE wallets SET last_seq = last_seq - 1 WHERE customer_id = 'ana'")
    audit_due(NOW + 2 * DAY)
    resolved = rows(STANDING)
    broken("UPDATE wallets SET last_seq = last_seq + 1 WHERE customer_id = 'ana'")
    audit_due(NOW + 3 * DAY)

    assert twice == [(TENANT, BALANCE, "ana USD", 2, NOW, NOW + DAY, None)]
    assert resolved == [(TENANT, BALANCE, "ana USD", 2, NOW, NOW + DAY, NOW + 2 * DAY)]
    assert len(rows(STANDING)) == 2


def test_what_differs_is_told_to_a_person() -> None:
    broken("UPDATE wallets SET last_seq = last_seq + 1")

    audit_due(NOW)
    audit_due(NOW + DAY)

    assert rows(ALERTS) == [("audit_differs", "audit", 2)]
    (detail,) = one("SELECT detail FROM alerts")
    assert detail.startswith("2 differences, ")
    assert "ana USD: expected 10.000000000000 1 " in detail or "bob USD: expected 10.000000000000 1 " in detail


@pytest.mark.parametrize(
    ("limits", "is_told"),
    [
        ({"alert_percent": 100}, False),
        ({"alert_percent": 100, "alert_value_percent": 10}, False),
        ({"alert_percent": 100, "alert_value_percent": "9.99"}, True),
        ({"alert_percent": "0.01", "alert_value_percent": 100}, True),
    ],
)
def test_what_is_below_both_thresholds_is_kept_and_not_told(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], is_told: bool
) -> None:
    """A wallet is off by a tenth of what its entries come to."""
    chosen(monkeypatch, **({"alert_value_percent": 1000} | limits))
    broken("UPDATE wallets SET balance = 11, received_total = 11 WHERE customer_id = 'ana'")

    audit_due(NOW)

    assert bool(rows(ALERTS)) == is_told
    assert len(rows(STANDING)) == 2


def test_a_difference_of_a_tenant_that_is_not_there_is_kept() -> None:
    broken("INSERT INTO statement_numbers (tenant_id, last_number) VALUES ('ghost', 3)")

    audit_due(NOW)

    assert [row[0] for row in rows(STANDING)] == ["ghost"]
    assert rows(ALERTS) == []


@pytest.mark.parametrize(
    ("corruption", "is_named"),
    [
        ("UPDATE wallets SET last_seq = last_seq + 1 WHERE customer_id = 'ana'", True),
        (
            """UPDATE ledger_entries e SET balance_after = 3 FROM wallets w
            WHERE w.wallet_id = e.wallet_id AND customer_id = 'ana'""",
            False,
        ),
    ],
)
def test_whose_wallet_disagrees_is_held_if_so_wished(
    monkeypatch: pytest.MonkeyPatch, corruption: str, is_named: bool
) -> None:
    """By name or by the wallet's number, and nobody else; until a person lets go."""
    broken(corruption)
    audit_due(NOW)
    unasked = rows("SELECT customer_id, reason FROM customer_holds")
    chosen(monkeypatch, freezes="true")

    audit_due(NOW + DAY)

    assert unasked == []
    assert [row[2].startswith("ana ") for row in rows(STANDING)] == [is_named]
    assert rows("SELECT customer_id, reason FROM customer_holds") == [("ana", "audit_differs")]
    assert release(TENANT, "ana", None) == ["audit_differs"]


def test_usage_of_who_is_held_is_recorded_and_nothing_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what was not begun yet nor what would be tried again."""
    chosen(monkeypatch, freezes="true")
    a_customer("rui", plan="tiers-8m", currencies=("BRL",), now=NOW)
    broken("UPDATE wallets SET last_seq = last_seq + 1 WHERE customer_id = 'rui'")
    audit_due(NOW)

    record_usage(an_envelope(an_event("rui", [tokens(20_000_000)], occurred_at=NOW)), NOW)

    assert one("SELECT tokens FROM periods WHERE customer_id = 'rui'") == (20_000_000,)
    payments = rows("SELECT state FROM payments WHERE kind = 'tier'")
    assert payments == [(PaymentState.DUE.value,)] * 2
    assert claim_due(NOW + timedelta(minutes=1)) == []
    assert one("UPDATE payments SET attempts_made = 1, stripe_payment_intent_id = 'pi_' || tier RETURNING 1") == (1,)
    assert claim_due(NOW + timedelta(minutes=1)) == []
    release(TENANT, "rui", None)
    assert len(claim_due(NOW + timedelta(minutes=1))) >= 2
