"""The ceiling: how fast this machine's Postgres takes priced usage over two connections, and nothing else.

No broker, no decoding, no rating, no Celery. Batches of 500 events stand ready as Python lists and two
processes write them, a transaction each. Measured are: dumping those lists to binary arrays, the statements,
the running balances, the commits. The tables are the fewest that still bill: events with their items,
a ledger, wallets, periods.

This file imports nothing of the project and is frozen: it must neither slow down nor speed up because the
project does. Change it, and older figures can't be compared any more.

    python -m bench.ceiling --database postgresql://… --events 200000 --customers 10000 [--hot]
"""

import argparse
import json
import multiprocessing
import random
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from multiprocessing.synchronize import Barrier
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected

from bench import workload
from bench.ceiling_sql import (
    INSERT_ENTRIES,
    INSERT_EVENTS,
    LOCK_WALLETS,
    TABLES,
    UPDATE_WALLETS,
    UPSERT_PERIODS,
)

PROCESSES = 2
EVENTS_PER_BATCH = 500
# Batches that each process writes before the clock starts: connections, plans and caches are warm by then.
WARM_UP_BATCHES = 10
DEADLOCK_RETRIES = 5
START_TIMEOUT_SECONDS = 300

PERIOD_START = datetime(2026, 11, 1, tzinfo=UTC)
STARTING_BALANCE = Decimal(1000)
# Price ids and USD per token.
PROMPT_PRICE = (1, Decimal("0.00003"))
COMPLETION_PRICE = (2, Decimal("0.00006"))


@dataclass(frozen=True, slots=True)
class Plan:
    """What one round writes: events `first` to `first + events - 1` over `customers` customers."""

    database_url: str
    first: int
    events: int
    customers: int
    hot: bool
    warm_up_batches: int

    def __post_init__(self) -> None:
        step = PROCESSES * EVENTS_PER_BATCH
        if self.events % step or self.events <= self.warm_up_batches * step:
            raise ValueError(
                f"events is {self.events}: give a multiple of {step} above the warm-up of "
                f"{self.warm_up_batches * step}, so that both processes write the same number of full batches"
            )

    def batches_of(self, process: int) -> list["Batch"]:
        """Every second batch, so that both processes meet the same customers at the same time."""
        starts = range(
            self.first + process * EVENTS_PER_BATCH,
            self.first + self.events,
            PROCESSES * EVENTS_PER_BATCH,
        )
        return [prepare_batch(start, self.customers, hot=self.hot) for start in starts]


@dataclass(frozen=True, slots=True)
class Batch:
    """The parameters of one transaction: a list per column, events by key and totals by wallet."""

    keys: list[str]
    customers: list[int]
    occurred_at: list[datetime]
    items: list[str]
    tokens: list[int]
    costs: list[Decimal]
    amounts: list[Decimal]
    wallets: list[int]
    wallet_tokens: list[int]
    wallet_events: list[int]
    wallet_costs: list[Decimal]


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one process wrote between two readings of the machine's monotonic clock, in seconds."""

    events: int
    started: float
    ended: float


def create(database_url: str, customers: int) -> None:
    """Drop and make the schema `ceiling` with one wallet per customer."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(
            "INSERT INTO ceiling.wallets SELECT id, %s, 0 FROM generate_series(0, %s - 1) AS id",
            [STARTING_BALANCE, customers],
        )
        connection.execute("VACUUM ANALYZE ceiling.wallets")


def run(
    database_url: str,
    *,
    events: int,
    customers: int,
    hot: bool = False,
    first: int = 0,
    warm_up_batches: int = WARM_UP_BATCHES,
) -> float:
    """One round against the tables that `create` made; events per second after the warm-up.

    The clock runs from the moment both processes are warm until the later one's last commit returned.
    Rounds on the same tables need different events: move `first` on by `events`.
    """
    plan = Plan(database_url, first, events, customers, hot, warm_up_batches)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES, timeout=START_TIMEOUT_SECONDS)
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_keep_barrier, initargs=(barrier,)) as pool:
        stretches = list(pool.map(_write_share, [plan] * PROCESSES, range(PROCESSES)))
    seconds = max(stretch.ended for stretch in stretches) - min(stretch.started for stretch in stretches)
    return sum(stretch.events for stretch in stretches) / seconds


def prepare_batch(first: int, customers: int, *, hot: bool) -> Batch:
    """Lists ready to be dumped; nothing of this is measured."""
    usages = sorted(workload.usages(first, EVENTS_PER_BATCH, customers, hot=hot), key=lambda usage: usage.key)
    lines = [(usage.prompt_tokens * PROMPT_PRICE[1], usage.completion_tokens * COMPLETION_PRICE[1]) for usage in usages]
    costs = [prompt + completion for prompt, completion in lines]
    totals: defaultdict[int, list[Any]] = defaultdict(lambda: [0, 0, Decimal(0)])
    for usage, cost in zip(usages, costs, strict=True):
        total = totals[usage.customer]
        total[0] += usage.tokens
        total[1] += 1
        total[2] += cost
    wallets = sorted(totals)
    return Batch(
        keys=[usage.key for usage in usages],
        customers=[usage.customer for usage in usages],
        occurred_at=[PERIOD_START + timedelta(milliseconds=usage.number) for usage in usages],
        items=[_items_json(usage, *line) for usage, line in zip(usages, lines, strict=True)],
        tokens=[usage.tokens for usage in usages],
        costs=costs,
        amounts=[-cost for cost in costs],
        wallets=wallets,
        wallet_tokens=[totals[wallet][0] for wallet in wallets],
        wallet_events=[totals[wallet][1] for wallet in wallets],
        wallet_costs=[totals[wallet][2] for wallet in wallets],
    )


def write_batch(connection: psycopg.Connection[Any], batch: Batch) -> None:
    """One transaction, tried again a few times should it ever be a deadlock's victim."""
    for retries_left in reversed(range(DEADLOCK_RETRIES + 1)):
        try:
            with connection.pipeline(), connection.transaction():
                _write(connection, batch)
        except DeadlockDetected:
            if not retries_left:
                raise
            time.sleep(random.uniform(0.001, 0.01))
        else:
            return


