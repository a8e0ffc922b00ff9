"""Recording one event for a caller who waits for the answer: by the way that workers record envelopes."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from billing.errors import CustomerNotFound, IdempotencyConflict, Rejected, TenantNotFound
from billing.events import EventStep
from billing.quotes import BillingMethod
from billing.rating import Parking, ParkReason
from centavo import UsageEvent
from db import customers as customer_rows
from db import recorded as rows
from db import trail as trail_rows
from db.recorded import CausedPayment
from db.session import Connection, in_transaction
from db.trail import Entry
from services.desk import cover, quoting
from services.desk.cover import Demand
from services.metering import usage
from services.metering.envelopes import Received
from services.metering.preparing import Prepared

#: What can't be rated: whoever demands something of the charge is told, instead of its being parked.
RATED = frozenset({ParkReason.UNPRICED, ParkReason.CURRENCY_MISMATCH, ParkReason.MIXED_CURRENCIES})


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as it was recorded; not new when its key was known already. `due` are payments of tiers it began."""

    key: str
    customer_id: str
    status: str
    is_new: bool
    occurred_at: datetime
    recorded_at: datetime
    period_start: datetime | None
    is_late: bool
    tokens: int
    cost: Decimal
    currency: str | None
    park_reason: str | None
    park_detail: str | None
    due: tuple[CausedPayment, ...]


def record_one(
    event: UsageEvent,
    now: datetime,
    *,
    require_cover: bool = False,
    method: BillingMethod | None = None,
    is_deferred: bool = False,
) -> Recorded:
    """Charge or park one event, once per key for ever; what became of it.

    With `require_cover`, usage that would end in debt, or that a hard quota has no room for, is refused before it is
    recorded; with a `method`, what would not be paid for like this. Both are decided under the customer's lock, in the
    transaction that charges it. Deferred, it is priced and waits (`services.metering.pending`).

    Raises `TenantNotFound`, `CustomerNotFound`, `IdempotencyConflict` (the key has another payload), as
    `services.desk.cover.require`, `PriceNotFound`, `WalletNotFound` and `ItemsMalformed` (of what can't be rated, where
    something is demanded), `Rejected` (deferred, and something is demanded).
    """
    demand = Demand(require_cover, require_cover, method)
    if is_deferred and demand:
        raise Rejected("what is deferred is charged later: say then what it is to be covered or paid by")
    in_transaction(lambda connection: _require_customer(connection, event))

    guard = partial(_guard, demand=demand, now=now) if demand or is_deferred else None
    outcome = usage.record([Received(event, event.to_wire())], [], now, is_deferred=is_deferred, guard=guard)

    if outcome.conflicts:
        raise IdempotencyConflict("this key was used before with another payload; the first one stands", key=event.key)
    is_new = not outcome.duplicates
    return in_transaction(lambda connection: recorded(connection, event.tenant_id, event.key, is_new=is_new))


def _require_customer(connection: Connection, event: UsageEvent) -> None:
    """A customer who is not known, the caller is told of at once: for a worker the event would be parked."""
    if customer_rows.find_customer(connection, event.tenant_id, event.customer_id) is None:
        if not customer_rows.existing_tenants(connection, [event.tenant_id]):
            raise TenantNotFound(tenant_id=event.tenant_id)
        raise CustomerNotFound(tenant_id=event.tenant_id, customer_id=event.customer_id)


def _guard(connection: Connection, prepared: Prepared, demand: Demand, now: datetime) -> None:
    """Refuse an event that is new and does not meet the demand; write down what its row does not say."""
    for charge in prepared.charges:
        cover.require(connection, charge, demand, now)
    for row in prepared.rows:
        if demand and row.park_reason in RATED:
            raise quoting.error_of(Parking(ParkReason(row.park_reason), row.park_detail or ""))
        whose = (row.tenant_id, row.key, row.customer_id)
        if demand.method is not None and row.status == "charged":
            trail_rows.add(connection, Entry(*whose, EventStep.METHOD_ASKED, demand.method.value, now))
        if not demand:  # it is deferred; what is parked for now remembers it, for when it can be priced
            trail_rows.add(connection, Entry(*whose, EventStep.DEFERRED, "its caller settles it later", now))


def recorded(connection: Connection, tenant_id: str, key: str, *, is_new: bool) -> Recorded:
    """An event that is there, as it stands."""
    row = rows.event(connection, tenant_id, key)
    assert row is not None
    due: list[CausedPayment] = []
    if row.period_start is not None:
        due = rows.caused(connection, tenant_id, row.customer_id, row.period_start, key)
    return Recorded(
        key,
        row.customer_id,
        row.status,
        is_new,
        row.occurred_at,
        row.recorded_at,
        row.period_start,
        row.is_late,
        row.tokens,
        row.cost,
        row.currency,
        row.park_reason,
        row.park_detail,
        tuple(due),
    )
