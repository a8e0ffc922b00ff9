"""Alerts on their way out: endpoints, and what is due for them. The messages are written with their alerts."""

from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from db.session import Connection


class Endpoint(NamedTuple):
    """Where a tenant's alerts are sent. Its secret is not among it."""

    tenant_id: str
    url: str
    failures: int
    rests_until: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None


class Outgoing(NamedTuple):
    """A message that is due, and to where."""

    delivery_id: UUID
    body: str
    tries: int
    created_at: datetime
    url: str
    secret: str
    previous_secret: str | None
    previous_until: datetime | None
    failures: int


class DeliveryRow(NamedTuple):
    """A message, and what became of it."""

    delivery_id: UUID
    alert_id: int
    kind: str
    state: str
    tries: int
    due_at: datetime | None
    last_status: int | None
    last_error: str | None
    created_at: datetime
    finished_at: datetime | None


_ENDPOINT = """
SELECT tenant_id, url, failures, rests_until, disabled_at, disabled_reason FROM webhook_endpoints WHERE tenant_id = %s
"""

_ADD = """
INSERT INTO webhook_endpoints (tenant_id, url, secret, created_at, updated_at) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (tenant_id) DO NOTHING
"""

_POINT = """
UPDATE webhook_endpoints SET url = %(url)s, failures = 0, rests_until = NULL, disabled_at = NULL,
    disabled_reason = NULL, updated_at = %(now)s,
    secret = coalesce(%(secret)s, secret),
    previous_secret = CASE WHEN %(secret)s::text IS NULL THEN previous_secret ELSE secret END,
    previous_until = CASE WHEN %(secret)s::text IS NULL THEN previous_until ELSE %(previous_until)s END
WHERE tenant_id = %(tenant_id)s
"""

_DISABLE = """
UPDATE webhook_endpoints SET disabled_at = %s, disabled_reason = %s WHERE tenant_id = %s AND disabled_at IS NULL
"""

_CLAIM = """
UPDATE webhook_endpoints e SET leased_until = %(until)s
FROM (
    SELECT tenant_id FROM webhook_endpoints w
    WHERE disabled_at IS NULL AND (leased_until IS NULL OR leased_until <= %(now)s)
        AND (rests_until IS NULL OR rests_until <= %(now)s)
        AND EXISTS (SELECT FROM alert_deliveries d WHERE d.tenant_id = w.tenant_id AND d.due_at <= %(now)s)
    ORDER BY tenant_id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
) due
WHERE e.tenant_id = due.tenant_id RETURNING e.tenant_id
"""

_RELEASE = "UPDATE webhook_endpoints SET leased_until = NULL WHERE tenant_id = %s"

_NEXT = """
SELECT d.delivery_id, d.body, d.tries, d.created_at, e.url, e.secret, e.previous_secret, e.previous_until, e.failures
FROM webhook_endpoints e JOIN alert_deliveries d ON d.tenant_id = e.tenant_id AND d.due_at <= %(now)s
WHERE e.tenant_id = %(tenant_id)s AND e.disabled_at IS NULL AND (e.rests_until IS NULL OR e.rests_until <= %(now)s)
ORDER BY d.created_at, d.alert_id LIMIT 1
"""

_DELIVERED = """
UPDATE alert_deliveries SET state = 'delivered', tries = tries + 1, due_at = NULL, last_status = %(status)s,
    last_error = NULL, finished_at = %(now)s
WHERE tenant_id = %(tenant_id)s AND delivery_id = %(delivery_id)s AND state = 'due'
"""

_FAILED = """
UPDATE alert_deliveries SET tries = tries + 1, last_status = %(status)s, last_error = %(error)s,
    due_at = %(again_at)s,
    state = CASE WHEN %(again_at)s::timestamptz IS NULL THEN 'given_up' ELSE 'due' END,
    finished_at = CASE WHEN %(again_at)s::timestamptz IS NULL THEN %(now)s::timestamptz END
WHERE tenant_id = %(tenant_id)s AND delivery_id = %(delivery_id)s AND state = 'due'
"""

_GIVE_UP = """
UPDATE alert_deliveries SET state = 'given_up', due_at = NULL, finished_at = %s
WHERE tenant_id = %s AND state = 'due' AND created_at <= %s
"""

_AGAIN = """
UPDATE alert_deliveries SET state = 'due', due_at = %(now)s, finished_at = NULL, tries = 0, created_at = %(now)s
WHERE tenant_id = %(tenant_id)s AND state = 'given_up'
    AND (%(delivery_id)s::uuid IS NULL OR delivery_id = %(delivery_id)s)
"""