def _write(connection: psycopg.Connection[Any], batch: Batch) -> None:
    """Two round trips: events and locks; then everything that needs the locked balances."""
    inserted, locked = connection.cursor(binary=True), connection.cursor(binary=True)
    inserted.execute(
        INSERT_EVENTS,
        [
            workload.TENANT,
            batch.keys,
            batch.customers,
            batch.occurred_at,
            batch.items,
            batch.tokens,
            batch.costs,
        ],
    )
    locked.execute(LOCK_WALLETS, [batch.wallets])
    if len(inserted.fetchall()) != len(batch.keys):
        raise ValueError(f"some keys from {batch.keys[0]} on are there already: run with a higher `first`")
    sequence, balances = _running_balances(batch, locked.fetchall())
    final = connection.cursor()
    final.execute(INSERT_ENTRIES, [batch.customers, sequence, batch.amounts, balances, batch.keys])
    final.execute(UPDATE_WALLETS, [batch.wallets, batch.wallet_events, batch.wallet_costs])
    final.execute(
        UPSERT_PERIODS,
        [PERIOD_START, batch.wallets, batch.wallet_tokens, batch.wallet_events, batch.wallet_costs],
    )


def _running_balances(batch: Batch, wallets: list[tuple[int, Decimal, int]]) -> tuple[list[int], list[Decimal]]:
    """Each event's place in its wallet's ledger, and the balance after it."""
    balance_of = {wallet: balance for wallet, balance, _ in wallets}
    entries_of = {wallet: entries for wallet, _, entries in wallets}
    sequence, balances = [], []
    for customer, cost in zip(batch.customers, batch.costs, strict=True):
        balance_of[customer] -= cost
        entries_of[customer] += 1
        balances.append(balance_of[customer])
        sequence.append(entries_of[customer])
    return sequence, balances


def _items_json(usage: workload.Usage, prompt_cost: Decimal, completion_cost: Decimal) -> str:
    """Two items as price id, quantity and cost: the rest of an item can be looked up by its price."""
    return json.dumps(
        [
            {"price": PROMPT_PRICE[0], "quantity": usage.prompt_tokens, "cost": str(prompt_cost)},
            {"price": COMPLETION_PRICE[0], "quantity": usage.completion_tokens, "cost": str(completion_cost)},
        ]
    )


_barrier: Barrier | None = None


def _keep_barrier(barrier: Barrier) -> None:
    # A barrier reaches a process only while that is being started, not as an argument of its work.
    global _barrier  # noqa: PLW0603
    _barrier = barrier


def _write_share(plan: Plan, process: int) -> Stretch:
    """The work of one process: prepare, warm up, wait for the other, write."""
    assert _barrier is not None
    try:
        batches = plan.batches_of(process)
        with psycopg.connect(plan.database_url, prepare_threshold=0) as connection:
            for batch in batches[: plan.warm_up_batches]:
                write_batch(connection, batch)
            _barrier.wait()
            return _timed(connection, batches[plan.warm_up_batches :])
    except BaseException:
        _barrier.abort()  # or the other process would wait for the one that failed
        raise


def _timed(connection: psycopg.Connection[Any], batches: list[Batch]) -> Stretch:
    started = time.monotonic()
    for batch in batches:
        write_batch(connection, batch)
    return Stretch(len(batches) * EVENTS_PER_BATCH, started, time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ceiling", description="The frozen ceiling.")
    parser.add_argument("--database", required=True, help="Postgres URL; the schema `ceiling` is replaced")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--hot", action="store_true", help="half of the events belong to one customer")
    options = parser.parse_args()
    create(options.database, options.customers)
    rate = run(options.database, events=options.events, customers=options.customers, hot=options.hot)
    print(f"{rate:,.0f} events/s")


if __name__ == "__main__":
    main()
