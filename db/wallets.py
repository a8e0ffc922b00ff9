"""Wallets and their ledger. The wallet rows of a customer are the customer's lock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Self, cast
from uuid import UUID

from msgspec.structs import astuple

from billing.charging import Debit, Place
from billing.grants import Change, Grant, Standing
from billing.money import written
from db import grants as grant_rows
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
    debt: Decimal
    last_seq: int
    open_grants: str
    """As `db.grants.opened` reads them."""


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
    """One ledger entry of any kind but usage."""

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
    change: Change
    period_start: datetime


class KeyedEntry(NamedTuple):
    """An entry that was written under a caller's key, with the grant it gave; older ones gave none."""

    amount: Decimal
    balance_after: Decimal
    contra: str
    reason: str | None
    customer_id: str
    currency: str
    valid_from: datetime | None
    expires_at: datetime | None
    priority: int | None


_WALLET_COLUMNS = """w.tenant_id, w.wallet_id, w.customer_id, w.currency, w.balance, w.reserved, w.debt, w.last_seq,
    w.open_grants"""

_LOCK = """
SELECT w.balance, w.last_seq, w.account_revision, w.debt, w.open_grants, w.tenant_id, w.wallet_id
FROM unnest(%b::text[], %b::bigint[]) AS asked(tenant_id, wallet_id)
JOIN wallets w ON w.tenant_id = asked.tenant_id AND w.wallet_id = asked.wallet_id
ORDER BY w.tenant_id, w.wallet_id
FOR NO KEY UPDATE OF w
"""

#: The same where all are of one tenant: the index is read once from end to end, at half the cost of as many looks.
_LOCK_OF_TENANT = """
SELECT w.balance, w.last_seq, w.account_revision, w.debt, w.open_grants
FROM wallets w
WHERE w.tenant_id = %b AND w.wallet_id = ANY(%b::bigint[])
ORDER BY w.tenant_id, w.wallet_id
FOR NO KEY UPDATE
"""

_LOCK_OF_CUSTOMER = f"""
SELECT {_WALLET_COLUMNS} FROM wallets w
WHERE w.tenant_id = %s AND w.customer_id = %s
ORDER BY w.tenant_id, w.wallet_id
FOR NO KEY UPDATE
"""  # noqa: S608 - column names of ours, no input

_LOCK_OF_CUSTOMERS = f"""
SELECT {_WALLET_COLUMNS} FROM wallets w
JOIN unnest(%b::text[], %b::text[]) AS asked(tenant_id, customer_id)
    ON w.tenant_id = asked.tenant_id AND w.customer_id = asked.customer_id
ORDER BY w.tenant_id, w.wallet_id
FOR NO KEY UPDATE OF w
"""  # noqa: S608 - column names of ours, no input

_USAGE_ENTRIES = """
INSERT INTO ledger_entries (
    tenant_id, wallet_id, amount, event_key, occurred_at, seq, balance_after, grant_id, kind, contra, recorded_at)
SELECT e.tenant_id, e.wallet_id, -e.cost::numeric, e.event_key, e.occurred_at, e.seq, e.balance_after::numeric,
    e.grant_id::uuid, 'usage', 'revenue:usage', %b
FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::text[], %b::timestamptz[], %b::bigint[], %b::text[], %b::text[])
    AS e(tenant_id, wallet_id, cost, event_key, occurred_at, seq, balance_after, grant_id)
"""

#: The same for a transaction in which an event took from several: an array of NULLs is not free for the server.
_USAGE_ENTRIES_IN_PARTS = """
INSERT INTO ledger_entries (
    tenant_id, wallet_id, amount, event_key, occurred_at, seq, balance_after, grant_id, parts, kind, contra,
    recorded_at)
SELECT e.tenant_id, e.wallet_id, -e.cost::numeric, e.event_key, e.occurred_at, e.seq, e.balance_after::numeric,
    e.grant_id::uuid, e.parts::jsonb, 'usage', 'revenue:usage', %b
FROM unnest(%b::text[], %b::bigint[], %b::text[], %b::text[], %b::timestamptz[], %b::bigint[], %b::text[], %b::text[],
    %b::text[]) AS e(tenant_id, wallet_id, cost, event_key, occurred_at, seq, balance_after, grant_id, parts)
"""

