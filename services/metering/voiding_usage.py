"""Voiding a usage event: as if it had never been, with everything that it did written back and nothing rewritten.

Its wallet gets back what it took, from the same grants; its period counts it no more; tiers that are owed no longer
are not collected, or given back (`services.collecting.unowed`). Where prices climb over the period, the units that were
climbed last are those that were not used: what the period costs less is C(Q) - C(Q - q), so events that were charged
last may cost less, or more, and say so in corrections of their own.

The customer's wallets are held throughout; then, in this order, the period's row, the event's, payments,
counters of quotas.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from billing.errors import BrokenInvariant, EventNotFound, Rejected
from billing.money import ZERO, written
from billing.prices import Price, cost_of
from billing.rerating import PastEvent, PriceKey, Prices, shared
from billing.tiers import tiers_owed
from config.logging import logger
from db import corrections as rows
from db import quotas as quota_rows
from db.corrections import EventStanding, PeriodStanding
from db.prices import load_some
from db.session import Connection, in_transaction
from services.books import catalogue
from services.books.correcting import Correcting, refuse_archived
from services.books.ledger import OpenWallet, open_wallets, write
from services.collecting import unowed
from services.collecting.unowed import NOTHING_UNOWED, Unowed

log = logger(__name__)

REASON_CHARACTERS_MAX = 500


@dataclass(frozen=True, slots=True)
class VoidedEvent:
    """What the void of an event took back; not new when it was voided before."""

    tenant_id: str
    customer_id: str
    key: str
    tokens: int
    cost: Decimal
    """What it had cost, with what was corrected since; what its wallet got back may differ where prices climb."""
    currency: str | None
    voided_at: datetime
    reason: str
    is_new: bool
    tiers: Unowed = NOTHING_UNOWED


def void(tenant_id: str, key: str, reason: str, now: datetime) -> VoidedEvent:
    """Void a usage event, charged or parked; what came of it. Voided already, nothing changes.

    Its key stays its own: sent again, it is a duplicate. Raises `EventNotFound`, `UsageArchived`, `Rejected` (no
    reason, or too long).
    """
    if not 0 < len(reason) <= REASON_CHARACTERS_MAX:
        raise Rejected(f"a reason has 1 to {REASON_CHARACTERS_MAX} characters", given=len(reason))
    voided = in_transaction(lambda connection: _void(connection, tenant_id, key, reason, now))
    if voided.is_new:
        log.info(
            "usage voided",
            tenant_id=tenant_id,
            customer_id=voided.customer_id,
            key=key,
            tokens=voided.tokens,
            cost=written(voided.cost),
            currency=voided.currency,
            tiers=voided.tiers.voided + voided.tiers.refunded,
            reason=reason,
        )
    return voided


def _void(connection: Connection, tenant_id: str, key: str, reason: str, now: datetime) -> VoidedEvent:
    found = rows.standing(connection, tenant_id, key)
    if found is None:
        raise EventNotFound(tenant_id=tenant_id, key=key)
    identity = (tenant_id, found.customer_id)
    wallets = open_wallets(connection, [identity], now, with_ended=True).get(identity, [])
    # Read again: what is parked may have been charged before the wallets were ours.
    found = rows.standing(connection, tenant_id, key)
    assert found is not None
    period = None
    if found.status == "charged" and found.period_start is not None:
        period = rows.lock_period(connection, *identity, found.period_start)
        if period.archive_id is not None:
            refuse_archived(connection, tenant_id, [(found.customer_id, found.period_start)])
    rows.standing(connection, tenant_id, key, is_locked=True)

    if found.status == "voided":
        return _as_it_was(connection, found)
    if period is None:
        rows.void(connection, tenant_id, key, reason, now)
        return _told(found, rows.Voided(0, ZERO, None), now, reason, NOTHING_UNOWED)
    return _uncharge(connection, found, period, wallets, reason, now)


def _uncharge(
    connection: Connection,
    found: EventStanding,
    period: PeriodStanding,
    wallets: list[OpenWallet],
    reason: str,
    now: datetime,
) -> VoidedEvent:
    event = rows.charged(connection, found.tenant_id, found.customer_id, found.key)
    assert event is not None
    correcting = Correcting(connection, period, wallets, reason, now)
    correcting.void(event, correcting.burned([event]).get(event.key, {}))
    _climb_down(connection, correcting, event)
    correcting.enter("void", event.key)
    write(connection, wallets)

    plan_key = (found.tenant_id, period.plan_id, period.plan_version)
    plan = catalogue.plans(connection, [plan_key])[plan_key]
    owed = min(tiers_owed(period.tokens - event.tokens, plan), period.tiers_reached)
    rows.take_off(connection, period, event.tokens, owed)
    rows.void(connection, found.tenant_id, found.key, reason, now)
    tiers = unowed.let_go(connection, period, plan, owed, event.key, now)
    quota_rows.take_back(connection, found.tenant_id, found.key)
    return _told(found, rows.Voided(event.tokens, event.cost, event.currency), now, reason, tiers)


def _climb_down(connection: Connection, correcting: Correcting, event: PastEvent) -> None:
    """Lower the ladders that the event stood on, and let what stays on them cost what that much costs."""
    price_ids = {line.price_id for line in event.items if line.price_id is not None}
    if not price_ids and not any(line.given for line in event.items):
        return
    prices = Prices.of(load_some(connection, price_ids), event.tenant_id)
    ladders = prices.ladders(event.items)
    correcting.climb({key: -quantity for key, quantity in ladders.items() if isinstance(key, int)})
    for key in ladders:
        price = prices.climbing[key] if isinstance(key, int) else key.price()
        correcting.flush()
        quantity, cost = rows.climbed(connection, correcting.period, key, but=event.key)
        _share(connection, correcting, event, price, key, cost_of(price, quantity) - cost)


def _share(
    connection: Connection,
    correcting: Correcting,
    event: PastEvent,
    price: Price,
    key: PriceKey,
    difference: Decimal,
) -> None:
    """Let the events of a ladder that were charged last cost so much more, or less, between them."""
    left = difference
    pages = rows.last_on_ladder(connection, correcting.period, key, but=event.key) if difference else iter(())
    for page in pages:
        burned = correcting.burned(page)
        for other in page:
            lines, left = shared(other.items, key, left)
            if lines != other.items:
                correcting.rerate(other, lines, price.currency, burned.get(other.key, {}))
            if not left:
                return
        correcting.flush()
    if left:
        raise BrokenInvariant(f"{written(left)} of a ladder's cost belong to no event", key=event.key)


def _as_it_was(connection: Connection, found: EventStanding) -> VoidedEvent:
    """The same answer as the first time."""
    assert found.voided_at is not None
    taken = rows.voided(connection, found.tenant_id, found.key)
    told = _told(found, taken, found.voided_at, found.void_reason or "", NOTHING_UNOWED)
    return replace(told, is_new=False)


def _told(found: EventStanding, taken: rows.Voided, at: datetime, reason: str, tiers: Unowed) -> VoidedEvent:
    identity = (found.tenant_id, found.customer_id, found.key)
    return VoidedEvent(*identity, *taken, at, reason, is_new=True, tiers=tiers)
