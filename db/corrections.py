"""Corrections: events as they count now, and what was done to them after they were charged.

Whoever writes here holds the customer's wallets, then the period's row, then the event's.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

import msgspec

from billing.corrections import Burned
from billing.grants import Change
from billing.rerating import GivenPrice, PastEvent, PastLine
from db.session import Connection

#: Events that are read, rated and written at once.
PAGE = 5000
#: Mostly, the very last event of a ladder will do.
LAST_PAGE = 100


class EventStanding(NamedTuple):
    """An event, and where it stands."""

    tenant_id: str
    key: str
    customer_id: str
    status: str
    period_start: datetime | None
    charged_at: datetime | None
    voided_at: datetime | None
    void_reason: str | None


class PeriodStanding(NamedTuple):
    """A period under lock."""

    tenant_id: str
    customer_id: str
    starts_at: datetime
    plan_id: str
    plan_version: int
    tokens: int
    tiers_reached: int
    is_closed: bool
    archive_id: int | None


class NewCorrection(NamedTuple):
    """What is done to an event; `detail` is JSON."""

    tenant_id: str
    kind: str
    event_key: str
    customer_id: str
    counted_in: datetime
    told_in: datetime
    tokens: int
    cost: Decimal
    currency: str | None
    wallet_id: int | None
    seq: int | None
    detail: str | None
    reason: str


class Voided(NamedTuple):
    """What the void of an event took back."""

    tokens: int
    cost: Decimal
    currency: str | None


class Detail(msgspec.Struct):
    """What is kept of an event's new rating: its lines by the prices given, and what it has burned after it."""

    lines: tuple[PastLine, ...]
    burned: Burned


_STANDING = """
SELECT tenant_id, key, customer_id, status, period_start, charged_at, voided_at, void_reason FROM usage_events
WHERE tenant_id = %s AND key = %s
"""

_LOCK_PERIOD = """
SELECT tenant_id, customer_id, starts_at, plan_id, plan_version, tokens, tiers_reached, closed_at IS NOT NULL,
    archive_id
FROM periods WHERE tenant_id = %s AND customer_id = %s AND starts_at = %s
FOR NO KEY UPDATE
"""

#: By the local middle: where a boundary moved, or a plan changed, the periods of a month are those that lie in it most.
_CHOSEN = """
SELECT customer_id, starts_at FROM periods
WHERE tenant_id = %(tenant_id)s AND (%(customers)s::text[] IS NULL OR customer_id = ANY(%(customers)s))
    AND (starts_at + (ends_at - starts_at) / 2) AT TIME ZONE time_zone >= %(since)s
    AND (starts_at + (ends_at - starts_at) / 2) AT TIME ZONE time_zone < %(until)s
ORDER BY customer_id, starts_at
"""

_EVENT_COLUMNS = "u.key, u.occurred_at, u.charged_at, u.tokens, u.cost, u.currency, u.items::text"

_OF_PERIOD = f"""
SELECT {_EVENT_COLUMNS} FROM usage_events u
WHERE u.tenant_id = %s AND u.customer_id = %s AND u.period_start = %s AND u.status = 'charged'
ORDER BY u.charged_at, u.key
"""  # noqa: S608 - column names of ours, no input

_CHARGED = f"""
SELECT {_EVENT_COLUMNS} FROM usage_events u WHERE u.tenant_id = %s AND u.key = %s AND u.status = 'charged'
"""  # noqa: S608 - column names of ours, no input

#: The lines of an event as they count now.
_LINES_NOW = """
FROM usage_events u
LEFT JOIN LATERAL (
    SELECT c.detail->'lines' AS lines FROM corrections c
    WHERE c.tenant_id = u.tenant_id AND c.event_key = u.key AND c.kind = 'rerate'
    ORDER BY c.correction_id DESC LIMIT 1
) c ON true
CROSS JOIN LATERAL jsonb_array_elements(coalesce(c.lines, u.items)) AS line
WHERE u.tenant_id = %(tenant_id)s AND u.customer_id = %(customer_id)s AND u.period_start = %(period_start)s
    AND u.status = 'charged' AND u.key <> %(but)s AND line->%(kept_as)s::text = %(price)s::jsonb
"""

