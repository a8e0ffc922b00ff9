"""From received events to rows: who is meant, which period, what it costs, or why it can't be charged.

Nothing here holds a lock; all rules are pure and live in `billing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter

import msgspec

from billing.charging import Charge
from billing.fingerprints import fingerprint
from billing.money import ZERO, written
from billing.periods import Period, place
from billing.rating import Bounds, Line, Parking, ParkReason, implausible, rate
from config import faults
from db import customers as customer_rows
from db import usage as usage_rows
from db.session import Connection
from db.usage import EventRow
from services import catalogue
from services.envelopes import Received, Unusable

#: How far back periods are read: as old as an event may be, and a month more.
PERIODS_SINCE = timedelta(days=70)

_context_of = itemgetter(*usage_rows.CONTEXT_COLUMNS)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Account:
    """A customer as the usage path sees one."""

    time_zone: str
    plan_key: tuple[str, int]
    wallets: dict[str, int] = field(default_factory=dict)
    periods: list[Period] = field(default_factory=list)


@dataclass(slots=True)
class Prepared:
    """A transaction's worth of events, ready to be inserted."""

    rows: list[EventRow] = field(default_factory=list)
    contexts: list[tuple[str | None, ...]] = field(default_factory=list)
    sources: dict[tuple[str, str], Received] = field(default_factory=dict)
    fingerprints: dict[tuple[str, str], bytes] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    unusable: list[Unusable] = field(default_factory=list)
    duplicates: int = 0
    conflicts: int = 0


def prepare(connection: Connection, received: Sequence[Received], now: datetime, bounds: Bounds | None) -> Prepared:
    """Rate each event for its customer; reads accounts, periods and prices, and locks nothing.

    Without bounds, a person has looked at the events and finds them plausible.
    """
    accounts, revision = _accounts(connection, received, now)
    book = catalogue.price_book(connection, revision)
    plans = catalogue.plans(connection, _plan_keys(accounts))
    prepared = Prepared()
    strangers: list[Received] = []
    for one in received:
        event = one.event
        if not _is_first(one, prepared):
            continue
        account = accounts.get((event.tenant_id, event.customer_id))
        if account is None:
            strangers.append(one)
            continue
        faults.poisonous(event.key)
        placement = place(event.occurred_at, account.periods, now, account.time_zone, account.plan_key)
        plan = plans[event.tenant_id, placement.period.plan_id, placement.period.plan_version]
        parking = implausible(event, now, bounds) if bounds else None
        rated = parking or rate(event, plan, account.wallets, book)
        if isinstance(rated, Parking):
            _add_parked(prepared, one, rated)
            continue
        if placement.period.is_new and placement.period not in account.periods:
            account.periods.append(placement.period)
        wallet_id = account.wallets[rated.currency] if rated.currency else None
        charge = Charge(event, rated, placement, plan, wallet_id, tuple(account.wallets.values()))
        _add_charge(prepared, one, charge)
    if strangers:
        prepared.unusable += _unknown(connection, strangers)
    return prepared


def items_as_json(lines: Sequence[Line]) -> str:
    """The lines of an event as they are kept: each item with its price and cost."""
    return _encode(
        [
            {
                "category": line.item.category,
                "provider": line.item.provider,
                "model": line.item.model,
                "unit": line.item.unit,
                "quantity": written(line.item.quantity),
                "price_id": line.price.price_id if line.price else None,
                "cost": written(line.cost),
            }
            for line in lines
        ]
    ).decode()


def _accounts(
    connection: Connection, received: Sequence[Received], now: datetime
) -> tuple[dict[tuple[str, str], Account], int]:
    asked = {(one.event.tenant_id, one.event.customer_id) for one in received}
    tenant_ids, customer_ids = zip(*asked, strict=True)
    rows, periods, revision = usage_rows.read_context(connection, tenant_ids, customer_ids, now - PERIODS_SINCE)
    accounts: dict[tuple[str, str], Account] = {}
    for row in rows:
        identity = (row.tenant_id, row.customer_id)
        account = accounts.get(identity)
        if account is None:
            account = accounts[identity] = Account(row.time_zone, (row.plan_id, row.plan_version))
        if row.currency is not None and row.wallet_id is not None:
            account.wallets[row.currency] = row.wallet_id
    for period in periods:
        accounts[period.tenant_id, period.customer_id].periods.append(
            Period(period.starts_at, period.ends_at, period.plan_id, period.plan_version, period.is_closed)
        )
    return accounts, revision