_SPEND = """
UPDATE wallets w
SET balance = w.balance - s.spent::numeric, used_total = w.used_total + s.spent::numeric, last_seq = s.last_seq,
    debt = s.debt::numeric, open_grants = s.open_grants
FROM unnest(%b::text[], %b::bigint[], %b::bigint[], %b::text[], %b::text[], %b::text[])
    AS s(tenant_id, wallet_id, last_seq, spent, debt, open_grants)
WHERE w.tenant_id = s.tenant_id AND w.wallet_id = s.wallet_id
"""

_ENTRIES = """
INSERT INTO ledger_entries (
    tenant_id, wallet_id, seq, amount, balance_after, kind, contra, reason, event_key, payment_id,
    idempotency_key, occurred_at, recorded_at, grant_id, parts, period_start)
SELECT tenant_id, wallet_id, seq, amount, balance_after, kind, contra, reason, event_key, payment_id,
    idempotency_key, occurred_at, recorded_at, grant_id, parts::jsonb, period_start
FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::numeric[], %s::numeric[], %s::text[], %s::text[], %s::text[],
    %s::text[], %s::uuid[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::uuid[], %s::text[])
    AS e(tenant_id, wallet_id, seq, amount, balance_after, kind, contra, reason, event_key, payment_id,
        idempotency_key, occurred_at, recorded_at, period_start, grant_id, parts)
ON CONFLICT (tenant_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
"""

_SETTLE = """
UPDATE wallets w
SET balance = s.balance, last_seq = s.last_seq, debt = s.debt, used_total = w.used_total + s.spent,
    received_total = w.received_total + s.received, open_grants = s.open_grants
FROM unnest(%s::text[], %s::bigint[], %s::numeric[], %s::bigint[], %s::numeric[], %s::numeric[], %s::numeric[],
    %s::text[]) AS s(tenant_id, wallet_id, balance, last_seq, debt, spent, received, open_grants)
WHERE w.tenant_id = s.tenant_id AND w.wallet_id = s.wallet_id
"""

_KEEP_GRANTS = """
UPDATE wallets w SET open_grants = k.open_grants
FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS k(tenant_id, wallet_id, open_grants)
WHERE w.tenant_id = k.tenant_id AND w.wallet_id = k.wallet_id
"""

_SET_OVERDRAFT = """
UPDATE wallets SET overdraft = %s WHERE tenant_id = %s AND customer_id = %s AND currency = %s
"""

_SET_LOW_BELOW = """
UPDATE wallets SET low_below = %s WHERE tenant_id = %s AND customer_id = %s AND currency = %s
"""

_ENTRY_BY_KEY = """
SELECT e.amount, e.balance_after, e.contra, e.reason, w.customer_id, w.currency, g.valid_from, g.expires_at, g.priority
FROM ledger_entries e
JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
LEFT JOIN credit_grants g ON g.tenant_id = e.tenant_id AND g.grant_id = e.grant_id
WHERE e.tenant_id = %s AND e.idempotency_key = %s
"""


Locked = tuple[Decimal, int, int, Decimal, str]
"""balance, last seq, revision of the account, debt, open grants as they are kept"""


def lock(connection: Connection, wallet_keys: Sequence[tuple[str, int]]) -> list[Locked] | None:
    """Lock these (tenant, wallet), which are sorted, FOR NO KEY UPDATE: how each stands.

    None where one is missing. A wallet is never removed: it was read in a transaction that was rolled back.
    """
    tenant_ids, wallet_ids = zip(*wallet_keys, strict=True)
    if tenant_ids[0] == tenant_ids[-1]:
        rows = connection.execute(_LOCK_OF_TENANT, (tenant_ids[0], bigints(wallet_ids)), binary=True).fetchall()
    else:
        # By name: text need not be sorted there as it is here.
        answers = connection.execute(_LOCK, (texts(tenant_ids), bigints(wallet_ids)), binary=True)
        found = {row[-2:]: row[:-2] for row in answers.fetchall()}
        rows = [found[key] for key in wallet_keys if key in found]
    return cast("list[Locked]", rows) if len(rows) == len(wallet_keys) else None


def lock_of_customer(connection: Connection, tenant_id: str, customer_id: str) -> list[WalletRow]:
    """All wallets of one customer, locked in order."""
    rows = connection.execute(_LOCK_OF_CUSTOMER, (tenant_id, customer_id))
    return [WalletRow._make(cast("Any", row)) for row in rows.fetchall()]


def lock_of_customers(connection: Connection, customers: Sequence[tuple[str, str]]) -> list[WalletRow]:
    """All wallets of these (tenant, customer), locked in order."""
    tenant_ids, customer_ids = zip(*customers, strict=True)
    rows = connection.execute(_LOCK_OF_CUSTOMERS, (texts(tenant_ids), texts(customer_ids)), binary=True)
    return [WalletRow._make(cast("Any", row)) for row in rows.fetchall()]