_CLIMBED = f"""
SELECT coalesce(sum((line->>'quantity')::numeric), 0), coalesce(sum((line->>'cost')::numeric), 0) {_LINES_NOW}
"""

_LAST_ON_LADDER = f"""
SELECT {_EVENT_COLUMNS} FROM (
    SELECT u.tenant_id, u.key {_LINES_NOW} GROUP BY u.tenant_id, u.key
) l JOIN usage_events u ON u.tenant_id = l.tenant_id AND u.key = l.key
ORDER BY u.charged_at DESC, u.key DESC
"""  # noqa: S608 - a join of ours, no input

_SO_FAR = """
SELECT event_key, sum(cost), (array_agg(currency ORDER BY correction_id DESC) FILTER (WHERE currency IS NOT NULL))[1],
    (array_agg(detail::text ORDER BY correction_id DESC) FILTER (WHERE kind = 'rerate'))[1]
FROM corrections WHERE tenant_id = %s AND event_key = ANY(%s) GROUP BY event_key
"""

#: An event says when it was charged, and its entry was written at that very moment: a BRIN index finds the place.
_ENTRIES = """
SELECT e.event_key, e.grant_id::text, e.parts::text, e.amount FROM ledger_entries e
WHERE e.recorded_at BETWEEN %(since)s AND %(until)s AND e.tenant_id = %(tenant_id)s
    AND e.wallet_id = ANY(%(wallet_ids)s) AND e.kind = 'usage' AND e.event_key = ANY(%(keys)s)
"""

_VOIDED = """
SELECT -tokens, -cost, currency FROM corrections WHERE tenant_id = %s AND event_key = %s AND kind = 'void'
"""

_ADD = """
INSERT INTO corrections (tenant_id, kind, event_key, customer_id, counted_in, told_in, tokens, cost, currency,
    wallet_id, seq, detail, reason, at)
SELECT n.tenant_id, n.kind, n.event_key, n.customer_id, n.counted_in, n.told_in, n.tokens, n.cost, n.currency,
    n.wallet_id, n.seq, n.detail::jsonb, n.reason, %s
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::bigint[],
    %s::numeric[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[])
    WITH ORDINALITY AS n(tenant_id, kind, event_key, customer_id, counted_in, told_in, tokens, cost, currency,
        wallet_id, seq, detail, reason, number)
ORDER BY n.number
"""

_VOID = """
UPDATE usage_events
SET status = 'voided', voided_at = %(now)s, void_reason = %(reason)s, park_reason = NULL, park_detail = NULL,
    cost = CASE status WHEN 'pending' THEN 0 ELSE cost END, tokens = CASE status WHEN 'pending' THEN 0 ELSE tokens END
WHERE tenant_id = %(tenant_id)s AND key = %(key)s AND status <> 'voided'
"""

_TAKE_OFF = """
UPDATE periods SET tokens = tokens - %s, events = events - 1, tiers_reached = %s
WHERE tenant_id = %s AND customer_id = %s AND starts_at = %s
"""

_CLIMB = """
INSERT INTO period_quantities AS q (tenant_id, customer_id, period_start, price_id, quantity)
VALUES (%s, %s, %s, %s, greatest(0, %s))
ON CONFLICT (tenant_id, customer_id, period_start, price_id) DO UPDATE SET quantity = q.quantity + %s
RETURNING quantity
"""

#: A ladder that nothing stands on has no row.
_FORGET_CLIMB = """
DELETE FROM period_quantities
WHERE tenant_id = %s AND customer_id = %s AND period_start = %s AND price_id = %s AND quantity = 0
"""

#: A period may have a million events, which take some minutes. Its customer waits, and whoever is in one transaction
#: with them, until that is worked in parts (`services.alone`, `services.metering.usage`).
_PATIENCE = "SET LOCAL statement_timeout = '120s'; SET LOCAL transaction_timeout = '1h'"


def be_patient(connection: Connection) -> None:
    """Let this transaction take its time: it works through all events of a period."""
    connection.execute(_PATIENCE)


