"""Looking at what the database says, beside the code under test."""

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
    with psycopg.connect(settings().required("database_url")) as connection:
        row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return tuple(row)


def rows(statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a statement, committed."""
    with psycopg.connect(settings().required("database_url")) as connection:
        return [tuple(row) for row in connection.execute(statement.encode(), parameters).fetchall()]


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
