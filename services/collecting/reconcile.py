"""Looking at Stripe for what nobody told us: payments that are not final, asked one by one."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from uuid import UUID

from billing.errors import BrokenInvariant
from billing.payments import AlertKind, PaymentState
from config.logging import logger
from db import payments as rows
from db.alerts import raise_alert
from db.session import Connection, in_transaction
from payments.gateway import GatewayMisconfigured, GatewayRejected, GatewayUnavailable, PaymentGateway
from services.collecting import disputes, guards
from services.collecting.sync import believe

log = logger(__name__)

PAGE = 1000


def open_payments() -> Iterator[tuple[str, UUID]]:
    """Every payment that has an intent and is not final: (tenant, payment). Read in pages, no lock is held."""
    after: tuple[str, UUID] | None = None
    while page := in_transaction(lambda connection, after=after: rows.open_at_stripe(connection, after, PAGE)):  # type: ignore[misc]
        yield from page
        after = page[-1]


def look(tenant_id: str, payment_id: UUID, gateway: PaymentGateway, now: datetime) -> PaymentState | None:
    """See how a payment's intent stands, and move the payment there; its state after that. Sends nothing.

    A customer may have confirmed it meanwhile, or a person canceled it at Stripe. None when Stripe can't say: the
    next look comes.
    """
    payment = in_transaction(lambda connection: rows.lock(connection, tenant_id, payment_id))
    if payment is None or payment.stripe_payment_intent_id is None:
        return None
    guards.await_slot()
    try:
        intent = gateway.retrieve_intent(payment.stripe_payment_intent_id)
        if intent.is_disputed:
            # Before it is believed: once it is paid nobody comes by again.
            disputes.look(tenant_id, payment_id, gateway, now)
        return believe(tenant_id, payment_id, intent, now, source="reconciler")
    except (GatewayUnavailable, GatewayMisconfigured, GatewayRejected, disputes.DisputeBusy) as error:
        log.warning("payment can't be looked at", payment_id=str(payment_id), error=str(error))
    except BrokenInvariant as error:
        log.exception("payment can't be looked at", payment_id=str(payment_id))
        in_transaction(partial(_tell, tenant_id, payment_id, str(error), now))
    return None


def _tell(tenant_id: str, payment_id: UUID, told: str, now: datetime, connection: Connection) -> None:
    raise_alert(connection, tenant_id, AlertKind.COLLECTING_FAILS, str(payment_id), told, now)