def standing(connection: Connection, tenant_id: str, key: str, *, is_locked: bool = False) -> EventStanding | None:
    """Where an event stands, or None; locked FOR NO KEY UPDATE if asked for, by whoever holds the wallets."""
    statement = f"{_STANDING} FOR NO KEY UPDATE" if is_locked else _STANDING
    row = connection.execute(statement.encode(), (tenant_id, key)).fetchone()
    return EventStanding._make(cast("Any", row)) if row else None


def lock_period(connection: Connection, tenant_id: str, customer_id: str, starts_at: datetime) -> PeriodStanding:
    """A period's row, locked FOR NO KEY UPDATE: its statement is issued before this, or after."""
    row = connection.execute(_LOCK_PERIOD, (tenant_id, customer_id, starts_at)).fetchone()
    assert row is not None
    return PeriodStanding._make(cast("Any", row))


def periods_between(
    connection: Connection, tenant_id: str, since: date, until: date, customers: Sequence[str] | None
) -> list[tuple[str, datetime]]:
    """(customer, start) of the periods whose middle lies in these days, by the clocks of their own zones; in order."""
    said = {"tenant_id": tenant_id, "since": since, "until": until, "customers": list(customers) if customers else None}
    return cast("list[tuple[str, datetime]]", connection.execute(_CHOSEN, said).fetchall())


def plan_of(connection: Connection, tenant_id: str, customer_id: str, starts_at: datetime) -> tuple[str, str, int]:
    """The (tenant, plan, version) of a period."""
    statement = """
        SELECT tenant_id, plan_id, plan_version FROM periods
        WHERE tenant_id = %s AND customer_id = %s AND starts_at = %s
    """
    row = connection.execute(statement, (tenant_id, customer_id, starts_at)).fetchone()
    return cast("tuple[str, str, int]", row)


def currencies_of(connection: Connection, tenant_id: str, customer_id: str) -> set[str]:
    """The currencies in which a customer has wallets."""
    statement = "SELECT currency FROM wallets WHERE tenant_id = %s AND customer_id = %s"
    return {cast("str", currency) for (currency,) in connection.execute(statement, (tenant_id, customer_id))}


def of_period(
    connection: Connection, tenant_id: str, customer_id: str, starts_at: datetime
) -> Iterator[list[PastEvent]]:
    """The charged events of a period as they count now, page by page, in the order in which they were charged.

    Of one transaction, by key. Takes no lock; sees what was there when it began.
    """
    with connection.cursor("events_of_period") as cursor:
        cursor.execute(_OF_PERIOD, (tenant_id, customer_id, starts_at))
        while page := cursor.fetchmany(PAGE):
            yield _as_past(connection, tenant_id, customer_id, page)


def charged(connection: Connection, tenant_id: str, customer_id: str, key: str) -> PastEvent | None:
    """A charged event as it counts now, or None."""
    rows = connection.execute(_CHARGED, (tenant_id, key)).fetchall()
    return next(iter(_as_past(connection, tenant_id, customer_id, rows)), None)


def climbed(
    connection: Connection, period: PeriodStanding, price: int | GivenPrice, *, but: str
) -> tuple[Decimal, Decimal]:
    """(quantity, cost) of what stands on a ladder in a period now, without one event's."""
    row = connection.execute(_CLIMBED, _on_ladder(period, price, but)).fetchone()
    return cast("tuple[Decimal, Decimal]", row)


def last_on_ladder(
    connection: Connection, period: PeriodStanding, price: int | GivenPrice, *, but: str
) -> Iterator[list[PastEvent]]:
    """The events that stand on a ladder in a period now but for one, page by page, the one charged last first."""
    with connection.cursor("last_on_ladder") as cursor:
        cursor.execute(_LAST_ON_LADDER, _on_ladder(period, price, but))
        while page := cursor.fetchmany(LAST_PAGE):
            yield _as_past(connection, period.tenant_id, period.customer_id, page)


