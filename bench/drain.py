"""The usage path end to end: the SDK's own envelopes wait in the broker; how fast are they committed?

Everything is on: decoding and validating, full rating, the ledger, period counters, tiers and payments. Every
event has two items and costs something: even customers are on the plan with tiers and use tokens (metered) and
characters (debited), odd ones are prepaid and pay for both of their items.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg

from bench import workload
from bench.measure import RedisQueue, watch_drain
from billing.periods import calendar_month
from centavo import Item, Producer, UsageEvent
from config import clock
from config.settings import process_environment
from db import session
from db.migrate import migrate
from services.books import tenants
from services.books.catalogue_files import read_plans, read_prices
from services.desk import prices
from tasks.queues import UNACKNOWLEDGED

ROOT = Path(__file__).resolve().parent.parent
TIME_ZONE = "America/Sao_Paulo"
CHILDREN = 2
STOP_SECONDS = 20
#: Envelopes that are full: a producer under load fills them.
LINGER_SECONDS = 5.0
CHARACTERS = 180
EventMaker = Callable[[workload.Usage, datetime], UsageEvent]
"""from usage, and when the round began, to the event that is emitted"""

_CUSTOMERS = """
INSERT INTO customers (tenant_id, customer_id, plan_id, plan_version, time_zone, billed_from, created_at)
SELECT %(tenant)s, 'customer-' || lpad(n::text, 7, '0'),
    CASE WHEN n %% 2 = 0 THEN 'tiers-8m' ELSE 'prepaid' END, 1, %(zone)s, %(now)s, %(now)s
FROM generate_series(0, %(customers)s - 1) AS n
"""
_WALLETS = """
INSERT INTO wallets (tenant_id, customer_id, currency, created_at)
SELECT tenant_id, customer_id, 'USD', %(now)s FROM customers
"""
#: Everybody has two grants, as a customer of a free tier has who was given something: the first is soon burned, so
#: some events are paid from both.
_GRANTS = """
INSERT INTO credit_grants (tenant_id, grant_id, wallet_id, source, priority, amount, valid_from, expires_at,
    breaks_at, reason, created_at)
SELECT w.tenant_id, gen_random_uuid(), w.wallet_id, g.source, g.priority, g.amount, g.valid_from,
    g.expires_at, g.expires_at + interval '3 days', 'bench', %(now)s
FROM wallets w CROSS JOIN (VALUES
    ('free', 10, 0.5::numeric, %(starts_at)s::timestamptz, %(ends_at)s::timestamptz),
    ('purchase', 50, 1000000000::numeric, NULL, NULL)
) AS g(source, priority, amount, valid_from, expires_at)
"""
_ENTRIES = """
INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, occurred_at, recorded_at,
    grant_id, period_start)
SELECT tenant_id, wallet_id, row_number() OVER mine, amount, sum(amount) OVER mine, 'grant', 'grants:' || source,
    %(now)s, %(now)s, grant_id, %(starts_at)s
