"""What has happened, page by page and summed up: usage events and ledger entries. Nothing here takes a lock.

A customer's events are found by the index of their period, from the period that holds the beginning of the span on;
those that wait have none, and are found among the few that wait. An event belongs to a span by when it occurred. One
that was voided while it waited is in no list: it never counted anywhere, and no index leads to it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, cast

from billing.payments import PAID
from billing.quotes import GIVEN
from db.grants import AHEAD_MAX
from db.schema.base import one_of
from db.session import Connection

#: A period is a month, and what a boundary that moved may add to it.
PERIOD_MAX = timedelta(days=66)
#: By which usage can be summed; each a column.
GROUPED = ("customer_id", "user_id", "organization_id", "operation", "feature", "service_type")
#: By which events can be asked for; each a column.
EVENT_FILTERS = ("status", "feature", "service_type", "operation", "user_id", "organization_id")


class EventRow(NamedTuple):
    """A usage event in a list. Cost and tokens are as they are now, after all corrections."""

    key: str
    customer_id: str
    status: str
    occurred_at: datetime
    recorded_at: datetime
    charged_at: datetime | None
    period_start: datetime | None
    is_late: bool
    tokens: int
    cost: Decimal
    currency: str | None
    user_id: str | None
    organization_id: str | None
    feature: str | None
    service_type: str | None
    operation: str | None
    reference: str | None
    reason: str | None
    park_reason: str | None
    is_archived: bool
    is_over_quota: bool


class LedgerRow(NamedTuple):
    """A ledger entry in a list."""

    customer_id: str
    currency: str
    wallet_id: int
    seq: int
    kind: str
    amount: Decimal
    balance_after: Decimal
    contra: str
    reason: str | None
    event_key: str | None
    payment_id: object | None
    occurred_at: datetime
    recorded_at: datetime


class Group(NamedTuple):
    """Events that have one thing in common; `of` says which, and `name` is None where they have none of it."""

    of: str
    name: str | None
    currency: str | None
    events: int
    tokens: int
    cost: Decimal


class Active(NamedTuple):
    """Who has used anything."""

    customers: int
    organizations: int
    users: int


class Collected(NamedTuple):
    """Payments of a kind that succeeded in a span, less what was given back of them."""

    kind: str
    currency: str
    payments: int
    amount_minor: int


class Bucket(NamedTuple):
    """An hour, day or month of usage, in one currency (None: what cost nothing)."""

    starts_at: datetime
    currency: str | None
    events: int
    tokens: int
    cost: Decimal


class MethodSum(NamedTuple):
    """Charged events of a type of service that were paid for in one way (None: that is archived), in one currency."""

    service_type: str | None
    method: str | None
    currency: str | None
    events: int
    amount: Decimal


class Span(NamedTuple):
    """Whose events: of a tenant or one customer, of what occurred in a half-open span, with these values."""

    tenant_id: str
    customer_id: str | None
    since: datetime
    until: datetime
    filters: Mapping[str, str]


_COLUMNS = """tenant_id, key, customer_id, status, occurred_at, recorded_at, charged_at, period_start, is_late, tokens,
    cost, currency, user_id, organization_id, feature, service_type, operation, reference, reason, park_reason,
    archive_id, over_quota"""

_LEDGER = """
SELECT w.customer_id, w.currency, e.wallet_id, e.seq, e.kind, e.amount, e.balance_after, e.contra, e.reason,
    e.event_key, e.payment_id, e.occurred_at, e.recorded_at
FROM ledger_entries e JOIN wallets w ON w.tenant_id = e.tenant_id AND w.wallet_id = e.wallet_id
"""

_WALLETS = "SELECT currency, wallet_id FROM wallets WHERE tenant_id = %s AND customer_id = %s ORDER BY currency"

_COLLECTED = f"""
SELECT kind, currency, count(*), sum(amount_minor - refunded_minor)::bigint FROM payments
WHERE tenant_id = %(tenant_id)s AND (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)
    AND {one_of("state", PAID)} AND succeeded_at >= %(since)s AND succeeded_at < %(until)s
