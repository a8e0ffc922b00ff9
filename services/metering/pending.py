"""Usage that its caller deferred: recorded and priced, and charged when somebody settles it, once, or never.

It owns its key like any event, and counts nowhere while it waits: in no wallet, no period and no quota. What it costs
is told by the prices of when it occurred; where prices climb over the period, what it costs is known when it is
settled, and it counts in the period that it falls in then.
"""

from datetime import datetime

from billing.errors import BillingMethodRefused, EventNotFound, EventNotPending, InsufficientCredits, Rejected
from billing.events import EventStep
from billing.quotes import BillingMethod
from billing.rating import Parking, ParkReason
from config.logging import logger
from db import corrections as correction_rows
from db import parked as rows
from db import recorded as recorded_rows
from db import trail as trail_rows
from db.session import Connection, in_transaction
from db.trail import Entry
from services.desk import cover, quoting
from services.desk.cover import Demand
from services.metering import kept
from services.metering.envelopes import Received
from services.metering.preparing import prepare
from services.metering.recording import Recorded, recorded
from services.metering.voiding_usage import REASON_CHARACTERS_MAX

log = logger(__name__)

PENDING = "pending"


def settle(
    tenant_id: str, key: str, now: datetime, *, is_forced: bool = False, method: BillingMethod | None = None
) -> Recorded:
    """Charge an event that waits, once; not new when it was charged before.

    Without cover it goes on waiting, unless it is forced: then it is debited into debt, as usage is. With a `method`,
    it must be paid for like this. Raises `InsufficientCredits`, `BillingMethodRefused`, `EventNotFound`,
    `EventNotPending` (it is parked or voided), `PriceNotFound`, `WalletNotFound`, `ItemsMalformed` (it can't be rated
    any more).
    """
    demand = Demand(is_covered=not is_forced, method=method)
    try:
        is_new = in_transaction(lambda connection: _settle(connection, tenant_id, key, demand, now))
    except (InsufficientCredits, BillingMethodRefused) as error:
        why = str(error)
        in_transaction(lambda connection: _note_refusal(connection, tenant_id, key, why, now))
        raise
    if is_new:
        log.info("usage settled", tenant_id=tenant_id, key=key, forced=is_forced)
    return in_transaction(lambda connection: recorded(connection, tenant_id, key, is_new=is_new))


def cancel(tenant_id: str, key: str, reason: str, now: datetime) -> Recorded:
    """Never charge an event that waits; its key stays its own. Not new when it was cancelled, or voided, before.

    Raises `EventNotFound`, `EventNotPending` (it is charged: void it; or parked), `Rejected` (no reason, or too long).
    """
    if not 0 < len(reason) <= REASON_CHARACTERS_MAX:
        raise Rejected(f"a reason has 1 to {REASON_CHARACTERS_MAX} characters", given=len(reason))
    is_new = in_transaction(lambda connection: _cancel(connection, tenant_id, key, reason, now))
    if is_new:
        log.info("usage cancelled", tenant_id=tenant_id, key=key, reason=reason)
    return in_transaction(lambda connection: recorded(connection, tenant_id, key, is_new=is_new))


def _settle(connection: Connection, tenant_id: str, key: str, demand: Demand, now: datetime) -> bool:
    found = rows.find_event(connection, tenant_id, key, PENDING)
    if found is None:
        return _settled_before(connection, tenant_id, key, "charged")
    event = kept.event_of(found)
    prepared = prepare(connection, [Received(event, event.to_wire())], now, None)
    if not prepared.charges:
        parked = prepared.rows[0]
        raise quoting.error_of(Parking(ParkReason(parked.park_reason or ""), parked.park_detail or ""))
    charge = prepared.charges[0]

    def guard() -> None:
        if demand:
            cover.require(connection, charge, demand, now)

    if not kept.charge_waiting(connection, charge, PENDING, now, guard):
        return _settled_before(connection, tenant_id, key, "charged")
    how = f"paid for by {demand.method}" if demand.method else "covered" if demand.is_covered else "forced"
    trail_rows.add(connection, Entry(tenant_id, key, event.customer_id, EventStep.SETTLED, how, now))
    return True


def _cancel(connection: Connection, tenant_id: str, key: str, reason: str, now: datetime) -> bool:
    if not rows.lock_event(connection, tenant_id, key, PENDING):
        return _settled_before(connection, tenant_id, key, "voided")
    found = recorded_rows.event(connection, tenant_id, key)
    assert found is not None
    correction_rows.void(connection, tenant_id, key, reason, now)
    trail_rows.add(connection, Entry(tenant_id, key, found.customer_id, EventStep.CANCELLED, reason, now))
    return True


def _settled_before(connection: Connection, tenant_id: str, key: str, wished: str) -> bool:
    """False where it stands as it is wished to; raises why it does not."""
    found = recorded_rows.event(connection, tenant_id, key)
    if found is None:
        raise EventNotFound(tenant_id=tenant_id, key=key)
    if found.status != wished:
        raise EventNotPending(f"event {key} is {found.status}; only what is pending is settled or cancelled", key=key)
    return False


def _note_refusal(connection: Connection, tenant_id: str, key: str, why: str, now: datetime) -> None:
    found = recorded_rows.event(connection, tenant_id, key)
    if found is not None:
        trail_rows.add(connection, Entry(tenant_id, key, found.customer_id, EventStep.SETTLE_REFUSED, why, now))