def _plan_keys(accounts: dict[tuple[str, str], Account]) -> set[tuple[str, str, int]]:
    keys = {(tenant_id, *account.plan_key) for (tenant_id, _), account in accounts.items()}
    keys |= {
        (tenant_id, period.plan_id, period.plan_version)
        for (tenant_id, _), account in accounts.items()
        for period in account.periods
    }
    return keys


def _is_first(one: Received, prepared: Prepared) -> bool:
    """Whether this key is new to the transaction; a second one is a duplicate, or a conflict that is kept."""
    identity = (one.event.tenant_id, one.event.key)
    digest = fingerprint(one.event)
    before = prepared.fingerprints.setdefault(identity, digest)
    if identity not in prepared.sources:
        prepared.sources[identity] = one
        return True
    if before == digest:
        prepared.duplicates += 1
    else:
        add_conflict(prepared, one)
    return False


def add_conflict(prepared: Prepared, one: Received) -> None:
    """Keep an event whose key belongs to another payload."""
    prepared.conflicts += 1
    detail = f"key {one.event.key!r} was used before with another payload; the first one stands"
    prepared.unusable.append(unusable(one, ParkReason.KEY_CONFLICT, detail))


def unusable(one: Received, reason: ParkReason, detail: str) -> Unusable:
    """A well-formed event that can't have a row of its own."""
    event = one.event
    return Unusable(one.raw, reason, detail, event.tenant_id, event.customer_id, event.key)


def _unknown(connection: Connection, strangers: Sequence[Received]) -> list[Unusable]:
    tenants = customer_rows.existing_tenants(connection, [one.event.tenant_id for one in strangers])
    return [
        unusable(one, ParkReason.UNKNOWN_CUSTOMER, f"tenant has no customer {one.event.customer_id!r}")
        if one.event.tenant_id in tenants
        else unusable(one, ParkReason.UNKNOWN_TENANT, f"there is no tenant {one.event.tenant_id!r}")
        for one in strangers
    ]


def _add_charge(prepared: Prepared, one: Received, charge: Charge) -> None:
    event, rated = one.event, charge.rated
    row = EventRow(
        event.tenant_id,
        event.key,
        event.customer_id,
        "charged",
        event.occurred_at,
        charge.placement.period.starts_at,
        charge.placement.is_late,
        rated.tokens,
        rated.cost,
        rated.currency,
        items_as_json(rated.lines),
        prepared.fingerprints[event.tenant_id, event.key],
        _metadata(one),
        None,
        None,
    )
    _add(prepared, one, row)
    prepared.charges.append(charge)


def _add_parked(prepared: Prepared, one: Received, parking: Parking) -> None:
    _add(prepared, one, parked_row(one, parking, prepared.fingerprints[one.event.tenant_id, one.event.key]))


def parked_row(one: Received, parking: Parking, digest: bytes) -> EventRow:
    """The row of an event that waits: it owns its key, and has no cost yet."""
    event = one.event
    lines = [Line(item, None, ZERO) for item in event.items]
    return EventRow(
        event.tenant_id,
        event.key,
        event.customer_id,
        "parked",
        event.occurred_at,
        None,
        False,
        0,
        ZERO,
        None,
        items_as_json(lines),
        digest,
        _metadata(one),
        parking.reason,
        parking.detail,
    )


def context_of(one: Received) -> tuple[str | None, ...]:
    """The optional facts of an event, in the order of `CONTEXT_COLUMNS`."""
    context: tuple[str | None, ...] = _context_of(one.event.__dict__)
    return context


def _add(prepared: Prepared, one: Received, row: EventRow) -> None:
    prepared.rows.append(row)
    prepared.contexts.append(context_of(one))


def _metadata(one: Received) -> str | None:
    metadata = one.event.metadata
    return None if metadata is None else _encode(metadata).decode()