def burned(
    connection: Connection, tenant_id: str, wallet_ids: Sequence[int], events: Sequence[PastEvent]
) -> dict[str, Burned]:
    """What these events took when they were charged, by grant and debt; nothing of those that cost nothing."""
    if not events:
        return {}
    times = [event.charged_at for event in events]
    said = {
        "since": min(times),
        "until": max(times),
        "tenant_id": tenant_id,
        "wallet_ids": list(wallet_ids),
        "keys": [event.key for event in events],
    }
    rows = cast("list[tuple[str, str | None, str | None, Decimal]]", connection.execute(_ENTRIES, said).fetchall())
    return {
        key: Change(grant_id, _decode_burned(parts) if parts is not None else None).of(amount)
        for key, grant_id, parts, amount in rows
    }


def voided(connection: Connection, tenant_id: str, key: str) -> Voided:
    """What was taken back when an event was voided; nothing of one that was not charged."""
    row = connection.execute(_VOIDED, (tenant_id, key)).fetchone()
    return Voided._make(cast("Any", row)) if row else Voided(0, Decimal(0), None)


def add(connection: Connection, corrections: Sequence[NewCorrection], now: datetime) -> None:
    """Write corrections, in their order. The unique index allows one void of an event."""
    columns = [list(column) for column in zip(*corrections, strict=True)]
    connection.execute(_ADD, (now, *columns))


def void(connection: Connection, tenant_id: str, key: str, reason: str, now: datetime) -> None:
    """Let an event count no more; what it was stays in its row."""
    connection.execute(_VOID, {"tenant_id": tenant_id, "key": key, "reason": reason, "now": now})


def take_off(connection: Connection, period: PeriodStanding, tokens: int, tiers_reached: int) -> None:
    """Take an event off its period's counters, be it closed or open, and say how many tiers are reached now."""
    identity = (period.tenant_id, period.customer_id, period.starts_at)
    connection.execute(_TAKE_OFF, (tokens, tiers_reached, *identity))


def climb(connection: Connection, period: PeriodStanding, quantities: Mapping[int, Decimal]) -> None:
    """Climb the ladders of a period further, or less, by the ids of their prices: what is used next goes on there."""
    identity = (period.tenant_id, period.customer_id, period.starts_at)
    for price_id, quantity in sorted(quantities.items()):
        row = connection.execute(_CLIMB, (*identity, price_id, quantity, quantity)).fetchone()
        if row is not None and not row[0]:
            connection.execute(_FORGET_CLIMB, (*identity, price_id))


def detail_as_json(lines: Sequence[PastLine], burned: Burned) -> str:
    """What is kept of a new rating."""
    return msgspec.json.encode(Detail(tuple(lines), burned)).decode()


def _on_ladder(period: PeriodStanding, price: int | GivenPrice, but: str) -> dict[str, Any]:
    return {
        "tenant_id": period.tenant_id,
        "customer_id": period.customer_id,
        "period_start": period.starts_at,
        "but": but,
        "kept_as": "price_id" if isinstance(price, int) else "given",
        "price": msgspec.json.encode(price).decode(),
    }


_decode_lines = msgspec.json.Decoder(tuple[PastLine, ...]).decode
_decode_burned = msgspec.json.Decoder(Burned).decode
_decode_detail = msgspec.json.Decoder(Detail).decode


def _as_past(connection: Connection, tenant_id: str, customer_id: str, rows: Sequence[Any]) -> list[PastEvent]:
    """Events with all corrections so far."""
    keys = [row[0] for row in rows]
    found = connection.execute(_SO_FAR, (tenant_id, keys)).fetchall() if keys else []
    so_far = {cast("Any", row)[0]: cast("tuple[Any, ...]", row)[1:] for row in found}
    return [_one_past(tenant_id, customer_id, row, so_far.get(row[0])) for row in rows]


def _one_past(tenant_id: str, customer_id: str, row: Any, so_far: tuple[Any, ...] | None) -> PastEvent:
    key, occurred_at, charged_at, tokens, cost, currency, items = row
    identity = (tenant_id, customer_id, key, occurred_at, charged_at, tokens)
    if so_far is None:
        return PastEvent(*identity, cost, currency, _decode_lines(items))
    added, latest_currency, detail = so_far
    if detail is None:
        return PastEvent(*identity, cost + added, latest_currency or currency, _decode_lines(items))
    latest = _decode_detail(detail)
    return PastEvent(*identity, cost + added, latest_currency or currency, latest.lines, latest.burned)
