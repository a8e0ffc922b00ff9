"""Events of Stripe, each once, as they came; and whose they are."""

from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from psycopg.types.json import Jsonb

from db.session import Connection


class WebhookEvent(NamedTuple):
    """An event that is to be worked, or has been."""

    event_id: str
    type: str
    payload: dict[str, Any]
    created_at: datetime
    tries: int
    worked_at: datetime | None


class Owner(NamedTuple):
    """The payment that an event is about."""

    tenant_id: str
    payment_id: UUID
    customer_id: str
    stripe_payment_intent_id: str | None


_STORE = """
INSERT INTO webhook_events (event_id, type, payload, created_at, received_at, source, due_at)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (event_id) DO NOTHING
"""

_CLAIM = """
UPDATE webhook_events e
SET due_at = %(leased_until)s
FROM (
    SELECT event_id FROM webhook_events
    WHERE due_at <= %(now)s
    ORDER BY due_at, event_id
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
) AS due
WHERE e.event_id = due.event_id
RETURNING e.event_id
"""

_WORKED = """
UPDATE webhook_events
SET outcome = %(outcome)s, payment_id = %(payment_id)s, worked_at = %(now)s, due_at = NULL
WHERE event_id = %(event_id)s AND worked_at IS NULL
"""

_AGAIN = """
UPDATE webhook_events
SET tries = tries + 1, outcome = %(outcome)s, payment_id = %(payment_id)s, due_at = %(due_at)s
WHERE event_id = %(event_id)s AND worked_at IS NULL
"""

_OWNER = "SELECT tenant_id, payment_id, customer_id, stripe_payment_intent_id FROM payments WHERE "


def store(
    connection: Connection,
    event_id: str,
    type_: str,
    payload: dict[str, Any],
    created_at: datetime,
    *,
    source: str,
    due_at: datetime,
    now: datetime,
) -> bool:
    """Keep an event, to be worked when it is due; whether it is new. Guarded by Stripe's id."""
    values = (event_id, type_, Jsonb(payload), created_at, now, source, due_at)
    return connection.execute(_STORE, values).rowcount == 1


def find(connection: Connection, event_id: str) -> WebhookEvent | None:
    """An event, or None. Takes no lock."""
    statement = "SELECT event_id, type, payload, created_at, tries, worked_at FROM webhook_events WHERE event_id = %s"
    row = connection.execute(statement, (event_id,)).fetchone()
    return WebhookEvent._make(cast("Any", row)) if row else None


def claim(connection: Connection, now: datetime, leased_until: datetime, limit: int) -> list[str]:
    """Lease events that are due, oldest first, skipping what another sweep holds; their ids."""
    rows = connection.execute(_CLAIM, {"now": now, "leased_until": leased_until, "limit": limit})
    return [cast("str", event_id) for (event_id,) in rows]


def finish(connection: Connection, event_id: str, outcome: str, payment_id: UUID | None, now: datetime) -> None:
    """Write what came of an event; whoever finished it first is right."""
    said = {"event_id": event_id, "outcome": outcome, "payment_id": payment_id, "now": now}
    connection.execute(_WORKED, said)


def try_again(connection: Connection, event_id: str, outcome: str, payment_id: UUID | None, due_at: datetime) -> None:
    """Nothing came of an event so far: count the try, and say when the next is due."""
    said = {"event_id": event_id, "outcome": outcome, "payment_id": payment_id, "due_at": due_at}
    connection.execute(_AGAIN, said)


def owner_by_payment(connection: Connection, payment_id: UUID) -> Owner | None:
    """Whose payment this is; the id alone is unique, for it is made of all the rest. Takes no lock."""
    row = connection.execute(f"{_OWNER} payment_id = %s", (payment_id,)).fetchone()
    return Owner._make(cast("Any", row)) if row else None


def owner_by_intent(connection: Connection, stripe_payment_intent_id: str) -> Owner | None:
    """Whose payment has this intent. Takes no lock."""
    row = connection.execute(f"{_OWNER} stripe_payment_intent_id = %s", (stripe_payment_intent_id,)).fetchone()
    return Owner._make(cast("Any", row)) if row else None
