"""Looking at what the database says, beside the code under test."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg

from config.settings import settings


class Entry(NamedTuple):
    """A ledger entry."""

    seq: int
    kind: str
    amount: Decimal
    balance_after: Decimal


def one(statement: str, *parameters: object) -> tuple[Any, ...]:
    """The first row of a statement, committed."""
    with _connection() as connection:
        row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return tuple(row)


def rows(statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a statement, committed."""
    with _connection() as connection:
        return [tuple(row) for row in connection.execute(statement.encode(), parameters).fetchall()]


class _Kept(NamedTuple):
    """A connection for looks, which are many: each new one costs as much as ten of them."""

    url: str
    pid: int
    connection: psycopg.Connection[tuple[Any, ...]]


_kept: list[_Kept] = []


def forget() -> None:
    """Close the connection that is kept for looks."""
    while _kept:
        _kept.pop().connection.close()


@contextmanager
def _connection() -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """To the test's database, each statement a transaction; kept for its own thread and process alone."""
    url = settings().required("database_url")
    if threading.current_thread() is not threading.main_thread():
        with psycopg.connect(url) as connection:
            yield connection
        return
    if _kept and not _can_be_used(_kept[0], url):
        forget()
    if not _kept:
        _kept.append(_Kept(url, os.getpid(), psycopg.connect(url, autocommit=True, prepare_threshold=None)))
    yield _kept[0].connection


def _can_be_used(kept: _Kept, url: str) -> bool:
    """Whether it is ours, and its server has not ended it; what a statement has set is forgotten."""
    if (kept.url, kept.pid) != (url, os.getpid()):
        return False
    try:
        kept.connection.execute("RESET ALL")
    except psycopg.OperationalError:
        return False
    return True


def wallet(customer_id: str, currency: str = "USD") -> Decimal:
    """The balance of a customer's wallet."""
    balance = one("SELECT balance FROM wallets WHERE customer_id = %s AND currency = %s", customer_id, currency)[0]
    assert isinstance(balance, Decimal)
    return balance


def entries(customer_id: str, currency: str = "USD") -> list[Entry]:
    """The ledger of a customer's wallet, in order."""
    statement = """
        SELECT e.seq, e.kind, e.amount, e.balance_after
        FROM ledger_entries e JOIN wallets w USING (tenant_id, wallet_id)
        WHERE w.customer_id = %s AND w.currency = %s ORDER BY e.seq
    """
    found = rows(statement, customer_id, currency)
    return [Entry(*row) for row in found]


def parked_reasons() -> dict[str, int]:
    """How much is parked, by reason."""
    found = rows(
        "SELECT reason, count(*) FROM (SELECT reason FROM parked_inputs WHERE replayed_at IS NULL"
        " UNION ALL SELECT park_reason FROM usage_events WHERE status = 'parked') p GROUP BY reason"
    )
    return dict(found)
