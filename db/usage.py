"""Usage events: the statements of the hot path. Arrays in, rows out; parameters travel binary (`%b`).

Text parameters cost twice the client's time: escaping arrays is most of it. See `db.arrays`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, LiteralString, NamedTuple, cast

import msgspec
from msgspec.structs import astuple

from billing.errors import DatabaseUnavailable
from db.arrays import bigints, booleans, byteas, moments, numerics, optional_moments, texts
from db.session import Connection

#: Optional facts of an event, each in a column of its own name.
CONTEXT_COLUMNS = (
    "user_id",
    "organization_id",
    "client_id",
    "session_id",
    "message_id",
    "feature",
    "service_type",
    "operation",
    "reference",
    "reason",
    "hold_id",
)


class AccountRow(NamedTuple):
    """A customer with one of its wallets; once per wallet."""

    tenant_id: str
    customer_id: str
    time_zone: str
    anchor_day: int
    plan_id: str
    plan_version: int
    next_plan_id: str | None
    next_plan_version: int | None
    next_plan_at: datetime | None
    currency: str | None
    wallet_id: int | None
    account_revision: int | None


class AccountWallet(NamedTuple):
    """A wallet, as far as a customer's account needs it."""

    tenant_id: str
    customer_id: str
    currency: str
    wallet_id: int
    account_revision: int


class PeriodRow(NamedTuple):
    """A period of a customer."""

    tenant_id: str
    customer_id: str
    starts_at: datetime
    ends_at: datetime
    plan_id: str
    plan_version: int
    is_closed: bool
    time_zone: str


class EventRow(msgspec.Struct):
    """One row of `usage_events`, apart from what all rows of a transaction share."""

    tenant_id: str
    key: str
    customer_id: str
    status: str
    occurred_at: datetime
    period_start: datetime | None
    is_late: bool
    tokens: int
    cost: Decimal
    currency: str | None
    items: str
    fingerprint: bytes
    metadata: str | None
    park_reason: str | None
    park_detail: str | None


class KnownEvent(NamedTuple):
    """What is already recorded under a key."""

    tenant_id: str
    key: str
    fingerprint: bytes
    status: str


_ACCOUNTS = """
SELECT c.tenant_id, c.customer_id, c.time_zone, c.anchor_day, c.plan_id, c.plan_version, c.next_plan_id,
    c.next_plan_version, c.next_plan_at, w.currency, w.wallet_id, w.account_revision
FROM unnest(%b::text[], %b::text[]) AS asked(tenant_id, customer_id)
JOIN customers c ON c.tenant_id = asked.tenant_id AND c.customer_id = asked.customer_id
LEFT JOIN wallets w ON w.tenant_id = c.tenant_id AND w.customer_id = c.customer_id
"""

_ACCOUNT_WALLETS = """
SELECT w.tenant_id, w.customer_id, w.currency, w.wallet_id, w.account_revision
FROM unnest(%b::text[], %b::text[]) AS asked(tenant_id, customer_id)
JOIN wallets w ON w.tenant_id = asked.tenant_id AND w.customer_id = asked.customer_id
"""

_PERIODS = """
SELECT p.tenant_id, p.customer_id, p.starts_at, p.ends_at, p.plan_id, p.plan_version, p.closed_at IS NOT NULL,
    p.time_zone
FROM unnest(%b::text[], %b::text[]) AS asked(tenant_id, customer_id)
JOIN periods p ON p.tenant_id = asked.tenant_id AND p.customer_id = asked.customer_id
WHERE p.starts_at > %b
"""

_COLUMNS = (*EventRow.__struct_fields__, *CONTEXT_COLUMNS)
_OPTIONAL = ("currency", "metadata", "park_reason", "park_detail", *CONTEXT_COLUMNS)
_CASTS = {"cost": "numeric", "items": "jsonb", "metadata": "jsonb", "quota_ids": "bigint[]"}
_TYPES = {
    "occurred_at": "timestamptz",
    "period_start": "timestamptz",
    "is_late": "boolean",
    "tokens": "bigint",
    "fingerprint": "bytea",
}


@lru_cache(maxsize=256)
def _insert_statement(columns: tuple[str, ...]) -> bytes:
    """The statement for rows in which only these columns hold anything.

    Most events have none of the dozen optional facts, and an array of NULLs is not free for the server. The few
    combinations that a producer uses are as many texts, each prepared once.
    """
    chosen = ", ".join(f"e.{name}::{_CASTS[name]}" if name in _CASTS else f"e.{name}" for name in columns)
    arrays = ", ".join(f"%({name})b::{_TYPES.get(name, 'text')}[]" for name in columns)
    statement = f"""
        INSERT INTO usage_events ({", ".join(columns)}, recorded_at, charged_at, fingerprint_version)
        SELECT {chosen}, %(now)b, CASE WHEN e.status = 'charged' THEN %(now)b::timestamptz END,
            %(fingerprint_version)b
        FROM unnest({arrays}) AS e({", ".join(columns)})
        ORDER BY e.tenant_id COLLATE "C", e.key COLLATE "C"
        ON CONFLICT (tenant_id, key) DO NOTHING
        RETURNING tenant_id, key
    """  # noqa: S608 - column names of ours, no input
    return statement.encode()


_KNOWN = """
SELECT u.tenant_id, u.key, u.fingerprint, u.status
FROM unnest(%b::text[], %b::text[]) AS asked(tenant_id, key)
JOIN usage_events u ON u.tenant_id = asked.tenant_id AND u.key = asked.key
"""