GROUP BY kind, currency ORDER BY kind, currency
"""  # noqa: S608 - words of ours, no input


def _events(span: Span) -> tuple[str, dict[str, Any]]:
    """The events of a span as a FROM item `u`, and its parameters. Filters are names of `EVENT_FILTERS`."""
    said: dict[str, Any] = {"tenant_id": span.tenant_id, "since": span.since, "until": span.until}
    said |= {"customer_id": span.customer_id, "recorded_from": span.since - AHEAD_MAX}
    said |= {"first_from": span.since - PERIOD_MAX}
    wanted = ["tenant_id = %(tenant_id)s", "occurred_at >= %(since)s", "occurred_at < %(until)s"]
    first = "%(first_from)s"
    if span.customer_id is not None:
        wanted.append("customer_id = %(customer_id)s")
        first = """coalesce((
            SELECT max(p.starts_at) FROM periods p
            WHERE p.tenant_id = %(tenant_id)s AND p.customer_id = %(customer_id)s AND p.starts_at <= %(since)s
        ), '-infinity')"""
    for name in EVENT_FILTERS:
        if name in span.filters:
            wanted.append(f"{name} = %({name})s")
            said[name] = span.filters[name]
    where = " AND ".join(wanted)
    statement = f"""(
        SELECT {_COLUMNS} FROM usage_events WHERE {where} AND period_start >= {first}
        UNION ALL
        SELECT {_COLUMNS} FROM usage_events
        WHERE {where} AND period_start IS NULL AND status IN ('parked', 'pending') AND recorded_at >= %(recorded_from)s
    ) u"""  # noqa: S608 - words of ours, no input
    return statement, said


#: What was added to an event after it was charged.
_CORRECTED = """
CROSS JOIN LATERAL (
    SELECT u.tokens + coalesce(sum(c.tokens), 0)::bigint AS tokens, u.cost + coalesce(sum(c.cost), 0) AS cost
    FROM corrections c WHERE c.tenant_id = u.tenant_id AND c.event_key = u.key
) now
"""


def events_statement(
    span: Span, limit: int, *, after: tuple[datetime, str] | None, is_ascending: bool
) -> tuple[bytes, dict[str, Any]]:
    """The statement of a page of events, and its parameters."""
    source, said = _events(span)
    direction, beyond = ("ASC", ">") if is_ascending else ("DESC", "<")
    place = ""
    if after is not None:
        place = f"WHERE (u.occurred_at, u.key) {beyond} (%(after_at)s, %(after_key)s)"
        said |= {"after_at": after[0], "after_key": after[1]}
    statement = f"""
        SELECT u.key, u.customer_id, u.status, u.occurred_at, u.recorded_at, u.charged_at, u.period_start, u.is_late,
            now.tokens, now.cost, u.currency, u.user_id, u.organization_id, u.feature, u.service_type, u.operation,
            u.reference, u.reason, u.park_reason, u.archive_id IS NOT NULL,
            u.over_quota IS TRUE
        FROM (
            SELECT * FROM {source} {place} ORDER BY u.occurred_at {direction}, u.key {direction} LIMIT %(limit)s
        ) u {_CORRECTED}
        ORDER BY u.occurred_at {direction}, u.key {direction}
    """  # noqa: S608 - words of ours, no input
    return statement.encode(), said | {"limit": limit}


def events(
    connection: Connection, span: Span, limit: int, *, after: tuple[datetime, str] | None, is_ascending: bool
) -> list[EventRow]:
    """A page of events, by (occurred_at, key)."""
    rows = connection.execute(*events_statement(span, limit, after=after, is_ascending=is_ascending))
    return [EventRow._make(cast("Any", row)) for row in rows]


def wallets(connection: Connection, tenant_id: str, customer_id: str) -> dict[str, int]:
    """A customer's wallets by currency."""
    return dict(cast("list[tuple[str, int]]", connection.execute(_WALLETS, (tenant_id, customer_id)).fetchall()))


