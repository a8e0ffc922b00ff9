"""Wallets and their ledger. The wallet rows of a customer are the customer's lock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Self, cast
from uuid import UUID

from msgspec.structs import astuple

from billing.charging import Debit, Standing
from db.arrays import BigintArray, MomentArray, TextArray, bigints, moments, numerics, texts
from db.session import Connection, Stale


class WalletRow(NamedTuple):
    """A wallet under lock."""

    tenant_id: str
    wallet_id: int
    customer_id: str
    currency: str
    balance: Decimal
    reserved: Decimal
    last_seq: int
    account_revision: int


@dataclass(frozen=True, slots=True)
class UsageEntries:
    """What is known of usage entries before the wallets are locked, ready to be sent."""

    tenant_ids: TextArray
    wallet_ids: BigintArray
    costs: TextArray
    event_keys: TextArray
    occurred_at: MomentArray

    @classmethod
    def of(cls, debits: Sequence[Debit]) -> Self:
        tenant_ids, wallet_ids, costs, event_keys, occurred_at = zip(*map(astuple, debits), strict=True)
        return cls(texts(tenant_ids), bigints(wallet_ids), numerics(costs), texts(event_keys), moments(occurred_at))


class Entry(NamedTuple):
    """One ledger entry of any kind."""

    tenant_id: str
    wallet_id: int
    seq: int
    amount: Decimal
    balance_after: Decimal
    kind: str
    contra: str
    reason: str | None
    event_key: str | None
    payment_id: UUID | None
    idempotency_key: str | None
    occurred_at: datetime
    recorded_at: datetime


_WALLET_COLUMNS = (
    "w.tenant_id, w.wallet_id, w.customer_id, w.currency, w.balance, w.reserved, w.last_seq, w.account_revision"
)

_LOCK = """
SELECT w.balance, w.last_seq, w.account_revision
FROM unnest(%b::text[], %b::bigint[]) AS asked(tenant_id, wallet_id)
JOIN wallets w ON w.tenant_id = asked.tenant_id AND w.wallet_id = asked.wallet_id
ORDER BY w.tenant_id, w.wallet_id
FOR NO KEY UPDATE OF w
"""

_LOCK_OF_CUSTOMER = f"""
SELECT {_WALLET_COLUMNS} FROM wallets w
WHERE w.tenant_id = %s AND w.customer_id = %s
ORDER BY w.tenant_id, w.wallet_id
FOR NO KEY UPDATE
"""  # noqa: S608 - column names of ours, no input

_USAGE_ENTRIES = """
INSERT INTO ledger_entries (
    tenant_id, wallet_id, amount, event_key, occurred_at, seq, balance_after, kind, contra, recorded_at)
SELECT e.tenant_id, e.wallet_id, -e.cost::numeric, e.event_key, e.occurred_at, e.seq, e.balance_after::numeric,
    'usage', 'revenue:usage', %b
FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::text[], %b::timestamptz[], %b::bigint[], %b::text[])
    AS e(tenant_id, wallet_id, cost, event_key, occurred_at, seq, balance_after)
"""

_SPEND = """
UPDATE wallets w
SET balance = w.balance - s.spent::numeric, used_total = w.used_total + s.spent::numeric, last_seq = s.last_seq
FROM unnest(%b::text[], %b::bigint[], %b::bigint[], %b::text[]) AS s(tenant_id, wallet_id, last_seq, spent)
WHERE w.tenant_id = s.tenant_id AND w.wallet_id = s.wallet_id
"""

_ENTRY = """
INSERT INTO ledger_entries (
    tenant_id, wallet_id, seq, amount, balance_after, kind, contra, reason, event_key, payment_id,
    idempotency_key, occurred_at, recorded_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
"""

_RECEIVE = """
UPDATE wallets
SET balance = balance + %(amount)s, received_total = received_total + %(amount)s, last_seq = %(seq)s
WHERE tenant_id = %(tenant_id)s AND wallet_id = %(wallet_id)s
"""

_ENTRY_BY_KEY = """
SELECT e.amount, e.balance_after, e.contra, e.reason, w.customer_id, w.currency
FROM ledger_entries e JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
WHERE e.tenant_id = %s AND e.idempotency_key = %s
"""


def lock(connection: Connection, wallet_keys: Sequence[tuple[str, int]]) -> list[tuple[Decimal, int, int]]:
    """Lock these (tenant, wallet) FOR NO KEY UPDATE: (balance, last seq, revision of the account) of each.

    The keys are in the order of the primary key, and so are the answers; a wallet is never removed.
    """
    tenant_ids, wallet_ids = zip(*wallet_keys, strict=True)
    rows = connection.execute(_LOCK, (texts(tenant_ids), bigints(wallet_ids)), binary=True)
    return cast("list[tuple[Decimal, int, int]]", rows.fetchall())


def lock_of_customer(connection: Connection, tenant_id: str, customer_id: str) -> list[WalletRow]:
    """All wallets of one customer, locked in order."""
    rows = connection.execute(_LOCK_OF_CUSTOMER, (tenant_id, customer_id))
    return [WalletRow._make(cast("Any", row)) for row in rows.fetchall()]


def debit_usage(
    connection: Connection,
    entries: UsageEntries,
    places: Sequence[tuple[int, Decimal]],
    standing: Mapping[tuple[str, int], Standing],
    now: datetime,
) -> None:
    """Write the entries of usage, each at its place (seq, balance after), and the wallets as they stand after.

    The caller holds the wallets' locks.
    """
    seqs, balances = zip(*places, strict=True)
    known = (entries.tenant_ids, entries.wallet_ids, entries.costs, entries.event_keys, entries.occurred_at)
    connection.execute(_USAGE_ENTRIES, (now, *known, bigints(seqs), numerics(balances)))
    changed = [(*key, wallet.last_seq, wallet.spent) for key, wallet in standing.items() if wallet.spent]
    tenant_ids, wallet_ids, last_seqs, spent = zip(*changed, strict=True)
    connection.execute(_SPEND, (texts(tenant_ids), bigints(wallet_ids), bigints(last_seqs), numerics(spent)))


def receive(connection: Connection, entry: Entry) -> None:
    """Write one entry that adds value, and the wallet after it. The caller holds the wallet's lock.

    Raises `Stale` when its idempotency key was used meanwhile, for another wallet.
    """
    if not connection.execute(_ENTRY, entry).rowcount:
        raise Stale
    connection.execute(
        _RECEIVE,
        {"amount": entry.amount, "seq": entry.seq, "tenant_id": entry.tenant_id, "wallet_id": entry.wallet_id},
    )


def entry_by_idempotency_key(
    connection: Connection, tenant_id: str, idempotency_key: str
) -> tuple[Decimal, Decimal, str, str | None, str, str] | None:
    """(amount, balance after, contra, reason, customer, currency) written under a caller's key, or None."""
    row = connection.execute(_ENTRY_BY_KEY, (tenant_id, idempotency_key)).fetchone()
    return cast("tuple[Decimal, Decimal, str, str | None, str, str] | None", row)
