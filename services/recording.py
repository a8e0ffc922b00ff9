"""Recording one event for a caller who waits for the answer: by the way that workers record envelopes."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.affordability import Affordability
from billing.errors import CustomerNotFound, IdempotencyConflict, InsufficientCredits, TenantNotFound
from billing.money import written
from centavo import UsageEvent
from db import customers as customer_rows
from db import recorded as rows
from db.recorded import CausedPayment
from db.session import Connection, in_transaction
from services import usage
from services.envelopes import Received
from services.wallets import can_afford

NO_BUFFER = Decimal(1)


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


def record_one(event: UsageEvent, now: datetime, *, require_cover: bool = False) -> Recorded:
    """Charge or park one event, once per key for ever; what became of it.

    With `require_cover`, usage that would end in debt is refused before it is recorded. Nothing is set aside between
    question and charge: of two at once both may pass. Raises `TenantNotFound`, `CustomerNotFound`,
    `IdempotencyConflict` (the key has another payload), `InsufficientCredits`, and what `can_afford` raises.
    """
    known = in_transaction(lambda connection: _known(connection, event))
    if require_cover and not known:
        _require_cover(event, now)

    outcome = usage.record([Received(event, event.to_wire())], [], now)

    if outcome.conflicts:
        raise IdempotencyConflict("this key was used before with another payload; the first one stands", key=event.key)
    return in_transaction(lambda connection: _recorded(connection, event, is_new=not outcome.duplicates))


def _known(connection: Connection, event: UsageEvent) -> bool:
    """Whether the key is known; a customer who is not, is told at once: for a worker it would be parked."""
    if customer_rows.find_customer(connection, event.tenant_id, event.customer_id) is None:
        if not customer_rows.existing_tenants(connection, [event.tenant_id]):
            raise TenantNotFound(tenant_id=event.tenant_id)
        raise CustomerNotFound(tenant_id=event.tenant_id, customer_id=event.customer_id)
    return rows.event(connection, event.tenant_id, event.key) is not None


def _require_cover(event: UsageEvent, now: datetime) -> None:
    asked = can_afford(event.tenant_id, event.customer_id, now, items=event.items, buffer=NO_BUFFER)
    if not asked.is_affordable:
        raise InsufficientCredits(customer_id=event.customer_id, **shortage(asked))


def shortage(asked: Affordability) -> dict[str, str]:
    """What is there of what is needed, as an error says it."""
    found = {"unit": asked.unit, "available": written(asked.available), "required": written(asked.required)}
    return found | ({"reason": asked.reason.value} if asked.reason else {})


def _recorded(connection: Connection, event: UsageEvent, *, is_new: bool) -> Recorded:
    row = rows.event(connection, event.tenant_id, event.key)
    assert row is not None
    due: list[CausedPayment] = []
    if row.period_start is not None:
        due = rows.caused(connection, event.tenant_id, row.customer_id, row.period_start, event.key)
    return Recorded(
        event.key,
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
