"""Periods and their counters. Whoever changes them holds the customer's wallets first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Self, cast

from billing.charging import Tally
from db.arrays import BigintArray, MomentArray, TextArray, bigints, optional_moments, texts
from db.session import Connection


class NewPeriod(NamedTuple):
    """A period to begin."""

    tenant_id: str
    customer_id: str
    starts_at: datetime
    ends_at: datetime
    plan_id: str
    plan_version: int
    time_zone: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What a transaction adds to periods, ready to be sent before any lock is taken."""

    number: int
    tenant_ids: TextArray
    customer_ids: TextArray
    starts_at: MomentArray
    tokens: BigintArray
    events: BigintArray

    @classmethod
    def of(cls, tallies: Sequence[Tally]) -> Self:
        return cls(
            len(tallies),
            texts([tally.tenant_id for tally in tallies]),
            texts([tally.customer_id for tally in tallies]),
            optional_moments([tally.period.starts_at for tally in tallies]),
            bigints([tally.tokens for tally in tallies]),
            bigints([tally.events for tally in tallies]),
        )


class PeriodTotals(NamedTuple):
    """A period's counters after the addition; `number` is its place, from 1, among those that were counted."""

    number: int
    tokens: int
    tiers_reached: int


_BEGIN = """
INSERT INTO periods (tenant_id, customer_id, starts_at, ends_at, plan_id, plan_version, time_zone)
SELECT * FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::text[], %b::int[], %b::text[])
    AS p(tenant_id, customer_id, starts_at, ends_at, plan_id, plan_version, time_zone)
ORDER BY p.tenant_id, p.customer_id, p.starts_at
ON CONFLICT (tenant_id, customer_id, starts_at) DO NOTHING
"""

_COUNT = """
UPDATE periods p
SET tokens = p.tokens + d.tokens, events = p.events + d.events
FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::bigint[], %b::bigint[]) WITH ORDINALITY
    AS d(tenant_id, customer_id, starts_at, tokens, events, number)
WHERE p.tenant_id = d.tenant_id AND p.customer_id = d.customer_id AND p.starts_at = d.starts_at
    AND p.closed_at IS NULL
RETURNING d.number, p.tokens, p.tiers_reached
"""

_REACHED = """
UPDATE periods p
SET tiers_reached = r.tiers_reached
FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::int[])
    AS r(tenant_id, customer_id, starts_at, tiers_reached)
WHERE p.tenant_id = r.tenant_id AND p.customer_id = r.customer_id AND p.starts_at = r.starts_at
"""

_CLIMBED = """
SELECT price_id, quantity FROM period_quantities
WHERE tenant_id = %s AND customer_id = %s AND period_start = %s AND price_id = ANY(%s)
"""

_CLIMB = """
INSERT INTO period_quantities AS q (tenant_id, customer_id, period_start, price_id, quantity)
SELECT * FROM unnest(%b::text[], %b::text[], %b::timestamptz[], %b::bigint[], %b::numeric[])
    AS c(tenant_id, customer_id, period_start, price_id, quantity)
ORDER BY 1, 2, 3, 4
ON CONFLICT (tenant_id, customer_id, period_start, price_id) DO UPDATE SET quantity = q.quantity + excluded.quantity
RETURNING q.tenant_id, q.customer_id, q.period_start, q.price_id, q.quantity
"""

Climb = tuple[str, str, datetime, int]
"""tenant, customer, start of the period, price"""


def begin(connection: Connection, periods: Sequence[NewPeriod]) -> None:
    """Begin periods that are not there yet. The exclusion constraint refuses any overlap."""
    connection.execute(_BEGIN, [list(column) for column in zip(*periods, strict=True)])


def count(connection: Connection, counts: Counts) -> list[PeriodTotals]:
    """Add to the counters of open periods; the totals after it. A closed period is left out of the answer."""
    columns = (counts.tenant_ids, counts.customer_ids, counts.starts_at, counts.tokens, counts.events)
    rows = connection.execute(_COUNT, columns, binary=True)
    return [PeriodTotals._make(cast("Any", row)) for row in rows.fetchall()]


def reach(connection: Connection, reached: Sequence[tuple[str, str, datetime, int]]) -> None:
    """Set how many tiers periods have reached: (tenant, customer, start, tiers)."""
    connection.execute(_REACHED, [list(column) for column in zip(*reached, strict=True)])


def climbed(
    connection: Connection, tenant_id: str, customer_id: str, starts_at: datetime, price_ids: Sequence[int]
) -> dict[int, Decimal]:
    """How far the ladders of these prices are climbed in a period, by price. Takes no lock."""
    rows = connection.execute(_CLIMBED, (tenant_id, customer_id, starts_at, list(price_ids)))
    return dict(cast("list[tuple[int, Decimal]]", rows.fetchall()))


def climb(connection: Connection, quantities: dict[Climb, Decimal]) -> dict[Climb, Decimal]:
    """Add quantities to the ladders of periods; the totals after it. Locks the counters, in order."""
    columns = [*zip(*quantities, strict=True), tuple(quantities.values())]
    rows = connection.execute(_CLIMB, [list(column) for column in columns], binary=True)
    return {cast("Climb", row[:4]): cast("Decimal", row[4]) for row in rows}
