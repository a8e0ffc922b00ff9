"""From received events to rows: who is meant, which period, what it costs, or why it can't be charged.

Nothing here holds a lock; all rules are pure and live in `billing`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from operator import attrgetter

import msgspec

from billing.charging import Charge, Tally
from billing.events import Event
from billing.fingerprints import fingerprint
from billing.money import ZERO, written
from billing.periods import Period, place, place_known
from billing.plans import LateEvents
from billing.prices import PriceBook
from billing.rating import Bounds, Line, Parking, ParkReason, Window, rate, too_many_tiers
from config import faults
from config.settings import settings
from db import customers as customer_rows
from db import usage as usage_rows
from db.session import Connection
from db.usage import EventRow
from services.books import accounts, catalogue
from services.books.accounts import Account
from services.metering import counting
from services.metering.envelopes import Received, Unusable

_context_of = attrgetter(*usage_rows.CONTEXT_COLUMNS)
_encode = msgspec.json.Encoder().encode
# Fractions were read as Decimal; in what the producer said they are numbers.
_encode_as_said = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(slots=True)
class Tab:
    """What a customer runs up in one transaction."""

    account: Account
    periods: Sequence[Period]
    tallies: dict[datetime, Tally] = field(default_factory=dict)
    tokens: dict[datetime, int] = field(default_factory=dict)
    """on plans with tiers, by the period's start"""


class First(msgspec.Struct):
    """The first event under its key in this transaction, and what it says."""

    received: Received
    fingerprint: bytes


@dataclass(slots=True)
class Prepared:
    """A transaction's worth of events, ready to be inserted."""

    rows: list[EventRow] = field(default_factory=list)
    contexts: list[tuple[str | None, ...]] = field(default_factory=list)
    firsts: dict[tuple[str, str], First] = field(default_factory=dict)
    repeats: list[First] = field(default_factory=list)
    """Events whose key came before in this transaction: of the same payload or another, what stands will tell."""
    charges: list[Charge] = field(default_factory=list)
    quota_ids: Mapping[tuple[str, str], Sequence[int]] = field(default_factory=dict)
    """Of the events that count in some."""
    unusable: list[Unusable] = field(default_factory=list)
    duplicates: int = 0
    conflicts: int = 0

    def defer(self) -> None:
        """Let what could be charged wait: priced as it is now, counted and debited nowhere, in no period."""
        for row in self.rows:
            if row.status == "charged":
                row.status, row.period_start, row.is_late = "pending", None, False
        self.charges, self.quota_ids = [], {}


def prepare(connection: Connection, received: Sequence[Received], now: datetime, bounds: Bounds | None) -> Prepared:
    """Rate each event for its customer; reads accounts, periods and prices, and locks nothing.

    Without bounds, a person has looked at the events and finds them plausible. What is kept of customers may be
    out of date: it may lead to a charge, which is verified under their locks, and to nothing else.
    """
    prices, quotas = usage_rows.revisions(connection)
    book = catalogue.price_book(connection, prices)
    window = bounds.at(now) if bounds else None
    asked = {(one.event.tenant_id, one.event.customer_id) for one in received}
    if (oldest := _older_than_kept(received, now, bounds)) is None:
        known, are_kept = accounts.find(connection, asked, now)
    else:
        known, are_kept = accounts.read(connection, asked, now, with_terms=True, oldest=oldest), False
    try:
        prepared = _prepared(connection, received, now, _Rules(known, book, window))
    except accounts.TermsUnread:
        known, are_kept = accounts.read(connection, asked, now, with_terms=True), False
        prepared = _prepared(connection, received, now, _Rules(known, book, window))
    if are_kept and any(row.status == "parked" for row in prepared.rows):
        known = accounts.read(connection, asked, now, with_terms=True)
        prepared = _prepared(connection, received, now, _Rules(known, book, window))
    prepared.quota_ids = counting.match(connection, catalogue.quota_book(connection, quotas), known, prepared.charges)
    return prepared


def _older_than_kept(received: Sequence[Received], now: datetime, bounds: Bounds | None) -> datetime | None:
    """When the oldest of these occurred, where that lies further back than periods are kept: it has waited since."""
    usual = settings().bounds
    if bounds == usual:
        return None  # what is so old is parked
    oldest = min(one.event.occurred_at for one in received)
    return oldest if oldest < now - usual.age_max else None


@dataclass(frozen=True, slots=True)
class _Rules:
    """What events are rated by."""

    known: Mapping[accounts.Identity, Account]
    book: PriceBook
    window: Window | None


