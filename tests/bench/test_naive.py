from collections import defaultdict
from contextlib import closing
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from bench import workload
from bench.measure import RedisQueue, watch_drain
from bench.naive import tables, worker
from bench.naive.app import QUEUE, UNACKED
from bench.naive.enqueue import enqueue, message_of
from bench.naive.record import record

CUSTOMERS = 10
STARTED_WITH = Decimal(1000)
Database = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(autouse=True)
def schema(database_url: str) -> None:
    tables.create(database_url, CUSTOMERS)


def test_a_worker_charges_200_events_once_each_though_some_come_twice(
    database_url: str, broker_url: str, database: Database
) -> None:
    enqueue(broker_url, 200, CUSTOMERS)
    enqueue(broker_url, 50, CUSTOMERS, first=150)

    with (
        closing(RedisQueue(broker_url, QUEUE, unacked=UNACKED)) as queue,
        worker.running(database_url, broker_url) as process,
    ):
        watch_drain(queue.left, messages=250, events=250, worker=process, timeout_seconds=60)

    assert worker.charged(database_url) == 200
    assert expected_totals(200) == totals(database)
    assert_every_balance_follows_from_the_one_before(database)


def expected_totals(events: int) -> dict[str, tuple[Decimal, int, int]]:
    """Balance, tokens and number of events of every customer after events 0 to `events - 1`."""
    totals: defaultdict[str, tuple[Decimal, int, int]] = defaultdict(lambda: (STARTED_WITH, 0, 0))
    for usage in workload.usages(0, events, CUSTOMERS):
        name = workload.customer_name(usage.customer)
        cost = usage.prompt_tokens * Decimal("0.00003") + usage.completion_tokens * Decimal("0.00006")
        balance, tokens, count = totals[name]
        totals[name] = (balance - cost, tokens + usage.tokens, count + 1)
    return dict(totals)


def totals(database: Database) -> dict[str, tuple[Decimal, int, int]]:
    rows = database.execute(
        "SELECT external_id, balance, tokens, events FROM naive.customers"
        " JOIN naive.wallets ON wallets.customer_id = customers.id"
        " JOIN naive.periods ON periods.customer_id = customers.id"
    )
    return {name: (balance, tokens, events) for name, balance, tokens, events in rows}


def assert_every_balance_follows_from_the_one_before(database: Database) -> None:
    balances: defaultdict[int, Decimal] = defaultdict(lambda: STARTED_WITH)
    for wallet, amount, balance_after in database.execute(
        "SELECT wallet_id, amount, balance_after FROM naive.ledger_entries ORDER BY id"
    ):
        balances[wallet] += amount
        assert balances[wallet] == balance_after
    assert balances == dict(
        database.execute(
            "SELECT id, balance FROM naive.wallets WHERE id IN (SELECT wallet_id FROM naive.ledger_entries)"
        ).fetchall()
    )


def test_a_round_says_how_fast_its_worker_was(database_url: str, broker_url: str) -> None:
    drained = worker.drain(database_url, broker_url, events=100, customers=CUSTOMERS, hot=True)

    assert drained.events_per_second > 0
    assert worker.charged(database_url) == 100


def test_a_round_refuses_to_start_on_a_broker_that_is_not_empty(database_url: str, broker_url: str) -> None:
    enqueue(broker_url, 3, CUSTOMERS)

    with pytest.raises(RuntimeError, match="3 messages are on the broker already"):
        worker.drain(database_url, broker_url, events=100, customers=CUSTOMERS)


def test_an_event_opens_a_payment_for_every_tier_that_its_tokens_begin(database_url: str, database: Database) -> None:
    steps = [(8_000_000, 0), (1, 1), (7_999_999, 1), (1, 2), (20_000_000, 4)]
    engine = tables.connect(database_url)
    opened = []
    with engine.connect() as connection:
        for number, (tokens, _) in enumerate(steps):
            record(connection, event_of(number, tokens))
            opened.append(count_payments(database))
    engine.dispose()

    assert [payments for _, payments in steps] == opened
    tiers = database.execute("SELECT tier, amount_minor FROM naive.payments ORDER BY tier").fetchall()
    assert tiers == [(1, 40_000), (2, 40_000), (3, 40_000), (4, 40_000)]


def event_of(number: int, tokens: int) -> dict[str, Any]:
    usage = workload.Usage(number, 3, workload.key_of(number), prompt_tokens=tokens, completion_tokens=0)
    return message_of(usage, "2026-11-20T12:00:00+00:00")


def count_payments(database: Database) -> int:
    row = database.execute("SELECT count(*) FROM naive.payments").fetchone()
    assert row is not None
    return int(row[0])
