"""Disputes: a customer's bank wants a payment back. What is believed is what Stripe says when it is asked.

While a dispute is open, and after it was lost, nothing more is collected from the customer by itself, until a
person says otherwise; when the last is won or closed, the hold ends by itself. A top-up's value is taken back for as
long as the bank has the money: `services.collecting.paid` sees to that.
"""

from datetime import datetime
from enum import Enum
from typing import NamedTuple
from uuid import UUID

from billing.errors import PaymentNotFound, Unavailable
from billing.money import in_minor_units
from billing.payments import PAID, AlertKind, DisputeStatus, HoldReason, PaymentState
from config.logging import logger
from db import collecting
from db import disputes as rows
from db import payments as payment_rows
from db.alerts import raise_alert
from db.disputes import DisputeRow
from db.payments import PaymentRow
from db.session import Connection, in_transaction
from payments.gateway import DisputeSnapshot, IntentSnapshot, PaymentGateway
from services.collecting.paid import lock_with_wallets, settle_paid
from services.collecting.sync import sync

log = logger(__name__)

#: A dispute that moved each time while we looked at Stripe is looked at later.
LOOKS_MAX = 5


class DisputeBusy(Unavailable):
    """The dispute moves while it is looked at; try again in a moment."""


class Phase(Enum):
    """What a dispute means for us. Each begins once, whatever statuses it goes through."""

    ASKED = "the bank asks about"
    TAKEN = "the bank has taken back"
    LOST = "the dispute is lost, and the bank keeps"
    OVER = "the dispute is over for"


PHASES = {
    DisputeStatus.WARNING_NEEDS_RESPONSE: Phase.ASKED,
    DisputeStatus.WARNING_UNDER_REVIEW: Phase.ASKED,
    DisputeStatus.NEEDS_RESPONSE: Phase.TAKEN,
    DisputeStatus.UNDER_REVIEW: Phase.TAKEN,
    DisputeStatus.LOST: Phase.LOST,
    DisputeStatus.WON: Phase.OVER,
    DisputeStatus.WARNING_CLOSED: Phase.OVER,
    DisputeStatus.PREVENTED: Phase.OVER,
}
OVER = [status.value for status, phase in PHASES.items() if phase is Phase.OVER]


class _Seen(NamedTuple):
    """How things stood here before Stripe was asked."""

    dispute: DisputeRow | None
    intent_id: str | None
    is_paid: bool


def record(tenant_id: str, payment_id: UUID, dispute: DisputeSnapshot, gateway: PaymentGateway, now: datetime) -> None:
    """Take note of a dispute, as it is at Stripe now: what an event said of it may be old. Once more does no harm.

    Stripe is asked between two looks at our row. If the row was written meanwhile, what was read here may be the
    older of the two, and Stripe is asked again: so no status is ever undone by an older one. Raises
    `PaymentNotFound`, `DisputeBusy` and the gateway's errors.
    """
    for _ in range(LOOKS_MAX):
        seen = in_transaction(lambda c: _look(c, tenant_id, payment_id, dispute.stripe_dispute_id))
        current = gateway.retrieve_dispute(dispute.stripe_dispute_id)
        intent = gateway.retrieve_intent(seen.intent_id) if seen.intent_id and not seen.is_paid else None
        if in_transaction(lambda c: _record(c, tenant_id, payment_id, seen, current, intent, now)):  # noqa: B023
            return
    raise DisputeBusy(dispute=dispute.stripe_dispute_id)


def look(tenant_id: str, payment_id: UUID, gateway: PaymentGateway, now: datetime) -> int:
    """Take note of every dispute that Stripe has of a payment, for the events that never came; how many."""
    seen = in_transaction(lambda c: _look(c, tenant_id, payment_id, ""))
    found = gateway.find_disputes(seen.intent_id) if seen.intent_id else []
    for dispute in found:
        record(tenant_id, payment_id, dispute, gateway, now)
    return len(found)


def _look(connection: Connection, tenant_id: str, payment_id: UUID, dispute_id: str) -> _Seen:
    payment = payment_rows.lock(connection, tenant_id, payment_id)
    if payment is None:
        raise PaymentNotFound(tenant_id=tenant_id, payment_id=str(payment_id))
    is_paid = PaymentState(payment.state) in PAID
    return _Seen(rows.find(connection, tenant_id, dispute_id), payment.stripe_payment_intent_id, is_paid)


def _record(
    connection: Connection,
    tenant_id: str,
    payment_id: UUID,
    seen: _Seen,
    current: DisputeSnapshot,
    intent: IntentSnapshot | None,
    now: datetime,
) -> bool:
    """Write the dispute and all that follows; whether nobody else had written it meanwhile."""
    payment = lock_with_wallets(connection, tenant_id, payment_id)
    before = rows.find(connection, tenant_id, current.stripe_dispute_id)
    if payment is None or before != seen.dispute:
        return False
    phase_before = PHASES[DisputeStatus(before.status)] if before else None
    after = DisputeRow(
        tenant_id,
        current.stripe_dispute_id,
        payment_id,
        current.amount_minor,
        DisputeStatus(current.status),
        current.reason,
        current.opened_at,
        now,
    )
    rows.keep(connection, after)
    phase = PHASES[DisputeStatus(current.status)]
    if phase is not phase_before:
        _begin(connection, payment, after, phase, now)
    _settle(connection, payment, after, intent, now)
    return True


def _begin(connection: Connection, payment: PaymentRow, dispute: DisputeRow, phase: Phase, now: datetime) -> None:
    """A phase begins: hold the customer or let them go, and tell a person.

    Only now, and not with every event: a person who has released the customer is not contradicted by an old one.
    """
    reason = f" ({dispute.reason})" if dispute.reason else ""
    amount = in_minor_units(dispute.amount_minor, payment.currency)
    said = f"{phase.value} {amount} of payment {payment.payment_id}{reason}: {dispute.stripe_dispute_id}"
    identity = (payment.tenant_id, payment.customer_id)
    log.warning("dispute", tenant_id=payment.tenant_id, customer_id=payment.customer_id, detail=said)
    if phase is Phase.OVER:
        if not rows.standing(connection, *identity, OVER):
            collecting.release(connection, *identity, [HoldReason.DISPUTED.value])
        return
    collecting.hold(connection, *identity, HoldReason.DISPUTED, said, now)
    kind = AlertKind.DISPUTE_LOST if phase is Phase.LOST else AlertKind.DISPUTE_OPENED
    subject = dispute.stripe_dispute_id
    raise_alert(connection, payment.tenant_id, kind, subject, said, now, customer_id=payment.customer_id)


def _settle(
    connection: Connection, payment: PaymentRow, dispute: DisputeRow, intent: IntentSnapshot | None, now: datetime
) -> None:
    """Bring the payment and the wallet to what the bank has left of the money."""
    if PaymentState(payment.state) in PAID:
        why = f"dispute {dispute.stripe_dispute_id} is {dispute.status}"
        settle_paid(connection, payment, payment.refunded_minor, now, source="dispute", why=why)
    elif intent is not None:
        # The dispute is here before we knew that the payment had succeeded.
        sync(connection, payment.tenant_id, payment.payment_id, intent, now, source="dispute")
