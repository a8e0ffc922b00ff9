"""Tables that have grown: a year of usage, written by Postgres itself, so that it takes minutes and not hours.

Every event has two lines and one ledger entry. They belong to everybody in turns, so that an event's place in its
wallet follows from its number: nothing has to be sorted or summed. Keys rise with time, as those of producers do, and
come before those of `bench.workload`. The audit holds for what comes of it.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from time import perf_counter
from typing import Any, LiteralString, cast

import psycopg

from bench import workload
from bench.drain import TIME_ZONE, Target
from billing.periods import calendar_month
from config import clock

MONTHS = 12
#: What each event costs, and how many tokens it has.
COST = "0.0307"
COST_OF_ONE = Decimal(COST)
TOKENS = 1500
#: Writers side by side, and how many events each writes in a statement.
WRITERS = 2
CHUNK = 250_000
_FIRST_KEY_MS = 1_700_000_000_000

#: So many events of customer `n` there are, and this is the wallet's balance before the first of them.
_OF_CUSTOMER = "((%(events)s - n + %(customers)s - 1) / %(customers)s)"
_BEFORE = "1000000000.5"

_PERIODS: LiteralString = """
INSERT INTO periods (tenant_id, customer_id, starts_at, ends_at, plan_id, plan_version, time_zone, opened_at, closed_at)
SELECT c.tenant_id, c.customer_id, m.starts_at, m.ends_at, c.plan_id, c.plan_version, c.time_zone, m.starts_at,
    m.ends_at
FROM customers c CROSS JOIN unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) AS m(starts_at, ends_at)
"""

_TURNS: LiteralString = """
INSERT INTO month_turns (tenant_id, customer_id, due_at)
SELECT tenant_id, customer_id, max(ends_at) FROM periods GROUP BY tenant_id, customer_id
"""

#: For whoever writes: which wallet and which grant a customer's number stands for.
_ACCOUNTS: LiteralString = """
CREATE UNLOGGED TABLE grown_accounts AS
SELECT right(w.customer_id, 7)::bigint AS n, w.customer_id, w.wallet_id, g.grant_id
FROM wallets w JOIN credit_grants g ON g.tenant_id = w.tenant_id AND g.wallet_id = w.wallet_id AND g.source = 'purchase'
ORDER BY 1;
ALTER TABLE grown_accounts ADD PRIMARY KEY (n);
ANALYZE grown_accounts
"""

#: Rows of usage come in the order of their keys, so what finds them by key is as dense when it is made afterwards.
_WITHOUT_INDEXES: LiteralString = """
ALTER TABLE usage_events DROP CONSTRAINT usage_events_pkey;
DROP INDEX usage_events_of_period
"""

_WITH_INDEXES: tuple[LiteralString, ...] = (
    "ALTER TABLE usage_events ADD CONSTRAINT usage_events_pkey PRIMARY KEY (tenant_id, key)",
    """
    CREATE INDEX usage_events_of_period ON usage_events (tenant_id, customer_id, period_start)
    WHERE period_start IS NOT NULL
    """,
)

_NUMBERS = """
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i
JOIN grown_accounts a ON a.n = i %% %(customers)s
CROSS JOIN LATERAL (SELECT 1 + (i * %(months)s / %(events)s)::int AS month) m
CROSS JOIN LATERAL (
    SELECT starts_at, starts_at + (ends_at - starts_at) * ((i * %(months)s %% %(events)s)::float8 / %(events)s) AS at
    FROM (SELECT (%(starts)s::timestamptz[])[month] AS starts_at, (%(ends)s::timestamptz[])[month] AS ends_at) p
) p
CROSS JOIN LATERAL (
    SELECT (lpad(to_hex(%(first_key_ms)s + i / 30), 12, '0') || '7' || left(h, 3) || '8'
        || substr(h, 4, 15))::uuid::text AS key
    FROM md5(i::text) AS h
) k
"""

_EVENTS = f"""
INSERT INTO usage_events (tenant_id, key, customer_id, status, occurred_at, recorded_at, charged_at, period_start,
    is_late, tokens, cost, currency, items, fingerprint, fingerprint_version)
SELECT %(tenant)s, key, customer_id, 'charged', at, at, at, starts_at, false, {TOKENS}, {COST}, 'USD', %(items)s::jsonb,
    decode(md5(key), 'hex'), 1
{_NUMBERS} ORDER BY i
"""

_ENTRIES = f"""
INSERT INTO ledger_entries (tenant_id, wallet_id, seq, amount, balance_after, kind, contra, event_key, occurred_at,
    recorded_at, grant_id)
