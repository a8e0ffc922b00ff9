"""From `emit` to a balance that others can see, at a steady rate."""

import threading
import time
from dataclasses import dataclass
from decimal import Decimal

import psycopg

from bench import workload
from bench.drain import Target, worker
from bench.measure import percentile
from centavo import Item, Producer, UsageEvent

LOOK_SECONDS = 0.002
READY_SECONDS = 30.0
CATCH_UP_SECONDS = 30.0
#: An odd number: prepaid, so that every event moves the balance.
CUSTOMER = 1


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the call of `emit` to the first look that saw the event in the wallet."""

    events: int
    median_ms: float
    p99_ms: float
    max_ms: float


def measure_latency(target: Target, *, events_per_second: int = 500, seconds: float = 20) -> Latency:
    """Emit at a steady rate to one customer while a worker runs, and watch that customer's wallet.

    The n-th event counts as visible when the wallet's ledger is n entries longer.
    """
    number = int(events_per_second * seconds)
    with worker(target.database_url, target.broker_url), Producer(target.broker_url) as producer:
        _warm_up(target, producer)
        start = _entries(target)
        seen: list[float] = []
        watcher = threading.Thread(target=_watch, args=(target, start, number, seen))
        watcher.start()
        emitted = _emit(producer, number, 1 / events_per_second)
        watcher.join(CATCH_UP_SECONDS)
    if len(seen) < number:
        raise RuntimeError(f"{number} events were emitted, {len(seen)} became visible")
    waits = [(visible - began) * 1000 for began, visible in zip(emitted, seen, strict=True)]
    return Latency(number, percentile(waits, 0.5), percentile(waits, 0.99), max(waits))


def _emit(producer: Producer, number: int, gap: float) -> list[float]:
    began, emitted = time.perf_counter(), []
    for n in range(number):
        time.sleep(max(0.0, began + n * gap - time.perf_counter()))
        emitted.append(time.perf_counter())
        producer.emit(_event())
    return emitted


def _watch(target: Target, start: int, number: int, seen: list[float]) -> None:
    deadline = time.perf_counter() + number / 100 + CATCH_UP_SECONDS
    with psycopg.connect(target.database_url, autocommit=True) as connection:
        while len(seen) < number and time.perf_counter() < deadline:
            visible = _entries_on(connection) - start
            now = time.perf_counter()
            seen.extend([now] * (visible - len(seen)))
            time.sleep(LOOK_SECONDS)


def _warm_up(target: Target, producer: Producer) -> None:
    before, deadline = _entries(target), time.monotonic() + READY_SECONDS
    for _ in range(20):
        producer.emit(_event())
    producer.flush()
    while _entries(target) < before + 20:
        if time.monotonic() > deadline:
            raise RuntimeError("the worker does not charge anything")
        time.sleep(LOOK_SECONDS)


def _event() -> UsageEvent:
    item = Item(
        category="llm_prompt", provider=workload.PROVIDER, model=workload.MODEL, unit="token", quantity=Decimal(9)
    )
    return UsageEvent(tenant_id=workload.TENANT, customer_id=workload.customer_name(CUSTOMER), items=(item,))


def _entries(target: Target) -> int:
    with psycopg.connect(target.database_url, autocommit=True) as connection:
        return _entries_on(connection)


def _entries_on(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    row = connection.execute(
        "SELECT last_seq FROM wallets WHERE tenant_id = %s AND customer_id = %s",
        (workload.TENANT, workload.customer_name(CUSTOMER)),
    ).fetchone()
    assert row is not None
    return int(str(row[0]))
