"""Alerts: what a person should look at, said once while nobody has seen it, or once while its cause holds."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from billing.payments import AlertKind
from db.session import Connection

#: A message to the tenant is written with the alert, where there is somebody to send it to: not that none arrives.
_RAISE = """
WITH said AS (
    INSERT INTO alerts AS a (tenant_id, kind, subject, customer_id, detail, raised_at, last_at)
    VALUES (%(tenant_id)s, %(kind)s, %(subject)s, %(customer_id)s, %(detail)s, %(now)s, %(now)s)
    ON CONFLICT (tenant_id, kind, subject) WHERE seen_at IS NULL
        DO UPDATE SET times = a.times + 1, last_at = excluded.last_at, detail = excluded.detail
    RETURNING tenant_id, alert_id, kind, subject, customer_id, detail, raised_at, times
)
INSERT INTO alert_deliveries (tenant_id, alert_id, body, due_at, created_at)
SELECT s.tenant_id, s.alert_id, jsonb_build_object('type', 'alert.' || s.kind, 'timestamp', s.raised_at,
        'data', jsonb_build_object('alert_id', s.alert_id, 'kind', s.kind, 'subject', s.subject,
            'customer_id', s.customer_id, 'detail', s.detail))::text, s.raised_at, s.raised_at
FROM said s JOIN webhook_endpoints e ON e.tenant_id = s.tenant_id
WHERE s.times = 1 AND e.disabled_at IS NULL AND s.kind <> 'webhook_given_up'
ON CONFLICT (tenant_id, alert_id) DO NOTHING
"""

_CAUSES = """
INSERT INTO alert_causes (tenant_id, kind, subject, customer_id, since)
SELECT c.*, %s FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS c(tenant_id, kind, subject, customer_id)
ORDER BY c.tenant_id, c.kind, c.subject
ON CONFLICT (tenant_id, kind, subject) DO NOTHING
RETURNING tenant_id, kind, subject
"""

_UNSEEN = """
SELECT alert_id, kind, subject, customer_id, detail, times, raised_at, last_at FROM alerts
WHERE tenant_id = %s AND seen_at IS NULL ORDER BY last_at DESC, alert_id LIMIT %s
"""


class AlertRow(NamedTuple):
    """An alert that nobody has seen."""

    alert_id: int
    kind: str
    subject: str
    customer_id: str | None
    detail: str
    times: int
    raised_at: datetime
    last_at: datetime


def raise_alert(
    connection: Connection,
    tenant_id: str,
    kind: AlertKind,
    subject: str,
    detail: str,
    now: datetime,
    *,
    customer_id: str | None = None,
) -> None:
    """Say something to a person; said again about the same subject, it is counted.

    Whoever listens is told by `services.oversight.deliveries`.
    """
    said = {"tenant_id": tenant_id, "kind": kind, "subject": subject, "detail": detail, "customer_id": customer_id}
    connection.execute(_RAISE, said | {"now": now})


class Cause(NamedTuple):
    """Why something is said for as long as it holds; its kind and its subject are what it is known by."""

    tenant_id: str
    kind: AlertKind
    subject: str
    customer_id: str | None
    about: str
    """What a person reads that it is about."""
    detail: str


def raise_once(connection: Connection, causes: Sequence[Cause], now: datetime) -> int:
    """Say what holds and was not said since it does, whether anybody has seen it or not; how many were said.

    Locks the causes that are new, in order. Whoever finds that one is gone lets it go (`db.watching`): then it is said
    anew, as another alert, when it is back.
    """
    if not causes:
        return 0
    known_by = [(one.tenant_id, one.kind.value, one.subject, one.customer_id) for one in causes]
    columns = (list(column) for column in zip(*known_by, strict=True))
    rows = connection.execute(_CAUSES, (now, *columns)).fetchall()
    new = set(cast("list[tuple[str, str, str]]", rows))
    for one in causes:
        if (one.tenant_id, one.kind.value, one.subject) not in new:
            continue
        about = f"{one.about} since {now.isoformat()}"
        raise_alert(connection, one.tenant_id, one.kind, about, one.detail, now, customer_id=one.customer_id)
    return len(rows)


def unseen(connection: Connection, tenant_id: str, limit: int) -> list[AlertRow]:
    """A tenant's alerts that nobody has seen, newest first."""
    return [AlertRow._make(cast("Any", row)) for row in connection.execute(_UNSEEN, (tenant_id, limit))]


def see(connection: Connection, tenant_id: str, alert_ids: list[int], now: datetime) -> int:
    """A person has seen these; how many were unseen."""
    statement = "UPDATE alerts SET seen_at = %s WHERE tenant_id = %s AND alert_id = ANY(%s) AND seen_at IS NULL"
    return connection.execute(statement, (now, tenant_id, alert_ids)).rowcount