SELECT %(tenant)s, wallet_id, 3 + i / %(customers)s, -{COST}, {_BEFORE} - {COST} * (1 + i / %(customers)s), 'usage',
    'revenue:usage', key, at, at, grant_id
{_NUMBERS} ORDER BY i
"""

_WALLETS = f"""
UPDATE wallets w SET balance = balance - {COST} * {_OF_CUSTOMER}, used_total = {COST} * {_OF_CUSTOMER},
    last_seq = last_seq + {_OF_CUSTOMER}, open_grants = (
        SELECT json_agg(CASE WHEN one->>0 <> a.grant_id::text THEN one ELSE json_build_array(
            one->0, ((one->>1)::numeric - {COST} * {_OF_CUSTOMER})::text, one->2, one->3, one->4, one->5
        ) END ORDER BY place)::text
        FROM json_array_elements(w.open_grants::json) WITH ORDINALITY AS o(one, place)
    )
FROM grown_accounts a WHERE a.wallet_id = w.wallet_id
"""

_COUNTED = f"""
UPDATE periods p SET events = u.number, tokens = u.number * {TOKENS} FROM (
    SELECT customer_id, period_start, count(*) AS number FROM usage_events GROUP BY customer_id, period_start
) u WHERE p.tenant_id = %(tenant)s AND p.customer_id = u.customer_id AND p.starts_at = u.period_start
"""

_ITEMS = (
    '[{"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "1500",'
    ' "price_id": 1, "cost": "0.03"}, {"category": "tts", "provider": "openai", "model": "tts-1",'
    ' "unit": "character", "quantity": "180", "price_id": 2, "cost": "0.0007"}]'
)


@dataclass(frozen=True, slots=True)
class Grown:
    """What was filled in, how long that took, and what it takes on the disk, with its indexes."""

    events: int
    fill_seconds: float
    events_gb: float
    entries_gb: float
    database_gb: float


def grow(target: Target, events: int) -> Grown:
    """Fill a database that `bench.drain` has made with so many events of the year before."""
    began = perf_counter()
    said = _said(target, events)
    with psycopg.connect(target.database_url, autocommit=True) as connection:
        connection.execute(_PERIODS, said)
        connection.execute(_TURNS)
        connection.execute(_ACCOUNTS)
        connection.execute(_WITHOUT_INDEXES)
        with ThreadPoolExecutor(WRITERS) as writers:
            for statement in (_EVENTS, _ENTRIES):
                list(writers.map(lambda first, s=statement: _write(target, s, said, first), range(0, events, CHUNK)))
            list(writers.map(lambda statement: _make(target, statement), _WITH_INDEXES))
        for statement in (_WALLETS, _COUNTED):
            connection.execute(statement.encode(), said)
        connection.execute("DROP TABLE grown_accounts")
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
        sizes = connection.execute(
            "SELECT pg_total_relation_size('usage_events'), pg_total_relation_size('ledger_entries'),"
            " pg_database_size(current_database())"
        ).fetchone()
    in_gb = [size / 1e9 for size in cast("Sequence[int]", sizes)]
    return Grown(events, perf_counter() - began, *in_gb)


def _said(target: Target, events: int) -> dict[str, Any]:
    months: list[tuple[datetime, datetime]] = []
    starts_at, _ = calendar_month(clock.now(), TIME_ZONE)
    for _ in range(MONTHS):
        months.append(calendar_month(starts_at - timedelta(days=1), TIME_ZONE))
        starts_at = months[-1][0]
    starts, ends = zip(*reversed(months), strict=True)
    return {
        "tenant": workload.TENANT,
        "events": events,
        "customers": target.customers,
        "months": MONTHS,
        "starts": list(starts),
        "ends": list(ends),
        "first_key_ms": _FIRST_KEY_MS,
        "items": _ITEMS,
    }


def _write(target: Target, statement: str, said: dict[str, Any], first: int) -> None:
    last = min(first + CHUNK, said["events"]) - 1
    with psycopg.connect(target.database_url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(statement.encode(), said | {"first": first, "last": last})


def _make(target: Target, statement: LiteralString) -> None:
    with psycopg.connect(target.database_url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '512MB'")
        connection.execute(statement)
