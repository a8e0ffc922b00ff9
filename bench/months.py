"""The first of the month: every subscription falls due at once. How long does one pass take, and each chunk of it?"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
from celery import Celery
from kombu import Connection

from bench import workload
from bench.drain import CHILDREN, Target, worker
from bench.memory import LOOK_SECONDS, STALLED_SECONDS, child_mb
from billing.periods import calendar_month
from config import clock
from db import session
from db.migrate import migrate
from services.books import tenants
from services.books.catalogue_files import read_plans
from tasks import names

TIME_ZONE = "America/Sao_Paulo"

#: Everybody's last month has just ended: nothing follows it yet.
_CUSTOMERS = """
INSERT INTO customers (tenant_id, customer_id, plan_id, plan_version, time_zone, billed_from, created_at)
SELECT %(tenant)s, 'customer-' || lpad(n::text, 7, '0'), 'tiers-8m', 1, %(zone)s, %(starts_at)s, %(starts_at)s
FROM generate_series(0, %(customers)s - 1) AS n
"""
_WALLETS = """
INSERT INTO wallets (tenant_id, customer_id, currency, created_at)
SELECT tenant_id, customer_id, 'BRL', %(starts_at)s FROM customers
"""
_PERIODS = """
INSERT INTO periods (tenant_id, customer_id, starts_at, ends_at, plan_id, plan_version, time_zone, opened_at)
SELECT tenant_id, customer_id, %(starts_at)s, %(ends_at)s, plan_id, plan_version, time_zone, %(starts_at)s
FROM customers
"""
_TURNS = """
INSERT INTO month_turns (tenant_id, customer_id, due_at) SELECT tenant_id, customer_id, %(ends_at)s FROM customers
"""


@dataclass(frozen=True, slots=True)
class MonthFigures:
    """One tick on subscriptions that are all due; from the message to the last fee."""

    subscriptions: int
    children: int
    pass_seconds: float
    chunk_ms_median: float
    chunk_ms_max: float
    fees: int
    child_mb_after_first_chunks: float
    child_mb_at_end: float


def create(target: Target) -> None:
    """Make the tables and the customers, at the end of their month."""
    migrate(target.database_url)
    starts_at, ends_at = _last_month()
    tenants.create_tenant(workload.TENANT, "Bench", starts_at)
    tenants.load_plans(workload.TENANT, read_plans("default"), starts_at)
    said = {
        "tenant": workload.TENANT,
        "zone": TIME_ZONE,
        "customers": target.customers,
        "starts_at": starts_at,
        "ends_at": ends_at,
    }
    with psycopg.connect(target.database_url, autocommit=True) as connection:
        for statement in (_CUSTOMERS, _WALLETS, _PERIODS, _TURNS):
            connection.execute(statement, said)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    session.close()


def measure_months(target: Target) -> MonthFigures:
    """Send one tick to a real worker on a clock that stands at the month's end, and wait until nothing is due."""
    _, month_ends_at = _last_month()
    with (
        tempfile.TemporaryDirectory(prefix="centavo-bench-") as folder,
        psycopg.connect(target.database_url, autocommit=True) as connection,
    ):
        log = Path(folder) / "worker.log"
        with worker(target.database_url, target.broker_url, log_file=log, queues="ticks") as process:
            _await(lambda: " ready." in log.read_text(encoding="utf-8"))
            began = time.perf_counter()
            _send_tick(target.broker_url)
            _await(lambda: _left(connection, month_ends_at) < 0.9 * target.customers)
            early_mb = child_mb(process.pid)
            _await(lambda: _left(connection, month_ends_at) == 0)
            seconds = time.perf_counter() - began
            late_mb = child_mb(process.pid)
        chunks = sorted(line["took_ms"] for line in _lines(log) if line.get("event") == "months turned")
        row = connection.execute("SELECT count(*) FROM payments WHERE kind = 'subscription'").fetchone()
    assert row is not None
    median = chunks[len(chunks) // 2]
    return MonthFigures(target.customers, CHILDREN, seconds, median, chunks[-1], row[0], early_mb, late_mb)


def _send_tick(broker_url: str) -> None:
    with Connection(broker_url) as connection:
        producer = Celery(broker=broker_url, set_as_current=False)
        producer.send_task(names.TURN_MONTHS, queue="ticks", connection=connection)


def _left(connection: psycopg.Connection[tuple[object, ...]], month_ends_at: datetime) -> int:
    row = connection.execute("SELECT count(*) FROM month_turns WHERE due_at <= %s", (month_ends_at,)).fetchone()
    assert row is not None
    return cast("int", row[0])


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text(encoding="utf-8").splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STALLED_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the month did not turn within {STALLED_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)


def _last_month() -> tuple[datetime, datetime]:
    this_month, _ = calendar_month(clock.now(), TIME_ZONE)
    return calendar_month(this_month - timedelta(days=1), TIME_ZONE)