def entries_of_wallet(
    connection: Connection,
    wallet: tuple[str, int],
    span: tuple[datetime, datetime],
    kind: str | None,
    limit: int,
    *,
    after: int | None,
    is_ascending: bool,
) -> list[LedgerRow]:
    """A page of the entries of a (tenant, wallet) that were recorded in a span, by seq: the order of its balances."""
    direction, beyond = ("ASC", ">") if is_ascending else ("DESC", "<")
    wanted = [f"e.seq {beyond} %(after)s"] if after is not None else []
    wanted += ["e.kind = %(kind)s"] if kind is not None else []
    said = {"tenant_id": wallet[0], "wallet_id": wallet[1], "since": span[0], "until": span[1]}
    statement = f"""{_LEDGER}
        WHERE e.tenant_id = %(tenant_id)s AND e.wallet_id = %(wallet_id)s
            AND e.recorded_at >= %(since)s AND e.recorded_at < %(until)s {"".join(f" AND {one}" for one in wanted)}
        ORDER BY e.seq {direction} LIMIT %(limit)s
    """
    rows = connection.execute(statement.encode(), said | {"after": after, "kind": kind, "limit": limit})
    return [LedgerRow._make(cast("Any", row)) for row in rows]


def entries_of_tenant(
    connection: Connection,
    tenant_id: str,
    span: tuple[datetime, datetime],
    kind: str | None,
    limit: int,
    *,
    after: tuple[datetime, int, int] | None,
    is_ascending: bool,
) -> list[LedgerRow]:
    """A page of a tenant's entries, by (recorded_at, wallet, seq)."""
    direction, beyond = ("ASC", ">") if is_ascending else ("DESC", "<")
    said: dict[str, Any] = {"tenant_id": tenant_id, "since": span[0], "until": span[1], "kind": kind, "limit": limit}
    wanted = ["e.kind = %(kind)s"] if kind is not None else []
    if after is not None:
        wanted.append(f"(e.recorded_at, e.wallet_id, e.seq) {beyond} (%(at)s, %(wallet)s, %(seq)s)")
        said |= dict(zip(("at", "wallet", "seq"), after, strict=True))
    order = ", ".join(f"e.{name} {direction}" for name in ("recorded_at", "wallet_id", "seq"))
    statement = f"""{_LEDGER}
        WHERE e.tenant_id = %(tenant_id)s AND e.recorded_at >= %(since)s AND e.recorded_at < %(until)s
            {"".join(f" AND {one}" for one in wanted)}
        ORDER BY {order} LIMIT %(limit)s
    """
    return [LedgerRow._make(cast("Any", row)) for row in connection.execute(statement.encode(), said)]


def groups(connection: Connection, span: Span, of: Sequence[str]) -> list[Group]:
    """The events of a span in groups by each of these columns (of `EVENT_FILTERS`) and by currency; one statement.

    Of what is pending, the groups by status tell what it would cost; in the others it is an event that cost nothing.
    """
    source, said = _events(span)
    names = " ".join(f"WHEN grouping(u.{name}) = 0 THEN '{name}'" for name in of)
    values = " ".join(f"WHEN grouping(u.{name}) = 0 THEN u.{name}" for name in of)
    sets = ", ".join(f"(u.{name}, u.currency)" for name in of)
    status = "grouping(u.status) = 0" if "status" in of else "false"
    sums = {
        name: f"CASE WHEN {status} THEN sum(now.{name}) "
        f"ELSE coalesce(sum(now.{name}) FILTER (WHERE u.status <> 'pending'), 0) END"
        for name in ("tokens", "cost")
    }
    statement = f"""
        SELECT CASE {names} END, CASE {values} END, u.currency, count(*), {sums["tokens"]}::bigint, {sums["cost"]}
        FROM {source} {_CORRECTED}
        GROUP BY GROUPING SETS ({sets}) ORDER BY 1, 2, 3
    """  # noqa: S608 - words of ours, no input
    return [Group._make(cast("Any", row)) for row in connection.execute(statement.encode(), said)]


def largest(connection: Connection, span: Span, of: str, limit: int) -> list[Group]:
    """The charged events of a span by one column (of `GROUPED`) and by currency, those that cost most first."""
    assert of in GROUPED
    source, said = _events(span)
    statement = f"""
        SELECT '{of}', u.{of}, u.currency, count(*), sum(now.tokens)::bigint, sum(now.cost)
        FROM {source} {_CORRECTED} WHERE u.status = 'charged'
        GROUP BY u.{of}, u.currency ORDER BY 6 DESC, 4 DESC, 2, 3 LIMIT %(limit)s
    """  # noqa: S608 - words of ours, no input
    return [Group._make(cast("Any", row)) for row in connection.execute(statement.encode(), said | {"limit": limit})]