_RERATE = """
UPDATE usage_events u
SET items = r.items::jsonb, cost = r.cost
FROM unnest(%b::text[], %b::text[], %b::text[], %b::numeric[]) AS r(tenant_id, key, items, cost)
WHERE u.tenant_id = r.tenant_id AND u.key = r.key
"""


_AS_ARRAY: dict[str, Callable[[Any], object]] = {
    "occurred_at": moments,
    "period_start": optional_moments,
    "is_late": booleans,
    "tokens": bigints,
    "cost": numerics,
    "fingerprint": byteas,
}
"""How a column that is no text becomes an array."""


def revisions(connection: Connection) -> tuple[int, int]:
    """The revisions of the price book and of the quotas, in one look. Takes no lock.

    It is the first thing that usage reads, and there is always one of each. Raises `DatabaseUnavailable` where there
    seems to be none: whoever is not let through by row-level security would find no customer either.
    """
    return cast("tuple[int, int]", _seen(connection, "SELECT p.revision, q.revision FROM price_book p, quota_book q"))


def price_revision(connection: Connection) -> int:
    """The revision of the price book. Takes no lock. Raises `DatabaseUnavailable`, as `revisions` does."""
    return cast("int", _seen(connection, "SELECT revision FROM price_book")[0])


def _seen(connection: Connection, statement: LiteralString) -> tuple[Any, ...]:
    row = connection.execute(statement, binary=True).fetchone()
    if row is None:
        raise DatabaseUnavailable(
            "the database shows this user no rows: workers log in as the owner of the tables or a member of it"
        )
    return row


def read_accounts(
    connection: Connection, tenant_ids: Sequence[str], customer_ids: Sequence[str], since: datetime
) -> tuple[list[AccountRow], list[PeriodRow]]:
    """Customers with their wallets, and the periods that began after `since`. Takes no lock.

    Asking by `starts_at` keeps the planner on the primary key; by `ends_at` it took the exclusion constraint's
    GiST index, at ten times the cost and more.
    """
    accounts, periods = _with_periods(connection, _ACCOUNTS, tenant_ids, customer_ids, since)
    return [AccountRow._make(account) for account in accounts], periods


def read_wallets(
    connection: Connection, tenant_ids: Sequence[str], customer_ids: Sequence[str], since: datetime
) -> tuple[list[AccountWallet], list[PeriodRow]]:
    """The same, without the customers themselves: a look by a key less. Takes no lock."""
    wallets, periods = _with_periods(connection, _ACCOUNT_WALLETS, tenant_ids, customer_ids, since)
    return [AccountWallet._make(wallet) for wallet in wallets], periods


def _with_periods(
    connection: Connection,
    statement: LiteralString,
    tenant_ids: Sequence[str],
    customer_ids: Sequence[str],
    since: datetime,
) -> tuple[list[Any], list[PeriodRow]]:
    """What a statement tells of customers, then their periods: an account's revision is never younger than those."""
    asked = (texts(tenant_ids), texts(customer_ids))
    with connection.pipeline():
        accounts = connection.execute(statement, asked, binary=True)
        periods = connection.execute(_PERIODS, (*asked, since), binary=True)
    return accounts.fetchall(), [PeriodRow._make(cast("Any", period)) for period in periods.fetchall()]


def insert_if_new(
    connection: Connection,
    rows: Sequence[EventRow],
    contexts: Sequence[Sequence[str | None]],
    fingerprint_version: int,
    now: datetime,
    quota_ids: Mapping[tuple[str, str], Sequence[int]] | None = None,
) -> set[tuple[str, str]]:
    """Insert events whose keys are new; (tenant, key) of the others. Locks the new keys, in order.

    `contexts` holds the values of `CONTEXT_COLUMNS` per row, `quota_ids` which quotas some of them count in. Guarded
    by the primary key: a second insert of the same key waits for the first to commit, and then is none.
    """
    columns = (*zip(*map(astuple, rows), strict=True), *zip(*contexts, strict=True))
    arrays = {
        name: _AS_ARRAY.get(name, texts)(column)
        for name, column in zip(_COLUMNS, columns, strict=True)
        if name not in _OPTIONAL or column.count(None) < len(column)
    }
    if quota_ids:
        counted = [quota_ids.get((row.tenant_id, row.key)) for row in rows]
        arrays["quota_ids"] = texts([None if ids is None else f"{{{','.join(map(str, ids))}}}" for ids in counted])
    said = {"now": now, "fingerprint_version": fingerprint_version}
    returned = connection.execute(_insert_statement(tuple(arrays)), arrays | said, binary=True)
    if returned.rowcount == len(rows):
        return set()
    return {(row.tenant_id, row.key) for row in rows} - set(cast("list[tuple[str, str]]", returned.fetchall()))


def known(connection: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], KnownEvent]:
    """What is recorded under these (tenant, key). Takes no lock."""
    tenant_ids, event_keys = zip(*keys, strict=True)
    rows = connection.execute(_KNOWN, (texts(tenant_ids), texts(event_keys)), binary=True)
    events = (KnownEvent._make(cast("Any", row)) for row in rows)
    return {(event.tenant_id, event.key): event for event in events}


def set_costs(connection: Connection, costs: Sequence[tuple[str, str, str, Decimal]]) -> None:
    """Replace items and cost of events that this transaction inserted: (tenant, key, items as JSON, cost)."""
    connection.execute(_RERATE, [list(column) for column in zip(*costs, strict=True)])