_LISTED = """
SELECT d.delivery_id, d.alert_id, a.kind, d.state, d.tries, d.due_at, d.last_status, d.last_error, d.created_at,
    d.finished_at
FROM alert_deliveries d JOIN alerts a ON a.tenant_id = d.tenant_id AND a.alert_id = d.alert_id
WHERE d.tenant_id = %(tenant_id)s AND (%(state)s::text IS NULL OR d.state = %(state)s)
ORDER BY d.alert_id DESC LIMIT %(limit)s
"""


def endpoint(connection: Connection, tenant_id: str) -> Endpoint | None:
    """Where a tenant's alerts go, or None."""
    row = connection.execute(_ENDPOINT, (tenant_id,)).fetchone()
    return None if row is None else Endpoint._make(cast("Any", row))


def add_endpoint(connection: Connection, tenant_id: str, url: str, secret: str, now: datetime) -> bool:
    """Give a tenant an endpoint; False when there is one."""
    return connection.execute(_ADD, (tenant_id, url, secret, now, now)).rowcount == 1


def point(
    connection: Connection, tenant_id: str, url: str, now: datetime, *, secret: str | None, previous_until: datetime
) -> None:
    """Send to this address from now on; with a new secret, if one is given, beside the old one for a while."""
    said = {"tenant_id": tenant_id, "url": url, "secret": secret, "previous_until": previous_until, "now": now}
    connection.execute(_POINT, said)


def disable(connection: Connection, tenant_id: str, reason: str, now: datetime) -> bool:
    """Send nothing more; False when that was so, or there is no endpoint."""
    return connection.execute(_DISABLE, (now, reason, tenant_id)).rowcount == 1


def claim(connection: Connection, now: datetime, until: datetime, limit: int) -> list[str]:
    """Lease endpoints for which something is due; their tenants. Skips what another look holds."""
    return [str(tenant_id) for (tenant_id,) in connection.execute(_CLAIM, {"now": now, "until": until, "limit": limit})]


def release(connection: Connection, tenant_id: str) -> None:
    """Nobody delivers to this endpoint any more."""
    connection.execute(_RELEASE, (tenant_id,))


def next_due(connection: Connection, tenant_id: str, now: datetime) -> Outgoing | None:
    """The oldest message that is due for a tenant's endpoint, or None. Takes no lock: the lease keeps others away."""
    row = connection.execute(_NEXT, {"tenant_id": tenant_id, "now": now}).fetchone()
    return None if row is None else Outgoing._make(cast("Any", row))


def delivered(connection: Connection, tenant_id: str, delivery_id: UUID, status: int, now: datetime) -> None:
    """The receiver has it."""
    said = {"tenant_id": tenant_id, "delivery_id": delivery_id, "status": status, "now": now}
    connection.execute(_DELIVERED, said)
    statement = "UPDATE webhook_endpoints SET failures = 0, rests_until = NULL WHERE tenant_id = %s"
    connection.execute(statement, (tenant_id,))


def failed(
    connection: Connection,
    tenant_id: str,
    delivery_id: UUID,
    answer: tuple[int | None, str | None],
    again_at: datetime | None,
    rests_until: datetime,
    now: datetime,
) -> None:
    """It did not arrive: try it again then, or give it up; and leave the endpoint alone for a while."""
    said = {"tenant_id": tenant_id, "delivery_id": delivery_id, "again_at": again_at, "now": now}
    connection.execute(_FAILED, said | {"status": answer[0], "error": answer[1]})
    statement = "UPDATE webhook_endpoints SET failures = failures + 1, rests_until = %s WHERE tenant_id = %s"
    connection.execute(statement, (rests_until, tenant_id))


def give_up_older(connection: Connection, tenant_id: str, than: datetime, now: datetime) -> int:
    """Give up what has waited since before then; how many."""
    return connection.execute(_GIVE_UP, (now, tenant_id, than)).rowcount


def again(connection: Connection, tenant_id: str, delivery_id: UUID | None, now: datetime) -> int:
    """Let what was given up, all or one, be due as if it were new; how many."""
    return connection.execute(_AGAIN, {"tenant_id": tenant_id, "delivery_id": delivery_id, "now": now}).rowcount


def listed(connection: Connection, tenant_id: str, state: str | None, limit: int) -> list[DeliveryRow]:
    """A tenant's messages, newest first."""
    rows = connection.execute(_LISTED, {"tenant_id": tenant_id, "state": state, "limit": limit})
    return [DeliveryRow._make(cast("Any", row)) for row in rows]
