"""Tiers that are owed no longer, since usage was voided: what was not collected is not to be, what was goes back.

Unless the plan keeps it (`billing.plans.UnowedTiers`): then the payment stands, and pays for the tier should it begin
again. What a person voided or gave back stays as the person left it. A tier that begins again re-opens, as the next
generation of its payment: see `services.metering.tiers`.
"""

from dataclasses import dataclass
from datetime import datetime

from billing.payments import PAID, PaymentState
from billing.plans import Plan, UnowedTiers
from db import payments as rows
from db import refunds as refund_rows
from db import tiers as tier_rows
from db.corrections import PeriodStanding
from db.payments import PaymentRow
from db.session import Connection
from services.collecting.refunds import left_minor
from services.collecting.voiding import void_locked

SOURCE = "usage"


@dataclass(frozen=True, slots=True)
class Unowed:
    """What became of tiers that are owed no longer: payments that are not collected, given back, and kept."""

    voided: int = 0
    refunded: int = 0
    kept: int = 0


NOTHING_UNOWED = Unowed()


def let_go(
    connection: Connection, period: PeriodStanding, plan: Plan, owed: int, event_key: str, now: datetime
) -> Unowed:
    """Let go of every tier of a period above those that are owed. Locks the payments, in order.

    The caller holds the customer's wallets and the period's row.
    """
    if owed >= period.tiers_reached:
        return NOTHING_UNOWED
    voided = refunded = kept = 0
    for payment_id in tier_rows.standing_above(connection, *_identity(period), owed):
        payment = rows.lock(connection, period.tenant_id, payment_id)
        if payment is None or payment.is_wished_void or payment.state in {PaymentState.VOIDED, PaymentState.REFUNDED}:
            continue  # as a person left it
        reason = f"tier {payment.tier} is owed no longer: event {event_key} was voided"
        if payment.state not in PAID:
            tier_rows.unowe(connection, payment, reason, now, source=SOURCE)
            void_locked(connection, payment, reason, now, source=SOURCE)
            voided += 1
        elif plan.unowed_tiers is UnowedTiers.KEEP:
            kept += 1
        else:
            tier_rows.unowe(connection, payment, f"{reason}; it goes back", now, source=SOURCE)
            _give_back(connection, payment, reason, now)
            refunded += 1
    return Unowed(voided, refunded, kept)


def _give_back(connection: Connection, payment: PaymentRow, reason: str, now: datetime) -> None:
    """Owe what is left of a collected payment back.

    What a bank holds back for a dispute is not ours to give; should the dispute be won, `services.collecting.paid`
    sees to it.
    """
    left = left_minor(connection, payment)
    if left > 0:
        refund_rows.add(connection, payment, left, reason, f"unowed:{payment.payment_id}", now)


def _identity(period: PeriodStanding) -> tuple[str, str, datetime]:
    return period.tenant_id, period.customer_id, period.starts_at