def _prepared(connection: Connection, received: Sequence[Received], now: datetime, rules: _Rules) -> Prepared:
    prepared = Prepared()
    tabs = {identity: Tab(account, account.periods) for identity, account in rules.known.items()}
    strangers: list[Received] = []
    faults.poisonous(one.event.key for one in received)
    for one in received:
        event = one.event
        tab = tabs.get((event.tenant_id, event.customer_id))
        if tab is None:
            strangers.append(one)  # of whom no key is taken
            continue
        digest = fingerprint(event)
        if not _is_first(one, digest, prepared):
            continue
        parking = rules.window.implausible(event) if rules.window else None
        charged = parking or _charge(event, tab, rules, now)
        if isinstance(charged, Parking):
            _add(prepared, event, parked_row(event, charged, digest))
        else:
            _add(prepared, event, _charged_row(charged, digest))
            prepared.charges.append(charged)
    if strangers:
        prepared.unusable += _unknown(connection, strangers)
    return prepared


def _charge(event: Event, tab: Tab, rules: "_Rules", now: datetime) -> Charge | Parking:
    """An event, rated on the plan of the period that it counts in."""
    account = tab.account
    at = event.occurred_at
    period, is_late = place_known(at, tab.periods) or place(at, tab.periods, now, account.terms)
    plan = account.plans[period.plan_id, period.plan_version]
    if is_late and rules.window and plan.late_events is LateEvents.PARK:
        came = f"occurred_at {event.occurred_at.isoformat()} lies in a period that is closed"
        return Parking(ParkReason.PERIOD_CLOSED, came)
    rated = rate(event, plan, account.wallets, rules.book)
    if isinstance(rated, Parking):
        return rated
    if plan.tier_size is not None:
        at_once = tab.tokens.get(period.starts_at, 0) + rated.tokens
        if parking := too_many_tiers(plan, at_once):
            return parking
        tab.tokens[period.starts_at] = at_once
    tally = tab.tallies.get(period.starts_at)
    if tally is None:
        tally = tab.tallies[period.starts_at] = Tally(event.tenant_id, event.customer_id, period, plan)
        if period.is_new:
            tab.periods = (*tab.periods, period)
    wallet_id = account.wallets[rated.currency] if rated.currency else None
    return Charge(event, rated, tally, is_late, wallet_id, account.revisions)


def items_as_json(lines: Sequence[Line]) -> str:
    """The lines of an event as they are kept: each item with its price and cost."""
    return f"[{','.join([_line_as_json(line) for line in lines])}]"


def _line_as_json(line: Line) -> str:
    item, price = line.item, line.price
    product = _product_as_json(item.category, item.provider, item.model, item.unit)
    price_id = price.price_id if price else "null"
    return f'{product},"quantity":"{written(item.quantity)}","price_id":{price_id},"cost":"{written(line.cost)}"}}'


@lru_cache(maxsize=4096)
def _product_as_json(category: str, provider: str, model: str, unit: str) -> str:
    """The beginning of a line's JSON object: the same few products come all day."""
    product = {"category": category, "provider": provider, "model": model, "unit": unit}
    return _encode(product).decode().removesuffix("}")


def _is_first(one: Received, digest: bytes, prepared: Prepared) -> bool:
    """Whether this key is new to the transaction."""
    new = First(one, digest)
    first = prepared.firsts.setdefault((one.event.tenant_id, one.event.key), new)
    if first is new:
        return True
    prepared.repeats.append(new)
    return False


def settle(prepared: Prepared, one: First, stands: bytes) -> None:
    """Count an event whose key is used as a duplicate of what stands under it, or keep it as a conflict."""
    if one.fingerprint == stands:
        prepared.duplicates += 1
        return
    prepared.conflicts += 1
    detail = f"key {one.received.event.key!r} was used before with another payload; the first one stands"
    prepared.unusable.append(unusable(one.received, ParkReason.KEY_CONFLICT, detail))


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


def _charged_row(charge: Charge, digest: bytes) -> EventRow:
    event, rated = charge.event, charge.rated
    return EventRow(
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
        digest,
        _metadata(event),
        None,
        None,
    )


def parked_row(event: Event, parking: Parking, digest: bytes) -> EventRow:
    """The row of an event that waits: it owns its key, and has no cost yet."""
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
        _metadata(event),
        parking.reason,
        parking.detail,
    )


def context_of(event: Event) -> tuple[str | None, ...]:
    """The optional facts of an event, in the order of `CONTEXT_COLUMNS`."""
    context: tuple[str | None, ...] = _context_of(event)
    return context


def _add(prepared: Prepared, event: Event, row: EventRow) -> None:
    prepared.rows.append(row)
    prepared.contexts.append(context_of(event))


def _metadata(event: Event) -> str | None:
    return None if event.metadata is None else _encode_as_said(event.metadata).decode()
