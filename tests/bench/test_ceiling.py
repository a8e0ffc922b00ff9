import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from bench import ceiling, workload

CUSTOMERS = 100
EVENTS = 3_000
STARTED_WITH = Decimal(1000)
Database = psycopg.Connection[tuple[Any, ...]]


def cost_of(usage: workload.Usage) -> Decimal:
    return usage.prompt_tokens * Decimal("0.00003") + usage.completion_tokens * Decimal("0.00006")


def expected_wallets(*, hot: bool) -> dict[int, tuple[Decimal, int]]:
    """Balance and number of entries of every wallet after events 0 to EVENTS - 1."""
    spent: defaultdict[int, Decimal] = defaultdict(Decimal)
    entries: defaultdict[int, int] = defaultdict(int)
    for usage in workload.usages(0, EVENTS, CUSTOMERS, hot=hot):
        spent[usage.customer] += cost_of(usage)
        entries[usage.customer] += 1
    return {wallet: (STARTED_WITH - spent[wallet], entries[wallet]) for wallet in range(CUSTOMERS)}


def wallets(database: Database) -> dict[int, tuple[Decimal, int]]:
    rows = database.execute("SELECT id, balance, entries FROM ceiling.wallets").fetchall()
    return {wallet: (balance, entries) for wallet, balance, entries in rows}


@pytest.fixture
def tables(database_url: str) -> None:
    ceiling.create(database_url, CUSTOMERS)


@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.usefixtures("tables")
def test_a_round_charges_every_event_once_and_leaves_tables_that_agree(
    database_url: str, database: Database, hot: bool
) -> None:
    rate = ceiling.run(database_url, events=EVENTS, customers=CUSTOMERS, hot=hot, warm_up_batches=1)

    assert rate > 0
    assert expected_wallets(hot=hot) == wallets(database)
    assert_ledger_adds_up(database)
    assert_periods_agree_with_events(database)


def assert_ledger_adds_up(database: Database) -> None:
    """Entries of a wallet are numbered from 1 without a gap, and each balance follows from the one before."""
    ledger: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for wallet, *entry in database.execute(
        "SELECT wallet_id, seq, amount, balance_after FROM ceiling.ledger_entries ORDER BY wallet_id, seq"
    ):
        ledger[wallet].append(tuple(entry))
    for entries in ledger.values():
        balance = STARTED_WITH
        for number, (seq, amount, balance_after) in enumerate(entries, start=1):
            balance += amount
            assert (number, balance) == (seq, balance_after)
    entries_without_event = database.execute(
        "SELECT count(*) FROM ceiling.ledger_entries"
        " FULL JOIN ceiling.usage_events ON event_key = key AND amount = -cost AND wallet_id = customer_id"
        " WHERE event_key IS NULL OR key IS NULL"
    ).fetchone()
    assert entries_without_event == (0,)


def assert_periods_agree_with_events(database: Database) -> None:
    by_period = database.execute(
        "SELECT customer_id, start_at, tokens, events, cost FROM ceiling.periods ORDER BY 1"
    ).fetchall()
    by_event = database.execute(
        "SELECT customer_id, %s::timestamptz, sum(tokens), count(*), sum(cost)"
        " FROM ceiling.usage_events GROUP BY 1 ORDER BY 1",
        [datetime(2026, 11, 1, tzinfo=UTC)],
    ).fetchall()
    assert by_event == by_period


@pytest.mark.usefixtures("tables")
def test_an_event_keeps_both_items_with_their_costs(database_url: str, database: Database) -> None:
    batch = ceiling.prepare_batch(0, CUSTOMERS, hot=False)
    with psycopg.connect(database_url) as connection:
        ceiling.write_batch(connection, batch)

    usage = workload.usage(0, CUSTOMERS)
    row = database.execute(
        "SELECT customer_id, items, tokens, cost FROM ceiling.usage_events WHERE key = %s", [usage.key]
    ).fetchone()
    items = [
        {"price": 1, "quantity": usage.prompt_tokens, "cost": f"{usage.prompt_tokens * 3 / 100_000:.5f}"},
        {"price": 2, "quantity": usage.completion_tokens, "cost": f"{usage.completion_tokens * 6 / 100_000:.5f}"},
    ]
    assert (usage.customer, items, usage.tokens, cost_of(usage)) == row


@pytest.mark.usefixtures("tables")
def test_events_that_are_there_already_are_refused_and_charge_nothing(database_url: str, database: Database) -> None:
    batch = ceiling.prepare_batch(0, CUSTOMERS, hot=False)
    with psycopg.connect(database_url) as connection:
        ceiling.write_batch(connection, batch)
        before = wallets(database)

        with pytest.raises(ValueError, match="run with a higher `first`"):
            ceiling.write_batch(connection, batch)

    assert before == wallets(database)


@pytest.mark.usefixtures("tables")
def test_a_batch_that_a_deadlock_rolls_back_is_written_again(database_url: str, database: Database) -> None:
    batch = ceiling.prepare_batch(0, CUSTOMERS, hot=False)
    first, last = batch.wallets[0], batch.wallets[-1]
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(database_url) as writer,
        psycopg.connect(database_url, options="-c deadlock_timeout=1min") as rival,
    ):
        lock(rival, last)
        written = pool.submit(ceiling.write_batch, writer, batch)
        wait_until_blocked(database, writer.info.backend_pid)
        lock(rival, first)  # returns once the writer, whose deadlock timer is shorter, has given way
        rival.rollback()
        written.result(timeout=10)

    assert deadlocks(database) >= 1
    assert database.execute("SELECT count(*) FROM ceiling.ledger_entries").fetchone() == (500,)
    assert sum(entries for _, entries in wallets(database).values()) == 500


def lock(connection: Database, wallet: int) -> None:
    connection.execute("SELECT FROM ceiling.wallets WHERE id = %s FOR NO KEY UPDATE", [wallet])


def wait_until_blocked(database: Database, pid: int) -> None:
    deadline = time.monotonic() + 10
    while database.execute("SELECT cardinality(pg_blocking_pids(%s))", [pid]).fetchone() == (0,):
        assert time.monotonic() < deadline, "the writer never waited for the rival's lock"


def deadlocks(database: Database) -> int:
    database.execute("SELECT pg_stat_force_next_flush()")
    row = database.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("events", [0, 1_500, 20_000, 20_001])
def test_a_round_must_hold_full_batches_for_both_processes_beyond_the_warm_up(events: int) -> None:
    with pytest.raises(ValueError, match=f"events is {events}: give a multiple of 1000"):
        ceiling.run("postgresql:///never-used", events=events, customers=10, warm_up_batches=20)
