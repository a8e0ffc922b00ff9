"""What the month's ticks look for and write: periods that are to follow, to open, to close.

Whoever writes here holds the wallets of the customers. Looks take no lock: what they find is read again under it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from billing.payments import AlertKind
from db.arrays import bigints, moments, optional_moments, texts
from db.session import Connection


class SubscriptionRow(NamedTuple):
    """A customer's subscription: on which plan, with which calendar, since when and until when."""

    tenant_id: str
    customer_id: str
    plan_id: str
    plan_version: int
    next_plan_id: str | None
    next_plan_version: int | None
    next_plan_at: datetime | None
    time_zone: str
    anchor_day: int
    billed_from: datetime
    paused_at: datetime | None
    ended_at: datetime | None


class KnownPeriod(NamedTuple):
    """A period as the month's ticks see it."""

    tenant_id: str
    customer_id: str
    starts_at: datetime
    ends_at: datetime
    plan_id: str
    plan_version: int
    time_zone: str
    opened_at: datetime | None
    is_closed: bool


class OpenedPeriod(NamedTuple):
    """A period to be written, with what was decided of it."""

    tenant_id: str
    customer_id: str
    starts_at: datetime
    ends_at: datetime
    plan_id: str
    plan_version: int
    time_zone: str
    opened_at: datetime | None


class Due(NamedTuple):
    """When a customer's month turns next; None: never, nothing follows the last period."""

    tenant_id: str
    customer_id: str
    due_at: datetime | None


PeriodKey = tuple[str, str, datetime]
"""tenant, customer, start"""

#: Rows that another look holds are skipped: several looks at once share the work.
_LOCK_DUE = """
SELECT tenant_id, customer_id FROM month_turns WHERE due_at <= %s
ORDER BY due_at, tenant_id, customer_id LIMIT %s
FOR NO KEY UPDATE SKIP LOCKED
"""

#: Periods that usage has begun, and those that a change of the subscription has.
_LOCK_UNOPENED = """
SELECT m.tenant_id, m.customer_id FROM month_turns m
JOIN (
    SELECT DISTINCT tenant_id, customer_id FROM (
        SELECT tenant_id, customer_id FROM periods WHERE opened_at IS NULL AND starts_at <= %s
        ORDER BY starts_at LIMIT %s
    ) first
) p ON p.tenant_id = m.tenant_id AND p.customer_id = m.customer_id
ORDER BY m.tenant_id, m.customer_id
FOR NO KEY UPDATE OF m SKIP LOCKED
"""

_LOCK_TURNS = """
SELECT FROM unnest(%s::text[], %s::text[]) AS asked(tenant_id, customer_id)
JOIN month_turns m ON m.tenant_id = asked.tenant_id AND m.customer_id = asked.customer_id
ORDER BY m.tenant_id, m.customer_id
FOR NO KEY UPDATE OF m
"""

_SUBSCRIPTIONS = """
SELECT c.tenant_id, c.customer_id, c.plan_id, c.plan_version, c.next_plan_id, c.next_plan_version, c.next_plan_at,
    c.time_zone, c.anchor_day, c.billed_from, c.paused_at, c.ended_at
FROM unnest(%b::text[], %b::text[]) AS asked(tenant_id, customer_id)
JOIN customers c ON c.tenant_id = asked.tenant_id AND c.customer_id = asked.customer_id
ORDER BY c.tenant_id, c.customer_id
"""

#: The last row; or, if some are not opened, all from the one before the first of them: there may be a gap to fill.
_PERIODS = """
SELECT p.tenant_id, p.customer_id, p.starts_at, p.ends_at, p.plan_id, p.plan_version, p.time_zone, p.opened_at,
    p.closed_at IS NOT NULL
FROM unnest(%b::text[], %b::text[]) AS asked(tenant_id, customer_id)
CROSS JOIN LATERAL (
    SELECT coalesce(min(t.starts_at) FILTER (WHERE t.opened_at IS NULL), 'infinity') AS unopened
    FROM periods t WHERE t.tenant_id = asked.tenant_id AND t.customer_id = asked.customer_id
) first
CROSS JOIN LATERAL (
    SELECT max(b.starts_at) AS starts_at FROM periods b
    WHERE b.tenant_id = asked.tenant_id AND b.customer_id = asked.customer_id AND b.starts_at < first.unopened
) before
JOIN periods p ON p.tenant_id = asked.tenant_id AND p.customer_id = asked.customer_id
    AND p.starts_at >= coalesce(before.starts_at, first.unopened)
ORDER BY p.tenant_id, p.customer_id, p.starts_at
"""

