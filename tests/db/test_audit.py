"""Each check of the audit finds the one row that was made wrong behind everybody's back, and no other check does."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest

from billing.prices import LadderSpan, Rung
from config.settings import SANDBOX_STRIPE_KEY
from db import audit
from db.prices import NewPrice
from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.server import served
from services import cards, gateways
from services.collect import claim_due, collect
from services.prices import load_prices
from services.usage import record_usage
from tests.conftest import _forget
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens

CORRUPTIONS: list[tuple[str, str]] = [
    (
        "wallet balance is the sum of its entries",
        "UPDATE wallets SET balance = balance + 1, received_total = received_total + 1 WHERE customer_id = 'ana'",
    ),
    (
        "wallet balance is the sum of its entries",
        "UPDATE wallets SET used_total = used_total + 1, received_total = received_total + 1 WHERE customer_id = 'ana'",
    ),
    (
        "wallet balance is the sum of its entries",
        "UPDATE wallets SET last_seq = last_seq + 1 WHERE customer_id = 'ana'",
    ),
    (
        "each entry's balance follows from the one before",
        "UPDATE ledger_entries SET balance_after = balance_after + 0.000000000001 WHERE seq = 2 AND kind = 'usage'",
    ),
    (
        "a charged event's cost is debited once, from its customer's wallet",
        "UPDATE ledger_entries SET event_key = 'nobody' WHERE event_key = 'ana-1'",
    ),
    (
        "a charged event's cost is debited once, from its customer's wallet",
        "UPDATE ledger_entries SET event_key = 'ana-2' WHERE event_key = 'ana-1'",
    ),
    (
        "a charged event's cost is debited once, from its customer's wallet",
        "UPDATE usage_events SET currency = 'EUR' WHERE key = 'ana-1'",
    ),
    (
        "an event's cost and tokens are those of its lines",
        """UPDATE usage_events SET items = jsonb_set(items, '{0,cost}', '"0.000000000001"') WHERE key = 'ana-1'""",
    ),
    (
        "an event's cost and tokens are those of its lines",
        """UPDATE usage_events SET items = jsonb_set(items, '{0,quantity}', '"1001"') WHERE key = 'ana-1'""",
    ),
    (
        "a period's tokens are those of its events",
        "UPDATE periods SET events = events + 1 WHERE customer_id = 'ana'",
    ),
    (
        "a period's tokens are those of its events",
        "UPDATE periods SET tokens = tokens - 1 WHERE customer_id = 'ana'",
    ),
    (
        "a period's tokens are those of its events",
        "DELETE FROM periods WHERE customer_id = 'ana'",
    ),
    (
        "a ladder's quantities are those of its events",
        "UPDATE period_quantities SET quantity = quantity + 0.000000000001",
    ),
    ("a ladder's quantities are those of its events", "DELETE FROM period_quantities"),
    (
        "the tiers that were reached are owed, and each has a payment",
        "UPDATE periods SET tiers_reached = 3 WHERE customer_id = 'bob'",
    ),
    (
        "the tiers that were reached are owed, and each has a payment",
        "DELETE FROM payments WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "the tiers that were reached are owed, and each has a payment",
        "UPDATE payments SET state = 'voided', due_at = NULL WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "the tiers that were reached are owed, and each has a payment",
        "UPDATE payments SET tier = 7 WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "the tiers that were reached are owed, and each has a payment",
        "UPDATE payments SET period_start = period_start + interval '1 s' WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "a tier payment asks for its plan's fee",
        "UPDATE payments SET amount_minor = amount_minor - 1 WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "a tier payment asks for its plan's fee",
        "UPDATE payments SET currency = 'USD' WHERE customer_id = 'bob' AND state = 'due'",
    ),
    (
        "only a payment that succeeded has an attempt that did, and one at most",
        "UPDATE payments SET state = 'uncollectible', succeeded_at = NULL WHERE state = 'succeeded'",
    ),
    (
        "what is owed once has one live payment",
        """INSERT INTO payments (tenant_id, payment_id, customer_id, period_start, kind, tier, generation, amount_minor,
            currency, state, due_at, created_at, updated_at)
        SELECT tenant_id, gen_random_uuid(), customer_id, period_start, kind, tier, 1, amount_minor, currency, state,
            due_at, created_at, updated_at FROM payments WHERE state = 'due'""",
    ),
    (
        "a top-up's value is what the wallet got of it",
        """INSERT INTO payments (tenant_id, payment_id, customer_id, period_start, kind, tier, generation, reference,
            amount_minor, currency, state, created_at, updated_at, succeeded_at, wallet_id, credit_amount, credit_given)
        SELECT tenant_id, gen_random_uuid(), customer_id, created_at, 'top_up', 0, 0, 'x', 1, 'BRL', 'succeeded',
            created_at, created_at, created_at, wallet_id, 5, 5
        FROM wallets WHERE customer_id = 'bob'""",
    ),
    (
        "a payment's attempts are those it counts",
        "UPDATE payments SET attempts_made = 0 WHERE state = 'succeeded'",
    ),
    ("a payment's attempts are those it counts", "UPDATE payment_attempts SET attempt = 2"),
    (
        "events belong to a customer, and entries to a wallet",
        """INSERT INTO usage_events (tenant_id, key, customer_id, status, occurred_at, recorded_at, is_late, tokens,
            cost, items, fingerprint, fingerprint_version, park_reason)
        VALUES ('acme', 'stray', 'nobody', 'parked', now(), now(), false, 0, 0, '[]', '', 1, 'unpriced')""",
    ),
    (
        "events belong to a customer, and entries to a wallet",
        """INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, occurred_at,
            recorded_at)
        VALUES ('acme', 0, 1, 0, 0, 'adjustment', 'x', now(), now())""",
    ),
]


@pytest.fixture(scope="module")
def billed_database(shared_database: str) -> str:
    """Wallets debited, a ladder climbed, two tiers reached, one of them collected: all through the services."""
    with served(StripeDouble()) as double, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "DATABASE_URL": shared_database,
            "STRIPE_API_BASE": double,
            "STRIPE_SECRET_KEY": SANDBOX_STRIPE_KEY,
            "ENVIRONMENT": "sandbox",
        }.items():
            patch.setenv(f"CENTAVO_{name}", value)
        _forget()
        _bill()
        _forget()
    _forget()
    return shared_database


def _bill() -> None:
    now = datetime.now(UTC)
    catalogues(now)
    ladder = (Rung(Decimal(1000), Decimal("0.01")), Rung(None, Decimal("0.005")))
    climbing = ("", "llm", "meta", "llama", "token", "USD", Decimal(0), Decimal(1), ladder, LadderSpan.PERIOD)
    load_prices([NewPrice(*climbing, False, False, datetime(2026, 1, 1, tzinfo=UTC), 0, None)], now)
    a_customer("ana", credit="10")
    a_customer("bob", plan="tiers-8m", currencies=("BRL",))
    llama = tokens(700).model_copy(update={"category": "llm", "provider": "meta", "model": "llama"})
    cards.attach(TENANT, "bob", "pm_card_visa", gateways.gateway(), now)
    record_usage(
        an_envelope(
            an_event("ana", key="ana-1"),
            an_event("ana", key="ana-2"),
            *[an_event("ana", [llama, tokens(5)], key=f"ladder-{n}") for n in range(3)],
            an_event("ana", [tokens(1, model="unheard-of")], key="parked"),
            an_event("bob", [tokens(16_000_001)], key="bob-1"),
        ),
        now,
    )
    collect(*claim_due(now)[0], gateways.gateway(), now)


@pytest.fixture
def connection(billed_database: str) -> Iterator[psycopg.Connection]:
    """A transaction past every trigger and foreign key, rolled back with the test."""
    with psycopg.connect(billed_database) as connection:
        connection.execute("SET session_replication_role = replica")
        yield connection
        connection.rollback()


def found(connection: psycopg.Connection) -> dict[str, int]:
    differences = {check: audit.run(connection, check)[0] for check in audit.CHECKS}
    return {check: number for check, number in differences.items() if number}


def test_what_was_billed_agrees_with_itself(connection: psycopg.Connection) -> None:
    """And it is worth looking at: every table that a check reads has rows."""
    assert found(connection) == {}
    tables = ("wallets", "ledger_entries", "usage_events", "periods", "period_quantities", "payments")
    for table in (*tables, "payment_attempts"):
        assert connection.execute(f"SELECT count(*) > 0 FROM {table}".encode()).fetchone() == (True,), table
    assert connection.execute("SELECT array_agg(state ORDER BY state) FROM payments").fetchone() == (
        ["due", "succeeded"],
    )


@pytest.mark.parametrize(("check", "corruption"), CORRUPTIONS)
def test_each_check_finds_what_it_looks_for(connection: psycopg.Connection, check: str, corruption: str) -> None:
    """And only that check: what it says is what is wrong."""
    changed = connection.execute(corruption.encode()).rowcount

    assert changed > 0
    assert found(connection).keys() == {check}


def test_every_check_is_tried() -> None:
    """A new check comes with a new line above."""
    assert audit.CHECKS.keys() == {check for check, _ in CORRUPTIONS}


def test_a_difference_names_the_row_and_both_values(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE ledger_entries SET balance_after = 5 WHERE seq = 1")
    wallet = connection.execute("SELECT wallet_id FROM wallets WHERE customer_id = 'ana'").fetchone()
    assert wallet is not None

    number, shown = audit.run(connection, "each entry's balance follows from the one before")

    assert number == 1
    assert shown == [
        audit.Difference(
            "each entry's balance follows from the one before",
            TENANT,
            f"{wallet[0]} #1",
            "1 10.000000000000",
            "1 5.000000000000",
        )
    ]


def test_many_differences_are_counted_and_the_first_are_shown(connection: psycopg.Connection) -> None:
    connection.execute(
        "INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, occurred_at,"
        " recorded_at) SELECT 'acme', n, 1, 0, 0, 'adjustment', 'x', now(), now() FROM generate_series(1000, 1099) n"
    )

    number, shown = audit.run(connection, "events belong to a customer, and entries to a wallet")

    assert (number, len(shown)) == (100, audit.SHOWN_MAX)


def test_what_there_is_is_counted(connection: psycopg.Connection) -> None:
    """Every event has one status, so the counts of the statuses sum to the events."""
    counts = audit.counts(connection)

    assert counts == {
        "events": 7,
        "charged": 6,
        "pending": 0,
        "voided": 0,
        "parked_events": 1,
        "parked_inputs": 0,
        "entries": 6,
        "payments": 2,
    }
