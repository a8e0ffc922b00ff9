"""One event as it stands after it was recorded, and the payments that it caused. Takes no lock."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast
from uuid import UUID

from billing.payments import UNDECIDED
from db.session import Connection


class RecordedRow(NamedTuple):
    """An event as it was recorded, before any correction."""

    customer_id: str
    status: str
    occurred_at: datetime
    recorded_at: datetime
    charged_at: datetime | None
    period_start: datetime | None
    is_late: bool
    tokens: int
    cost: Decimal
    currency: str | None
    park_reason: str | None
    park_detail: str | None


class CausedPayment(NamedTuple):
    """A payment of a tier that an event began."""

    payment_id: UUID
    kind: str
    tier: int
    amount_minor: int
    currency: str
    state: str
    due_at: datetime | None
    decline_code: str | None

    @property
    def is_pending(self) -> bool:
        return self.state in UNDECIDED


class Outcome(NamedTuple):
    """How a payment stands."""

    payment_id: UUID
    state: str
    due_at: datetime | None
    decline_code: str | None

    @property
    def is_pending(self) -> bool:
        return self.state in UNDECIDED


_EVENT = """
SELECT customer_id, status, occurred_at, recorded_at, charged_at, period_start, is_late, tokens, cost, currency,
    park_reason, park_detail
FROM usage_events WHERE tenant_id = %s AND key = %s
"""

# The log says which event began a tier; it is looked for among the payments of the event's own period.
_CAUSED = """
SELECT p.payment_id, p.kind, p.tier, p.amount_minor, p.currency, p.state, p.due_at,
    p.last_decline_code
FROM payments p
WHERE p.tenant_id = %(tenant_id)s AND p.customer_id = %(customer_id)s AND p.period_start = %(period_start)s
    AND p.kind = 'tier' AND EXISTS (
        SELECT FROM payment_log l WHERE l.tenant_id = p.tenant_id AND l.payment_id = p.payment_id
            AND l.source = 'usage' AND l.detail ->> 'event_key' = %(key)s
    )
ORDER BY p.tier, p.generation
"""


_OUTCOMES = "SELECT payment_id, state, due_at, last_decline_code FROM payments WHERE payment_id = ANY(%s)"


def event(connection: Connection, tenant_id: str, key: str) -> RecordedRow | None:
    """The event under a key, or None."""
    row = connection.execute(_EVENT, (tenant_id, key)).fetchone()
    return RecordedRow._make(cast("Any", row)) if row else None


def caused(
    connection: Connection, tenant_id: str, customer_id: str, period_start: datetime, key: str
) -> list[CausedPayment]:
    """The payments that an event of a period let fall due, in the order of their tiers."""
    said = {"tenant_id": tenant_id, "customer_id": customer_id, "period_start": period_start, "key": key}
    return [CausedPayment._make(cast("Any", row)) for row in connection.execute(_CAUSED, said)]


def outcomes(connection: Connection, payment_ids: Sequence[UUID]) -> list[Outcome]:
    """How payments stand, of whatever tenant: their ids are unique over all."""
    return [Outcome._make(cast("Any", row)) for row in connection.execute(_OUTCOMES, (list(payment_ids),))]