_BEGIN = """
INSERT INTO periods (tenant_id, customer_id, starts_at, ends_at, plan_id, plan_version, time_zone, opened_at)
SELECT * FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::text[], %b::bigint[], %b::text[],
    %b::timestamptz[])
    AS p(tenant_id, customer_id, starts_at, ends_at, plan_id, plan_version, time_zone, opened_at)
ORDER BY p.tenant_id, p.customer_id, p.starts_at
ON CONFLICT (tenant_id, customer_id, starts_at) DO NOTHING
"""

_OPEN = """
UPDATE periods p SET opened_at = %b
FROM unnest(%b::text[], %b::text[], %b::timestamptz[]) AS o(tenant_id, customer_id, starts_at)
WHERE p.tenant_id = o.tenant_id AND p.customer_id = o.customer_id AND p.starts_at = o.starts_at
"""

_DUE = """
INSERT INTO month_turns AS m (tenant_id, customer_id, due_at)
SELECT * FROM unnest(%b::text[], %b::text[], %b::timestamptz[]) AS d(tenant_id, customer_id, due_at) ORDER BY 1, 2
ON CONFLICT (tenant_id, customer_id) DO UPDATE SET due_at = excluded.due_at
WHERE m.due_at IS DISTINCT FROM excluded.due_at
"""

_TURN_PLANS = """
UPDATE customers c
SET plan_id = next_plan_id, plan_version = next_plan_version,
    next_plan_id = NULL, next_plan_version = NULL, next_plan_at = NULL
FROM unnest(%b::text[], %b::text[]) AS t(tenant_id, customer_id)
WHERE c.tenant_id = t.tenant_id AND c.customer_id = t.customer_id AND c.next_plan_id IS NOT NULL
"""

_ADD_WALLETS = """
INSERT INTO wallets (tenant_id, customer_id, currency, created_at)
SELECT w.*, %b FROM unnest(%b::text[], %b::text[], %b::text[]) AS w(tenant_id, customer_id, currency)
ORDER BY 1, 2, 3
ON CONFLICT (tenant_id, customer_id, currency) DO NOTHING
"""

#: A period closes after those before it, or a statement would open with a balance that can still change.
_MAY_CLOSE = """
    p.closed_at IS NULL AND p.opened_at IS NOT NULL AND p.ends_at + l.grace_hours * interval '1 hour' <= %(now)s
    AND NOT EXISTS (
        SELECT FROM periods e
        WHERE e.tenant_id = p.tenant_id AND e.customer_id = p.customer_id AND e.starts_at < p.starts_at
            AND e.closed_at IS NULL
    )
"""

_TO_CLOSE = f"""
SELECT p.tenant_id, p.customer_id, p.starts_at FROM periods p
JOIN plans l ON l.tenant_id = p.tenant_id AND l.plan_id = p.plan_id AND l.version = p.plan_version
WHERE p.ends_at <= %(now)s AND {_MAY_CLOSE}
ORDER BY p.ends_at LIMIT %(limit)s
"""  # noqa: S608 - a condition of ours, no input

_CLOSE = f"""
UPDATE periods c SET closed_at = %(now)s
FROM unnest(%(tenant_ids)s::text[], %(customer_ids)s::text[], %(starts_at)s::timestamptz[])
    AS asked(tenant_id, customer_id, starts_at)
JOIN periods p ON p.tenant_id = asked.tenant_id AND p.customer_id = asked.customer_id
    AND p.starts_at = asked.starts_at
JOIN plans l ON l.tenant_id = p.tenant_id AND l.plan_id = p.plan_id AND l.version = p.plan_version
WHERE c.tenant_id = p.tenant_id AND c.customer_id = p.customer_id AND c.starts_at = p.starts_at AND {_MAY_CLOSE}
"""  # noqa: S608 - a condition of ours, no input

_MAY_STATE = """
    p.closed_at IS NOT NULL AND p.statement_number IS NULL
    AND NOT EXISTS (
        SELECT FROM periods e
        WHERE e.tenant_id = p.tenant_id AND e.customer_id = p.customer_id AND e.starts_at < p.starts_at
            AND e.statement_number IS NULL
    )
"""

#: Whose last one could not be issued comes behind all others: a hundred of them would keep everybody's back.
_TO_STATE = f"""
SELECT p.tenant_id, p.customer_id, p.starts_at FROM periods p
WHERE {_MAY_STATE}
    AND NOT EXISTS (
        SELECT FROM alerts a
        WHERE a.tenant_id = p.tenant_id AND a.kind = %s AND a.subject = p.customer_id AND a.seen_at IS NULL
    )
ORDER BY p.ends_at, p.tenant_id, p.customer_id LIMIT %s
"""  # noqa: S608 - a condition of ours, no input

_TO_STATE_AGAIN = f"""
SELECT p.tenant_id, p.customer_id, p.starts_at FROM alerts a
JOIN periods p ON p.tenant_id = a.tenant_id AND p.customer_id = a.subject
WHERE a.kind = %s AND a.seen_at IS NULL AND {_MAY_STATE}
ORDER BY a.last_at, p.tenant_id, p.customer_id LIMIT %s
"""  # noqa: S608 - a condition of ours, no input


