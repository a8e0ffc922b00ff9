"""The usage path with quotas, budgets and holds in use, beside itself without them: what each costs, as a ratio.

All drain the same events, which say a feature and a user. With a quota, every event counts in one counter of the
whole tenant; with quotas, in one of the tenant, one of its customer, one of its user, a budget of its feature, and a
cap of its customer's own; with holds, every fiftieth captures a hold of its customer.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import LiteralString

import psycopg

from bench import drain, workload
from bench.drain import EventMaker, Target
from billing.quotas import Measure, Per, QuotaKind, Scope
from centavo import UsageEvent
from config import clock
from config.settings import use
from db import session
from services.desk.quotas import Wanted, set_quota

FEATURE = "chat"
USERS = 1000
CAPTURE_EACH = 50
#: Nothing is to be over: what is measured is counting.
LIMIT = Decimal(10**15)

_CAPS: LiteralString = """
INSERT INTO quotas (tenant_id, name, kind, scope, subject, per, time_zone, measure, currency, limit_value, is_hard,
    created_at, updated_at)
SELECT tenant_id, 'cap ' || customer_id, 'cap', 'customer', customer_id, 'month', time_zone, 'cost', 'USD', %(limit)s,
    true, %(now)s, %(now)s
FROM customers
"""

#: Each customer has one, which never ends and is never used up.
_HOLDS: LiteralString = """
INSERT INTO credit_holds (tenant_id, hold_id, customer_id, wallet_id, amount, opened_at, expires_at, idempotency_key,
    asked, state)
SELECT tenant_id, 'hold-' || customer_id, customer_id, wallet_id, 1000000, %(now)s, %(until)s, customer_id, '{}', 'open'
FROM wallets
"""
_RESERVED: LiteralString = "UPDATE wallets SET reserved = 1000000"

_COUNTED: LiteralString = """
SELECT coalesce(sum(c.used), 0)::bigint FROM quota_counts c JOIN quotas q USING (tenant_id, quota_id)
WHERE q.measure = 'events'
"""
_CAPTURED: LiteralString = "SELECT count(*) FROM credit_captures WHERE mark IS NULL"


def with_quota(target: Target) -> None:
    """Let every event count in one quota of the tenant."""
    _set(target, [Wanted(workload.TENANT, "all", LIMIT, measure=Measure.EVENTS)])


def with_quotas(target: Target) -> None:
    """Let every event count in several; each customer has a cap of their own."""
    tenant = workload.TENANT
    with_quota(target)
    wanted = [
        Wanted(tenant, "each customer", LIMIT, scope=Scope.CUSTOMER, measure=Measure.EVENTS, per=Per.DAY),
        Wanted(tenant, "each user", LIMIT, scope=Scope.USER, measure=Measure.TOKENS, is_hard=True),
        Wanted(tenant, "feature", LIMIT, QuotaKind.BUDGET, feature=FEATURE, measure=Measure.COST, currency="USD"),
    ]
    _set(target, wanted)
    with psycopg.connect(target.database_url) as connection:
        connection.execute(_CAPS, {"limit": LIMIT, "now": clock.now()})


def _set(target: Target, wanted: Sequence[Wanted]) -> None:
    use(database_url=target.database_url, broker_url=target.broker_url, environment="sandbox")
    session.close()
    for one in wanted:
        set_quota(one, clock.now())
    session.close()


def with_holds(target: Target) -> None:
    """Give each customer a hold."""
    now = clock.now()
    with psycopg.connect(target.database_url) as connection:
        connection.execute(_HOLDS, {"now": now, "until": now + timedelta(days=1)})
        connection.execute(_RESERVED)


def plain_event(usage: workload.Usage, began: datetime) -> UsageEvent:
    """The event that all of these drain."""
    user = f"user-{usage.number % USERS}"
    return drain.event_of(usage, began).model_copy(update={"feature": FEATURE, "user_id": user})


def capturing_event(usage: workload.Usage, began: datetime) -> UsageEvent:
    """The same; every fiftieth names its customer's hold."""
    event = plain_event(usage, began)
    if usage.number % CAPTURE_EACH:
        return event
    return event.model_copy(update={"hold_id": f"hold-{event.customer_id}"})


def drained(target: Target, events: int, first: int, make: EventMaker) -> float:
    """One round of one of them; events a second. Raises `RuntimeError` when something was not counted or captured."""
    before = _seen(target)
    rate = drain.drain(target, events, first=first, make=make)
    counted, captured = (now - then for now, then in zip(_seen(target), before, strict=True))
    if counted % events:
        raise RuntimeError(f"{events} events were counted {counted} times")
    numbers = range(first, first + events) if make is capturing_event else ()
    if captured != (due := sum(1 for number in numbers if number % CAPTURE_EACH == 0)):
        raise RuntimeError(f"{due} events named a hold, and {captured} captured one")
    return rate


def _seen(target: Target) -> tuple[int, int]:
    """What is counted, and how often a hold was captured."""
    with psycopg.connect(target.database_url) as connection:
        found = [connection.execute(statement).fetchone() for statement in (_COUNTED, _CAPTURED)]
    counted, captured = (int(row[0]) for row in found if row is not None)
    return counted, captured
