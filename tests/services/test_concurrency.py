"""Several at once, on the same customers: nobody deadlocks, and the sums are those of one after the other."""

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from billing.prices import LadderSpan, Rung
from centavo import Item
from config.settings import settings
from db.prices import NewPrice
from services.books.credits import Grant, grant
from services.books.customers import NewCustomer, create_customers
from services.desk.prices import load_prices
from services.metering.usage import Outcome, record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows, wallet
from tests.services.elsewhere import ended, started

pytestmark = pytest.mark.usefixtures("billing_database")

CUSTOMERS = [f"c{number}" for number in range(6)]
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
#: In reais, on a ladder over the month: ten at 2, the rest at 1.
IN_REAIS = NewPrice(
    *("", "llm", "meta", "llama", "second", "BRL"),
    Decimal(0),
    Decimal(1),
    (Rung(Decimal(10), Decimal(2)), Rung(None, Decimal(1))),
    LadderSpan.PERIOD,
    False,
    False,
    BEGAN,
    0,
    None,
)


def test_overlapping_envelopes_in_two_processes_end_exact(tmp_path: Path) -> None:
    """Two currencies, six customers, every event in two envelopes: once charged, and no deadlock on the way."""
    now = datetime.now(UTC)
    catalogues(now)
    load_prices([IN_REAIS], now)
    for customer in CUSTOMERS:
        a_customer(customer, currencies=("USD", "BRL"), credit="1")
    chance = random.Random(7)
    second = Item(category="llm", provider="meta", model="llama", unit="second", quantity=Decimal("0.5"))
    kinds = [[tokens(10)], [second]]
    events = [an_event(CUSTOMERS[n % 6], kinds[n // 6 % 2], key=f"k{n:04}") for n in range(1800)]
    orders = []
    for name in ("one", "other"):
        chance.shuffle(events)
        files = []
        for start in range(0, 1800, 300):
            path = tmp_path / f"{name}-{start}"
            path.write_bytes(an_envelope(*events[start : start + 300]))
            files.append(str(path))
        orders.append(files)

    processes = [started("record", *files) for files in orders]
    results = [ended(process) for process in processes]

    assert [status for status, _ in results] == [0, 0], results
    assert one("SELECT count(*) FROM usage_events WHERE status = 'charged'") == (1800,)
    for customer in CUSTOMERS:
        assert wallet(customer) == 1 - 150 * Decimal("0.0003")
        assert wallet(customer, "BRL") == -(10 * 2 + 65)
    assert one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == (0,)


def test_other_events_of_the_same_customers_in_two_processes_end_exact(tmp_path: Path) -> None:
    """No key holds one of them back: they meet at the wallets of forty customers, all locked by each transaction."""
    now = datetime.now(UTC)
    catalogues(now)
    load_prices([IN_REAIS], now)
    names = [f"c{number}" for number in range(40)]
    create_customers([NewCustomer(TENANT, name, "prepaid", currencies=("USD", "BRL")) for name in names], now)
    chance = random.Random(11)
    second = Item(category="llm", provider="meta", model="llama", unit="second", quantity=Decimal(1))
    orders: list[list[str]] = [[], []]
    for number in range(24):
        events = [an_event(name, kind) for name in names for kind in ([tokens(10)], [second])]
        chance.shuffle(events)
        path = tmp_path / str(number)
        path.write_bytes(an_envelope(*events))
        orders[number % 2].append(str(path))

    with psycopg.connect(settings().required("database_url")) as holder:
        holder.execute("SELECT FROM wallets ORDER BY wallet_id FOR UPDATE")
        processes = [started("record", *files) for files in orders]
        _until_waiting(lambda: all(process.poll() is None for process in processes), 2)
    results = [ended(process) for process in processes]

    assert [status for status, _ in results] == [0, 0], results
    balances = set(rows("SELECT currency, balance FROM wallets"))
    assert balances == {("USD", -24 * Decimal("0.0003")), ("BRL", Decimal(-(10 * 2 + 14)))}
    assert one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == (0,)


def test_grants_and_usage_at_once_end_exact(tmp_path: Path) -> None:
    """A wallet that is given to while it is used: both go through the same lock."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana")
    files = []
    for number in range(20):
        path = tmp_path / str(number)
        path.write_bytes(an_envelope(*[an_event("ana", [tokens(1000)]) for _ in range(10)]))
        files.append(str(path))

    usage = started("record", *files)
    for number in range(50):
        grant(Grant(TENANT, "ana", "USD", Decimal("0.12"), "promo", "drip", f"drip-{number}"), now)
    status, said = ended(usage)

    assert status == 0, said
    assert wallet("ana") == 0
    assert one("SELECT count(*), max(seq) FROM ledger_entries") == (250, 250)


def test_a_period_that_closes_before_the_lock_makes_the_transaction_run_again() -> None:
    """The event was placed in October while that was open; under the lock it is closed, so November counts it."""
    october, november = datetime(2026, 10, 20, tzinfo=UTC), datetime(2026, 11, 6, tzinfo=UTC)
    catalogues()
    a_customer("ana", plan="tiers-8m", currencies=("BRL",), now=october)
    record_usage(an_envelope(an_event("ana", [tokens(7)], occurred_at=october)), october)

    def close(connection: psycopg.Connection) -> None:
        connection.execute(
            "UPDATE periods SET opened_at = starts_at, closed_at = %s WHERE ends_at < %s", (november, november)
        )

    outcome = _meanwhile(
        close, lambda: record_usage(an_envelope(an_event("ana", [tokens(5)], occurred_at=october)), november)
    )

    assert outcome == Outcome(received=1, charged=1)
    assert rows("SELECT tokens, events, closed_at IS NULL FROM periods ORDER BY starts_at") == [
        (7, 1, False),
        (5, 1, True),
    ]
    assert rows("SELECT is_late FROM usage_events ORDER BY tokens") == [(True,), (False,)]


def test_a_period_that_another_begins_meanwhile_is_counted_in_by_both() -> None:
    """Both saw no row for November; one of them inserts it, and the tiers follow from the sum."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", plan="tiers-8m", currencies=("BRL",))
    first, second = (an_envelope(an_event("ana", [tokens(8_000_000)])) for _ in range(2))

    def other(_connection: psycopg.Connection) -> None:
        processes.append(_wait_for_the_lock_too(second))

    processes: list[threading.Thread] = []
    outcome = _meanwhile(other, lambda: record_usage(first, now))
    processes[0].join()

    assert outcome.charged == 1
    assert rows("SELECT tokens, events, tiers_reached FROM periods") == [(16_000_000, 2, 1)]
    assert rows("SELECT tier, amount_minor, state FROM payments") == [(1, 10_000, "due")]


def test_a_cap_that_is_set_before_the_lock_counts_what_waits_for_it() -> None:
    """Also the tenant's first, of which nothing that is kept could know; and one that ends counts nothing more."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", credit="100", now=now)
    record_usage(an_envelope(an_event("ana", [tokens(1000)], key="before")), now)
    changes = (AN_OWN_QUOTA, b"UPDATE quotas SET limit_value = 0", b"UPDATE quotas SET ended_at = now()")

    def counted_when(number: int, change: bytes) -> tuple[object, ...]:
        envelope = an_envelope(an_event("ana", [tokens(1000)], key=f"k{number}"))
        _meanwhile(lambda holder: holder.execute(change), lambda: record_usage(envelope, now))
        return one("SELECT cardinality(quota_ids), over_quota FROM usage_events WHERE key = %s", f"k{number}")

    counted = [counted_when(number, change) for number, change in enumerate(changes)]

    assert counted == [(1, None), (1, True), (None, None)]


AN_OWN_QUOTA = b"""
INSERT INTO quotas (tenant_id, name, kind, scope, subject, per, time_zone, measure, limit_value, is_hard, created_at,
    updated_at)
SELECT tenant_id, 'own', 'quota', 'customer', customer_id, 'month', 'UTC', 'tokens', 1000000, true, now(), now()
FROM customers
"""


def _meanwhile(change: Callable[[psycopg.Connection], object], work: Callable[[], Outcome]) -> Outcome:
    """Do `work` until it waits for the customer's lock, make the change under that lock, and let it go on."""
    outcomes: list[Outcome] = []
    url = settings().required("database_url")
    thread = threading.Thread(target=lambda: outcomes.append(work()))
    with psycopg.connect(url) as holder:
        holder.execute("SELECT FROM wallets ORDER BY wallet_id FOR UPDATE")
        thread.start()
        _until_waiting(thread.is_alive, 1)
        change(holder)
    thread.join()
    return outcomes[0]


def _wait_for_the_lock_too(envelope: bytes) -> threading.Thread:
    thread = threading.Thread(target=lambda: record_usage(envelope, datetime.now(UTC)))
    thread.start()
    _until_waiting(thread.is_alive, 2)
    return thread


def _until_waiting(are_alive: Callable[[], bool], number: int) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(settings().required("database_url"), autocommit=True) as watcher:
        while are_alive() and watcher.execute(waiting).fetchone() != (number,):
            pass


def test_a_migration_between_two_envelopes_disturbs_neither() -> None:
    """What was prepared for the tables as they were is prepared again."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", credit="100", now=now)
    alter = b"ALTER TABLE price_book ALTER COLUMN revision TYPE numeric"

    for number in range(4):
        if number == 3:
            with psycopg.connect(settings().required("database_url"), autocommit=True) as other:
                other.execute(alter)
        assert record_usage(an_envelope(an_event("ana", key=f"k{number}")), now).charged == 1
