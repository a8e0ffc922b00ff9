"""Counters of quotas under their locks: in which order they are taken, and whom they make wait."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from billing.quotas import Measure, Scope
from config.settings import settings
from services.desk.quotas import Wanted, set_cap, set_quota
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
USED = """
SELECT name, c.subject, sum(used) FROM quota_counts c JOIN quotas USING (tenant_id, quota_id)
GROUP BY 1, 2 ORDER BY 1, 2
"""
FREE = "SELECT subject FROM quota_counts ORDER BY subject FOR UPDATE SKIP LOCKED"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
MANY = Decimal(10**9)


@pytest.fixture(autouse=True)
def _customers(billing_database: str) -> None:
    catalogues(BEFORE)
    for name in ("ana", "bob"):
        a_customer(name, credit="10", time_zone="UTC", now=BEFORE)


def use(who: str, users: list[str], key: str) -> None:
    """Record an event by each of these users, in this order."""
    events = [
        an_event(who, [tokens(1)], key=f"{key}-{place}", occurred_at=NOW, user_id=user)
        for place, user in enumerate(users)
    ]
    record_usage(an_envelope(*events), NOW)


@contextmanager
def _waiting(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` in a thread; go on when it waits for a lock, and join it at the end."""
    thread = threading.Thread(target=work)
    thread.start()
    with psycopg.connect(settings().required("database_url"), autocommit=True) as watcher:
        while thread.is_alive() and watcher.execute(WAITING).fetchone() != (1,):
            pass
    yield
    thread.join()


def _holder() -> psycopg.Connection:
    return psycopg.connect(settings().required("database_url"))


def test_counters_are_locked_in_order_whatever_order_events_come_in() -> None:
    """Who waits for the one in the middle holds what comes before it, and nothing that comes after."""
    set_quota(Wanted(TENANT, "user", MANY, scope=Scope.USER), BEFORE)
    use("ana", ["a", "m", "z"], "first")

    with _holder() as holder:
        holder.execute("SELECT FROM quota_counts WHERE subject = 'm' FOR UPDATE")
        with _waiting(lambda: use("bob", ["z", "m", "a"], "next")):
            free = rows(FREE)
            holder.rollback()

    assert free == [("z",)]
    assert rows(USED) == [("user", "a", 2), ("user", "m", 2), ("user", "z", 2)]


def test_new_counters_are_made_in_order_among_the_old() -> None:
    """So nobody holds a later counter, while it waits for another to make an earlier one."""
    set_quota(Wanted(TENANT, "user", MANY, scope=Scope.USER), BEFORE)
    use("ana", ["z"], "first")
    made = "INSERT INTO quota_counts SELECT tenant_id, quota_id, 'm', window_start, stripe, 5 FROM quota_counts"

    with _holder() as holder:
        holder.execute(made.encode())
        with _waiting(lambda: use("bob", ["z", "m", "a"], "next")):
            free = rows(FREE)
            holder.rollback()

    assert free == [("z",)]
    assert rows(USED) == [("user", "a", 1), ("user", "m", 1), ("user", "z", 2)]


def test_workers_that_count_the_same_users_in_different_order_do_not_deadlock() -> None:
    """Their customers differ, so nothing but the counters is shared; some of those are made meanwhile."""
    set_quota(Wanted(TENANT, "user", MANY, scope=Scope.USER), BEFORE)
    set_quota(Wanted(TENANT, "customer", MANY, scope=Scope.CUSTOMER, measure=Measure.EVENTS), BEFORE)
    users = [f"u{number}" for number in range(100, 140)]

    def envelopes(who: str, step: int) -> None:
        for number in range(20):
            use(who, users[: 20 + number][::step], f"{who}-{number}")

    threads = [threading.Thread(target=envelopes, args=(who, step)) for who, step in (("ana", 1), ("bob", -1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    counted = rows(USED)
    assert [row[1:] for row in counted if row[0] == "customer"] == [("ana", 590), ("bob", 590)]
    assert sum(row[2] for row in counted if row[0] == "user") == 1180
    assert one(DEADLOCKS) == (0,)


def test_a_customers_counter_that_somebody_made_meanwhile_is_added_to() -> None:
    """Whoever counts for a customer holds its wallets, and yet nothing may be lost or refused if somebody does not."""
    set_cap(TENANT, "ana", MANY, "USD", BEFORE)
    made = """
        INSERT INTO quota_counts SELECT tenant_id, quota_id, subject, '2026-11-01', 0, 5 FROM quotas
    """

    with _holder() as holder:
        holder.execute(made.encode())
        with _waiting(lambda: use("ana", ["u", "u"], "first")):
            holder.commit()

    spent = one("SELECT sum(cost) FROM usage_events")[0]
    assert rows("SELECT used FROM quota_counts") == [(5 + spent,)]
    one("UPDATE quota_counts SET used = used - 5 RETURNING 1")
