"""Alerts delivered to their tenants: signed messages, tried again until they are received, or given up for all to see.

A message is written with its alert, in one transaction (`db.alerts`). Delivering is three steps: read what is due,
send it (no transaction is open), write what came of it. Who dies in between leaves it due: it is sent again, under
the same id, by which a receiver knows it. One worker at a time sends to an endpoint, in the order of the alerts as far
as they arrive.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from billing.errors import NotFound, Rejected, TenantNotFound
from billing.outgoing import (
    AGE_MAX,
    SECRET_BYTES,
    DeliveryState,
    again_at,
    check_url,
    rests_until,
    secret_of,
    signature,
)
from billing.payments import AlertKind
from config.logging import logger
from db import customers as customer_rows
from db import deliveries as rows
from db.alerts import raise_alert
from db.deliveries import DeliveryRow, Endpoint, Outgoing
from db.session import Connection, in_transaction
from services.oversight.sending import Answer, send

log = logger(__name__)

#: Endpoints that one look hands out.
CLAIMED_MAX = 20
#: Who has an endpoint longer than this died, or should let others have it.
LEASE = timedelta(seconds=60)
#: How long the secret before signs as well.
OLD_SECRET_LASTS = timedelta(hours=24)
GONE = 410
LISTED_MAX = 1000


class EndpointNotFound(NotFound):
    """This tenant has no webhook endpoint; `centavo webhooks set` gives it one."""

    code = "unknown_endpoint"


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """An endpoint; its secret is told when it is made, and never again."""

    url: str
    secret: str | None


def set_endpoint(tenant_id: str, url: str, now: datetime, *, new_secret: bool = False) -> EndpointSet:
    """Send a tenant's alerts to an address from now on; what is due goes there, too. It is on again if it was off.

    With `new_secret`, the one before signs beside it for a day. Raises `TenantNotFound`, `Rejected` (no such address).
    """
    check_url(url)
    secret = secret_of(secrets.token_bytes(SECRET_BYTES))

    def work(connection: Connection) -> EndpointSet:
        if not customer_rows.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        if rows.add_endpoint(connection, tenant_id, url, secret, now):
            return EndpointSet(url, secret)
        replaced = secret if new_secret else None
        rows.point(connection, tenant_id, url, now, secret=replaced, previous_until=now + OLD_SECRET_LASTS)
        return EndpointSet(url, replaced)

    done = in_transaction(work)
    log.info("webhook endpoint set", tenant_id=tenant_id, new_secret=done.secret is not None)
    return done


def disable_endpoint(tenant_id: str, reason: str, now: datetime) -> None:
    """Send nothing more until it is set again; alerts of the meantime are not sent. Raises `EndpointNotFound`."""

    def work(connection: Connection) -> None:
        if rows.endpoint(connection, tenant_id) is None:
            raise EndpointNotFound(tenant_id=tenant_id)
        rows.disable(connection, tenant_id, reason, now)

    in_transaction(work)
    log.info("webhook endpoint disabled", tenant_id=tenant_id, reason=reason)


def endpoint_of(tenant_id: str) -> Endpoint:
    """Where a tenant's alerts go, and how that stands. Raises `EndpointNotFound`."""
    found = in_transaction(lambda connection: rows.endpoint(connection, tenant_id))
    if found is None:
        raise EndpointNotFound(tenant_id=tenant_id)
    return found


def deliveries_of(tenant_id: str, state: DeliveryState | None = None, limit: int = 100) -> Sequence[DeliveryRow]:
    """A tenant's messages, newest first. Raises `Rejected` (no such number of rows)."""
    if not 0 < limit <= LISTED_MAX:
        raise Rejected(f"a page has 1 to {LISTED_MAX} rows", limit=limit)
    return in_transaction(lambda connection: rows.listed(connection, tenant_id, state, limit))


def deliver_again(tenant_id: str, now: datetime, delivery_id: UUID | None = None) -> int:
    """Try once more what was given up, all of a tenant's or one; how many messages."""
    return in_transaction(lambda connection: rows.again(connection, tenant_id, delivery_id, now))


def claim_due(now: datetime) -> list[str]:
    """Lease the endpoints for which something is due; their tenants. What nobody works is due again after a minute."""
    return in_transaction(lambda connection: rows.claim(connection, now, now + LEASE, CLAIMED_MAX))


def deliver_next(tenant_id: str, now: datetime) -> bool:
    """Send the oldest message that is due for a tenant; False when there is none, or it did not arrive.

    The caller has claimed the endpoint, and ends with `release`.
    """
    message = in_transaction(lambda connection: rows.next_due(connection, tenant_id, now))
    if message is None:
        return False

    answer = send(message.url, message.body, _headers(message, now))

    if answer.is_received and answer.status is not None:
        status = answer.status
        in_transaction(lambda c: rows.delivered(c, tenant_id, message.delivery_id, status, now))
        log.info("alert delivered", tenant_id=tenant_id, delivery_id=str(message.delivery_id), status=status)
        return True
    in_transaction(lambda c: _fail(c, tenant_id, message, answer, now))
    return False


def release(tenant_id: str) -> None:
    """Let others deliver to this endpoint."""
    in_transaction(lambda connection: rows.release(connection, tenant_id))


def _headers(message: Outgoing, now: datetime) -> dict[str, str]:
    keys = [message.secret]
    if message.previous_secret is not None and message.previous_until is not None and now < message.previous_until:
        keys.append(message.previous_secret)
    message_id = f"msg_{message.delivery_id.hex}"
    return {
        "content-type": "application/json",
        "user-agent": "centavo",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature(message_id, now, message.body, keys),
    }


def _fail(connection: Connection, tenant_id: str, message: Outgoing, answer: Answer, now: datetime) -> None:
    """Be due again, or give up; an endpoint that says it is gone is told nothing more."""
    said = f"status {answer.status}" if answer.status is not None else answer.error
    is_gone = answer.status == GONE
    next_at = None if is_gone else again_at(message.tries + 1, message.created_at, now)
    rest = rests_until(message.failures + 1, now)
    rows.failed(connection, tenant_id, message.delivery_id, answer, next_at, rest, now)
    given_up = int(next_at is None) + rows.give_up_older(connection, tenant_id, now - AGE_MAX, now)
    log.warning("alert not delivered", tenant_id=tenant_id, delivery_id=str(message.delivery_id), why=said)
    if is_gone:
        rows.disable(connection, tenant_id, "the endpoint answered 410 Gone", now)
    if given_up:
        why = f"the last answer was {said}; `centavo webhooks list {tenant_id} --state given_up` shows them"
        detail = f"{given_up} messages to the webhook endpoint were given up after {message.tries + 1} tries: {why}"
        raise_alert(connection, tenant_id, AlertKind.WEBHOOK_GIVEN_UP, "endpoint", detail, now)