def methods(connection: Connection, span: Span) -> list[MethodSum]:
    """How the charged events of a span were paid for, by type of service: as it was charged, without corrections.

    Their entries are found by when they were charged, which is when those were written: the BRIN index leads there.
    """
    source, said = _events(span)
    statement = f"""
        WITH used AS MATERIALIZED (
            SELECT u.tenant_id, u.key, u.service_type, u.currency, u.cost, u.tokens, u.charged_at
            FROM {source} WHERE u.status = 'charged'
        ), entries AS (
            SELECT e.event_key, e.grant_id, e.parts, e.amount FROM ledger_entries e
            WHERE e.tenant_id = %(tenant_id)s AND e.kind = 'usage'
                AND e.recorded_at BETWEEN (SELECT min(charged_at) FROM used) AND (SELECT max(charged_at) FROM used)
        )
        SELECT u.service_type,
            CASE WHEN u.cost = 0 THEN 'subscription_included' WHEN e.event_key IS NULL THEN NULL
                WHEN g.source = ANY(%(given)s) THEN 'credit_consumption' ELSE 'wallet_deduction' END AS method,
            u.currency, count(DISTINCT u.key), sum(CASE WHEN e.event_key IS NULL THEN u.cost ELSE part.amount END)
        FROM used u
        LEFT JOIN entries e ON e.event_key = u.key AND u.cost <> 0
        LEFT JOIN LATERAL (
            SELECT p.key AS name, abs(p.value::numeric) AS amount FROM jsonb_each_text(e.parts) AS p
            UNION ALL SELECT coalesce(e.grant_id::text, 'debt'), -e.amount WHERE e.parts IS NULL
        ) part ON e.event_key IS NOT NULL
        LEFT JOIN credit_grants g ON g.tenant_id = u.tenant_id AND g.grant_id = CASE part.name WHEN 'debt' THEN NULL
            ELSE part.name END::uuid
        WHERE u.cost <> 0 OR u.tokens > 0
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    """  # noqa: S608 - words of ours, no input
    rows = connection.execute(statement.encode(), said | {"given": [source.value for source in sorted(GIVEN)]})
    return [MethodSum._make(cast("Any", row)) for row in rows]


def active(connection: Connection, span: Span) -> Active:
    """How many customers, organisations and users have charged events in a span."""
    source, said = _events(span)
    statement = f"""
        SELECT count(DISTINCT u.customer_id), count(DISTINCT u.organization_id), count(DISTINCT u.user_id)
        FROM {source} WHERE u.status = 'charged'
    """  # noqa: S608 - words of ours, no input
    return Active._make(cast("Any", connection.execute(statement.encode(), said).fetchone()))


def collected(connection: Connection, span: Span) -> list[Collected]:
    """What payments have brought in in a span; filters of events do not apply."""
    said = {"tenant_id": span.tenant_id, "customer_id": span.customer_id, "since": span.since, "until": span.until}
    return [Collected._make(cast("Any", row)) for row in connection.execute(_COLLECTED, said)]


def buckets(connection: Connection, span: Span, unit: str, time_zone: str) -> list[Bucket]:
    """Charged usage of a span by hour, day or month of a time zone, in order; what is empty is left out."""
    source, said = _events(span)
    statement = f"""
        SELECT date_trunc(%(unit)s, u.occurred_at, %(time_zone)s), u.currency, count(*), sum(now.tokens)::bigint,
            sum(now.cost)
        FROM {source} {_CORRECTED} WHERE u.status = 'charged' GROUP BY 1, 2 ORDER BY 1, 2
    """  # noqa: S608 - words of ours, no input
    rows = connection.execute(statement.encode(), said | {"unit": unit, "time_zone": time_zone})
    return [Bucket._make(cast("Any", row)) for row in rows]