def set_low_below(
    connection: Connection, tenant_id: str, customer_id: str, currency: str, low_below: Decimal | None
) -> bool:
    """Say below how much a wallet is low, or that it is as the setting says; False when there is none."""
    return connection.execute(_SET_LOW_BELOW, (low_below, tenant_id, customer_id, currency)).rowcount == 1


def set_overdraft(connection: Connection, tenant_id: str, customer_id: str, currency: str, overdraft: Decimal) -> bool:
    """How far below zero a wallet may be asked from now on; whether it is there. Locks the wallet."""
    return connection.execute(_SET_OVERDRAFT, (overdraft, tenant_id, customer_id, currency)).rowcount == 1


def debit_usage(
    connection: Connection,
    entries: UsageEntries,
    places: Sequence[Place],
    standing: Mapping[tuple[str, int], Standing],
    now: datetime,
) -> None:
    """Write the entries of usage, each at its place, and wallets with their grants as they stand after.

    The caller holds the wallets' locks.
    """
    seqs, balances, changes = zip(*places, strict=True)
    known = (entries.tenant_ids, entries.wallet_ids, entries.costs, entries.event_keys, entries.occurred_at)
    written_at = (now, *known, bigints(seqs), numerics(balances), texts([change.grant_id for change in changes]))
    parts = [None if change.parts is None else parts_as_json(change.parts) for change in changes]
    if any(parts):
        connection.execute(_USAGE_ENTRIES_IN_PARTS, (*written_at, texts(parts)))
    else:
        connection.execute(_USAGE_ENTRIES, written_at)
    changed = [
        (*key, wallet.last_seq, wallet.spent, wallet.debt, grant_rows.as_kept(wallet.grants))
        for key, wallet in standing.items()
        if wallet.spent
    ]
    tenant_ids, wallet_ids, last_seqs, spent, debts, grants = zip(*changed, strict=True)
    wallets = (texts(tenant_ids), bigints(wallet_ids), bigints(last_seqs), numerics(spent), numerics(debts))
    connection.execute(_SPEND, (*wallets, texts(grants)))
    ended = [(key[0], g.grant_id) for key, wallet in standing.items() for g in wallet.grants if not g.remaining]
    if ended:
        grant_rows.end(connection, ended, now)


def _as_kept(change: Change) -> tuple[str | None, str | None]:
    return change.grant_id, None if change.parts is None else parts_as_json(change.parts)


def parts_as_json(parts: Mapping[str, Decimal]) -> str:
    """What a movement changed, as it is kept: `{"<grant>": "-1.5", "debt": "0.5"}`."""
    return "{" + ",".join(f'"{name}":"{written(amount)}"' for name, amount in parts.items()) + "}"


def write(connection: Connection, entries: Sequence[Entry], standing: Mapping[tuple[str, int], Standing]) -> None:
    """Write entries, and the wallets as they stand after them. The caller holds the wallets' locks.

    Raises `Stale` when an idempotency key was used meanwhile, for another wallet.
    """
    columns = [(*entry[:-2], entry.period_start, *_as_kept(entry.change)) for entry in entries]
    inserted = connection.execute(_ENTRIES, [list(column) for column in zip(*columns, strict=True)])
    if inserted.rowcount != len(entries):
        raise Stale
    wallets = [
        (
            *key,
            wallet.balance,
            wallet.last_seq,
            wallet.debt,
            wallet.spent,
            wallet.received,
            grant_rows.as_kept(wallet.grants),
        )
        for key, wallet in sorted(standing.items())
    ]
    connection.execute(_SETTLE, [list(column) for column in zip(*wallets, strict=True)])


def keep_grants(connection: Connection, grants: Mapping[tuple[str, int], Iterable[Grant]]) -> None:
    """Write the open grants of wallets as they are to be burned, where nothing moved. The caller holds their locks."""
    kept = [(*key, grant_rows.as_kept(mine)) for key, mine in sorted(grants.items())]
    if kept:
        connection.execute(_KEEP_GRANTS, [list(column) for column in zip(*kept, strict=True)])


def entry_by_idempotency_key(connection: Connection, tenant_id: str, idempotency_key: str) -> KeyedEntry | None:
    """What was written under a caller's key, or None."""
    row = connection.execute(_ENTRY_BY_KEY, (tenant_id, idempotency_key)).fetchone()
    return KeyedEntry._make(cast("Any", row)) if row else None
