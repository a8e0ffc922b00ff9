"""From received events to rows: who is meant, which period, what it costs, or why it can't be charged.

Nothing here holds a lock; all rules are pure and live in `billing`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter

import msgspec

from billing.charging import Charge, Tally
from billing.fingerprints import fingerprint
from billing.money import ZERO, written
from billing.periods import Period, place
from billing.plans import Plan
from billing.prices import Price, PriceBook
from billing.rating import Bounds, Line, Parking, ParkReason, rate
from centavo import Item, UsageEvent
from config import faults
from db import customers as customer_rows
from db import usage as usage_rows
from db.session import Connection
from db.usage import EventRow
from services import catalogue
from services.envelopes import Received, Unusable

#: How far back the beginnings of periods are read: as old as an event may be, and two months more.
PERIODS_SINCE = timedelta(days=100)

_context_of = itemgetter(*usage_rows.CONTEXT_COLUMNS)
_encode = msgspec.json.Encoder().encode
# Fractions were read as Decimal; in what the producer said they are numbers.
_encode_as_said = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(slots=True)
class Account:
    """A customer as the usage path sees one."""

    time_zone: str
    plan_key: tuple[str, int]
    wallets: dict[str, int] = field(default_factory=dict)
    periods: list[Period] = field(default_factory=list)
    tallies: dict[datetime, Tally] = field(default_factory=dict)


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
    window = bounds.at(now) if bounds else None
    prepared = Prepared()
    strangers: list[Received] = []
    for one in received:
        if not _is_first(one, prepared):
            continue
        account = accounts.get((one.event.tenant_id, one.event.customer_id))
        if account is None:
            strangers.append(one)
            continue
        faults.poisonous(one.event.key)
        parking = window.implausible(one.event) if window else None
        charged = parking or _charge(one.event, account, plans, book, now)
        if isinstance(charged, Parking):
            _add_parked(prepared, one, charged)
        else:
            _add_charge(prepared, one, charged)
    if strangers:
        prepared.unusable += _unknown(connection, strangers)
    return prepared


def _charge(
    event: UsageEvent, account: Account, plans: Mapping[catalogue.PlanKey, Plan], book: PriceBook, now: datetime
) -> Charge | Parking:
    """An event, rated on the plan of the period that it counts in."""
    period, is_late = place(event.occurred_at, account.periods, now, account.time_zone, account.plan_key)
    tally = account.tallies.get(period.starts_at)
    plan = tally.plan if tally else plans[event.tenant_id, period.plan_id, period.plan_version]
    rated = rate(event, plan, account.wallets, book)
    if isinstance(rated, Parking):
        return rated
    if tally is None:
        tally = account.tallies[period.starts_at] = Tally(event.tenant_id, event.customer_id, period, plan)
        if period.is_new:
            account.periods.append(period)
    wallet_id = account.wallets[rated.currency] if rated.currency else None
    return Charge(event, rated, tally, is_late, wallet_id, tuple(account.wallets.values()))


def items_as_json(lines: Sequence[Line]) -> str:
    """The lines of an event as they are kept: each item with its price and cost."""
    return "[" + ",".join([_line_as_json(*line) for line in lines]) + "]"


def _line_as_json(item: Item, price: Price | None, cost: Decimal) -> str:
    product = _product_as_json(item.category, item.provider, item.model, item.unit)
    price_id = price.price_id if price else "null"
    return f'{product},"quantity":"{written(item.quantity)}","price_id":{price_id},"cost":"{written(cost)}"}}'


@lru_cache(maxsize=4096)
def _product_as_json(category: str, provider: str, model: str, unit: str) -> str:
    """The beginning of a line's JSON object: the same few products come all day."""
    product = {"category": category, "provider": provider, "model": model, "unit": unit}
    return _encode(product).decode().removesuffix("}")


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
        charge.tally.period.starts_at,
        charge.is_late,
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
    return None if metadata is None else _encode_as_said(metadata).decode()