def lock_due(connection: Connection, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Lock the turn of some (tenant, customer) for whom it is time, skipping those that others hold; in order.

    Those whose last period has ended; when there are none, those with a period that is not opened.
    """
    due = connection.execute(_LOCK_DUE, (now, limit)).fetchall()
    due = due or connection.execute(_LOCK_UNOPENED, (now, limit)).fetchall()
    return sorted(cast("list[tuple[str, str]]", due))


def lock_turns(connection: Connection, customers: Sequence[tuple[str, str]]) -> None:
    """Lock the turn of these (tenant, customer); before their wallets."""
    connection.execute(_LOCK_TURNS, [list(column) for column in zip(*customers, strict=True)])


def subscriptions(connection: Connection, customers: Sequence[tuple[str, str]]) -> list[SubscriptionRow]:
    """The subscriptions of these (tenant, customer), in order."""
    tenant_ids, customer_ids = zip(*customers, strict=True)
    rows = connection.execute(_SUBSCRIPTIONS, (texts(tenant_ids), texts(customer_ids)), binary=True)
    return [SubscriptionRow._make(cast("Any", row)) for row in rows.fetchall()]


def periods_to_turn(connection: Connection, customers: Sequence[tuple[str, str]]) -> list[KnownPeriod]:
    """The last period of these (tenant, customer), and all from the one before the first unopened, in order."""
    tenant_ids, customer_ids = zip(*customers, strict=True)
    rows = connection.execute(_PERIODS, (texts(tenant_ids), texts(customer_ids)), binary=True)
    return [KnownPeriod._make(cast("Any", row)) for row in rows.fetchall()]


def begin(connection: Connection, periods: Sequence[OpenedPeriod]) -> None:
    """Write periods that have begun. The exclusion constraint refuses any overlap."""
    tenants, customers, starts, ends, plans, versions, zones, opened = zip(*periods, strict=True)
    columns = (
        texts(tenants),
        texts(customers),
        moments(starts),
        moments(ends),
        texts(plans),
        bigints(versions),
        texts(zones),
        optional_moments(opened),
    )
    connection.execute(_BEGIN, columns)


def open_(connection: Connection, periods: Sequence[PeriodKey], now: datetime) -> None:
    """Note of periods that what they owe and get is decided."""
    tenants, customers, starts = zip(*periods, strict=True)
    connection.execute(_OPEN, (now, texts(tenants), texts(customers), moments(starts)))


def set_due(connection: Connection, due: Sequence[Due]) -> None:
    """Note when the months of customers turn next."""
    tenants, customers, moments_due = zip(*due, strict=True)
    connection.execute(_DUE, (texts(tenants), texts(customers), optional_moments(moments_due)))


def turn_plans(connection: Connection, customers: Sequence[tuple[str, str]]) -> None:
    """Make the next plan of these (tenant, customer) their plan."""
    tenant_ids, customer_ids = zip(*customers, strict=True)
    connection.execute(_TURN_PLANS, (texts(tenant_ids), texts(customer_ids)))


def add_wallets(connection: Connection, wallets: Sequence[tuple[str, str, str]], now: datetime) -> None:
    """Make sure of a wallet for each (tenant, customer, currency)."""
    connection.execute(_ADD_WALLETS, (now, *(texts(column) for column in zip(*wallets, strict=True))))


def to_close(connection: Connection, now: datetime, limit: int) -> list[PeriodKey]:
    """Some periods whose grace has passed, the earliest first; at most one of a customer."""
    return cast("list[PeriodKey]", connection.execute(_TO_CLOSE, {"now": now, "limit": limit}).fetchall())


def close(connection: Connection, periods: Sequence[PeriodKey], now: datetime) -> int:
    """Close those of the periods that still may be; how many. From then on nothing counts in them."""
    tenant_ids, customer_ids, starts_at = (list(column) for column in zip(*periods, strict=True))
    said = {"now": now, "tenant_ids": tenant_ids, "customer_ids": customer_ids, "starts_at": starts_at}
    return connection.execute(_CLOSE, said).rowcount


def to_state(connection: Connection, limit: int) -> list[PeriodKey]:
    """Some closed periods without a statement, the earliest of each customer; not of whom a person was told."""
    said = (AlertKind.STATEMENT_FAILS, limit)
    return cast("list[PeriodKey]", connection.execute(_TO_STATE, said).fetchall())


def to_state_again(connection: Connection, limit: int) -> list[PeriodKey]:
    """The same of whom a person was told and has not seen it, those first that were tried longest ago."""
    said = (AlertKind.STATEMENT_FAILS, limit)
    return cast("list[PeriodKey]", connection.execute(_TO_STATE_AGAIN, said).fetchall())
