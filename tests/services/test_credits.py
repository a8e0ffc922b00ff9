"""Value given to customers: once per key, exactly, and on record."""

import threading
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest
from structlog.testing import capture_logs

from billing.errors import IdempotencyConflict, Rejected, WalletNotFound
from services.credits import Grant, Granted, grant
from services.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import Entry, entries, one, rows, wallet
from tests.services.elsewhere import ended, started

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def a_grant(amount: str = "10", *, customer: str = "ana", currency: str = "USD", key: str = "k", **more: str) -> Grant:
    said = {"source": "promo", "reason": "new_user_bonus"} | more
    return Grant(TENANT, customer, currency, Decimal(amount), idempotency_key=key, **said)


def test_a_grant_raises_the_balance_and_is_on_record() -> None:
    catalogues()
    a_customer("ana")

    with capture_logs() as logs:
        granted = grant(a_grant("0.000000000001"), NOW)

    smallest = Decimal("0.000000000001")
    assert granted == Granted(smallest, smallest, "USD", is_new=True)
    assert entries("ana") == [Entry(1, "grant", smallest, smallest)]
    assert wallet("ana") == smallest
    assert one("SELECT contra, reason, idempotency_key, recorded_at FROM ledger_entries") == (
        "grants:promo",
        "new_user_bonus",
        "k",
        NOW,
    )
    assert [(log["event"], log["amount"]) for log in logs] == [("credits granted", "0.000000000001")]


def test_the_same_key_again_gives_nothing_and_answers_the_same() -> None:
    catalogues()
    a_customer("ana")
    first = grant(a_grant("10"), NOW)
    grant(a_grant("5", key="other"), NOW)

    again = grant(a_grant("10.000"), NOW)

    assert again == Granted(first.amount, first.balance_after, "USD", is_new=False)
    assert wallet("ana") == 15


@pytest.mark.parametrize(
    "changes", [{"amount": "11"}, {"customer": "bob"}, {"currency": "BRL"}, {"reason": "goodwill"}]
)
def test_the_same_key_for_something_else_is_a_conflict(changes: dict[str, str]) -> None:
    catalogues()
    for customer in ("ana", "bob"):
        a_customer(customer, currencies=("USD", "BRL"))
    grant(a_grant(), NOW)

    with pytest.raises(IdempotencyConflict, match="granted='10', to='ana'"):
        grant(a_grant(**changes), NOW)

    assert [row[0] for row in rows("SELECT balance FROM wallets WHERE balance <> 0")] == [10]


def test_the_same_key_from_another_source_is_a_conflict() -> None:
    catalogues()
    a_customer("ana")
    grant(a_grant(), NOW)

    with pytest.raises(IdempotencyConflict):
        grant(a_grant(source="purchase"), NOW)


def test_grants_of_one_key_in_several_processes_end_in_one_entry() -> None:
    """All wait for the customer's lock together, then one after the other."""
    catalogues()
    a_customer("ana")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(_url()) as holder, psycopg.connect(_url(), autocommit=True) as watcher:
        holder.execute("SELECT FROM wallets FOR UPDATE")
        processes = [started("grant", TENANT, "ana", "USD", "10", "k") for _ in range(2)]
        while all(process.poll() is None for process in processes):
            if watcher.execute(waiting).fetchone() == (2,):
                break

    results = [ended(process) for process in processes]

    assert sorted(said.split()[-1] for status, said in results if status == 0) == ["again", "new"]
    assert entries("ana") == [Entry(1, "grant", Decimal(10), Decimal(10))]


def test_one_key_for_two_customers_at_the_same_time_is_a_conflict() -> None:
    """Each holds its own customer's lock, so neither sees the other's entry before it is committed."""
    catalogues()
    for customer in ("ana", "bob"):
        a_customer(customer)
    failures: list[Exception] = []

    def to_ana() -> None:
        try:
            grant(a_grant(), NOW)
        except Exception as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    thread = threading.Thread(target=to_ana)
    with psycopg.connect(_url()) as other, psycopg.connect(_url(), autocommit=True) as watcher:
        other.execute(
            "INSERT INTO ledger_entries SELECT tenant_id, wallet_id, 1, 5, 5, 'grant', 'grants:promo', 'bonus', NULL,"
            " NULL, 'k', %(now)s, %(now)s FROM wallets WHERE customer_id = 'bob'",
            {"now": NOW},
        )
        other.execute("UPDATE wallets SET balance = 5, received_total = 5, last_seq = 1 WHERE customer_id = 'bob'")
        thread.start()
        while thread.is_alive() and watcher.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount == 0:
            pass
    thread.join()

    assert wallet("ana") == 0
    with pytest.raises(IdempotencyConflict):
        raise failures[0]


def test_debt_is_paid_first_by_what_arrives() -> None:
    catalogues()
    a_customer("ana")
    record_usage(an_envelope(an_event("ana", [tokens(1_000_000)])), datetime.now(UTC))

    granted = grant(a_grant("50"), NOW)

    assert granted.balance_after == 20
    assert [int(entry.balance_after) for entry in entries("ana")] == [-30, 20]


def test_an_amount_that_no_wallet_can_hold_is_refused() -> None:
    """Rather than rounded: what was granted is what was asked for."""
    catalogues()
    a_customer("ana")

    for amount in ("0", "-1", "NaN", "Infinity", "1E24", "0.0000000000001", "1." + "0" * 69 + "1", "1E-400"):
        with pytest.raises(Rejected, match="amount"):
            grant(a_grant(amount), NOW)

    assert entries("ana") == []


def test_the_largest_amount_is_held_exactly() -> None:
    catalogues()
    a_customer("ana")
    largest = Decimal("999999999999999999999999.999999999999")

    grant(a_grant(str(largest)), NOW)
    grant(a_grant("0.000000000001", key="other"), NOW)

    assert wallet("ana") == Decimal("1E24")


@pytest.mark.parametrize("changes", [{"customer": "nobody"}, {"currency": "EUR"}])
def test_there_must_be_a_wallet_to_give_to(changes: dict[str, str]) -> None:
    catalogues()
    a_customer("ana")

    with pytest.raises(WalletNotFound):
        grant(a_grant(**changes), NOW)


def _url() -> str:
    from config.settings import settings

    return settings().required("database_url")