FROM credit_grants WINDOW mine AS (PARTITION BY tenant_id, wallet_id ORDER BY priority)
"""
_FUNDED = """
UPDATE wallets w SET balance = 1000000000.5, received_total = 1000000000.5, last_seq = 2, open_grants = (
    SELECT json_agg(
        json_build_array(g.grant_id, g.amount::text, g.valid_from, g.expires_at, g.priority, g.number)
        ORDER BY g.priority
    )::text FROM credit_grants g WHERE g.tenant_id = w.tenant_id AND g.wallet_id = w.wallet_id
)
"""
_PERIODS = """
INSERT INTO periods (tenant_id, customer_id, starts_at, ends_at, plan_id, plan_version, time_zone, opened_at)
SELECT tenant_id, customer_id, %(starts_at)s, %(ends_at)s, plan_id, plan_version, time_zone, %(now)s FROM customers
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A database of its own, with customers, and a broker."""

    database_url: str
    broker_url: str
    customers: int


def create(target: Target) -> None:
    """Make the tables and the customers, as a month that has begun finds them: with their period rows."""
    migrate(target.database_url)
    now = clock.now()
    tenants.create_tenant(workload.TENANT, "Bench", now)
    tenants.load_plans(workload.TENANT, read_plans("default"), now)
    prices.load_prices(read_prices("usd-per-unit"), now)
    starts_at, ends_at = calendar_month(now, TIME_ZONE)
    said = {
        "tenant": workload.TENANT,
        "zone": TIME_ZONE,
        "now": now,
        "customers": target.customers,
        "starts_at": starts_at,
        "ends_at": ends_at,
    }
    with psycopg.connect(target.database_url, autocommit=True) as connection:
        for statement in (_CUSTOMERS, _WALLETS, _GRANTS, _ENTRIES, _FUNDED, _PERIODS):
            connection.execute(statement, said)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    session.close()


def fill(target: Target, events: int, *, hot: bool, first: int, make: EventMaker | None = None) -> int:
    """Emit events through the SDK; how many envelopes wait then."""
    made = make or event_of
    began = clock.now()
    with Producer(target.broker_url, linger_seconds=LINGER_SECONDS, block_seconds=60) as producer:
        for usage in workload.usages(first, events, target.customers, hot=hot):
            producer.emit(made(usage, began))
        if unsent := producer.flush(120):
            raise RuntimeError(f"the broker did not take {unsent} events")
        return producer.counters.envelopes


def drain(target: Target, events: int, *, hot: bool = False, first: int = 0, make: EventMaker | None = None) -> float:
    """One round: fill the queue, start a worker, time it; events a second."""
    before = charged(target.database_url)
    with closing(RedisQueue(target.broker_url, "usage", unacked=UNACKNOWLEDGED)) as queue:
        envelopes = fill(target, events, hot=hot, first=first, make=make)
        with worker(target.database_url, target.broker_url) as process:
            drained = watch_drain(queue.left, messages=envelopes, events=events, worker=process)
            if (count := charged(target.database_url) - before) != events:
                raise RuntimeError(f"{events} new events were emitted and {count} charged")
    return drained.events_per_second


def charged(database_url: str) -> int:
    """How many events are charged."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT coalesce(sum(events), 0)::bigint FROM periods").fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def worker(
    database_url: str,
    broker_url: str,
    children: int = CHILDREN,
    log_file: Path | None = None,
    queues: str = "usage",
    name: str = "worker",
    **more: str,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A real worker, as `centavo worker` starts it; its output is shown if something fails."""
    with tempfile.TemporaryDirectory(prefix="centavo-bench-") as folder:
        said = {
            "ENVIRONMENT": "sandbox",
            "DATABASE_URL": database_url,
            "BROKER_URL": broker_url,
            "HEALTH_DIR": folder,
        }
        env = process_environment() | {f"CENTAVO_{name}": value for name, value in (said | more).items()}
        command = [sys.executable, "-m", "cli", "worker", "--queues", queues, "--children", str(children)]
        command += ["--name", name]
        log = log_file or Path(folder) / "worker.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=ROOT)
            try:
                yield process
            except BaseException:
                sys.stderr.write(log.read_text(errors="replace", encoding="utf-8")[-8000:])
                raise
            finally:
                _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def event_of(usage: workload.Usage, began: datetime) -> UsageEvent:
    """The event that is emitted for this usage."""
    prompt = _item("llm_prompt", workload.MODEL, "token", usage.prompt_tokens)
    if usage.customer % 2:
        second = _item("llm_completion", workload.MODEL, "token", usage.completion_tokens)
    else:
        second = _item("tts", "tts-1", "character", CHARACTERS)
    return UsageEvent(
        tenant_id=workload.TENANT,
        customer_id=workload.customer_name(usage.customer),
        key=usage.key,
        occurred_at=(began - timedelta(milliseconds=usage.number % 1000)).astimezone(UTC),
        items=(prompt, second),
    )


def _item(category: str, model: str, unit: str, quantity: int) -> Item:
    return Item(category=category, provider=workload.PROVIDER, model=model, unit=unit, quantity=Decimal(quantity))
