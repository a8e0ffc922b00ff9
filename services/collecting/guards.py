"""What stands between what is owed and what is collected by itself: the switch, the pace, the caps, the stop-loss."""

import time
from datetime import datetime, timedelta
from uuid import UUID

from billing.errors import PaymentNotFound, Rejected
from billing.payments import AlertKind, PaymentState
from config.logging import logger
from config.settings import settings
from db import collecting
from db import payments as rows
from db.alerts import Cause, raise_alert, raise_once
from db.collecting import Switch
from db.payments import Move, PaymentRow
from db.session import Connection, in_transaction

log = logger(__name__)

WHOLE_TENANT = ""


def pause(reason: str, now: datetime) -> None:
    """Collect nothing from now on. What was begun is still looked after, without sending anything again."""
    in_transaction(lambda connection: collecting.set_switch(connection, now, reason))
    log.info("collecting is paused", reason=reason)


def resume() -> None:
    """Collect again."""
    in_transaction(lambda connection: collecting.set_switch(connection, None, None))
    log.info("collecting goes on")


def switch() -> Switch:
    """Whether collecting is paused, and why."""
    return in_transaction(collecting.switch)


def await_slot() -> None:
    """Wait for this payment's place in the pace; all workers share it. Holds no lock while it waits."""
    interval = timedelta(seconds=1 / settings().payments_per_second)
    wait = in_transaction(lambda connection: collecting.take_slot(connection, interval))
    if wait > timedelta():
        time.sleep(wait.total_seconds())


def above_a_cap(connection: Connection, payment: PaymentRow, now: datetime) -> str | None:
    """Count a payment that is about to begin; which cap it breaks, if any. Locks the counters.

    A cap that is broken counts as well: whoever asks rolls back, or lets the payment await approval.
    """
    chosen = settings()
    of_day = (
        payment.day_payments_max or chosen.customer_day_payments_max,
        payment.day_minor_max or chosen.customer_day_minor_max,
    )
    windows = (
        (payment.customer_id, _day(now), *of_day, "day"),
        (WHOLE_TENANT, _hour(now), chosen.tenant_hour_payments_max, chosen.tenant_hour_minor_max, "hour"),
    )
    for scope, starts_at, payments_max, minor_max, window in windows:
        payments, minor = collecting.count(connection, payment.tenant_id, scope, starts_at, payment.amount_minor)
        whose = f"customer {scope}" if scope else "the tenant"
        if payments > payments_max:
            return f"{payments} payments of {whose} in one {window}; the cap is {payments_max}"
        if minor > minor_max:
            return f"{minor} minor units of {whose} in one {window}; the cap is {minor_max}"
    return None


def await_approval(connection: Connection, payment: PaymentRow, why: str, now: datetime) -> None:
    """Collect this payment only when a person has said so. The caller holds it."""
    rows.settle(connection, payment, Move(PaymentState.AWAITING_APPROVAL, why), now, source="sweep")
    detail = f"payment {payment.payment_id} awaits approval: {why}"
    subject = payment.customer_id
    raise_alert(
        connection, payment.tenant_id, AlertKind.CAP_REACHED, subject, detail, now, customer_id=payment.customer_id
    )


def approve(tenant_id: str, payment_id: UUID, now: datetime) -> None:
    """Let a payment through above the caps; asked again, nothing changes.

    Raises `PaymentNotFound`, `Rejected` when it awaits no approval.
    """

    def work(connection: Connection) -> None:
        payment = rows.lock(connection, tenant_id, payment_id)
        if payment is None:
            raise PaymentNotFound(tenant_id=tenant_id, payment_id=str(payment_id))
        if payment.state != PaymentState.AWAITING_APPROVAL and payment.approved_at is not None:
            return
        if payment.state != PaymentState.AWAITING_APPROVAL:
            raise Rejected(f"payment {payment_id} is {payment.state}; only what awaits approval is approved")
        rows.approve(connection, payment, now)
        rows.settle(connection, payment, Move(PaymentState.DUE, "approved", now), now, source="person")

    in_transaction(work)


def watch_open_tiers(connection: Connection, tenant_id: str, customer_id: str, now: datetime) -> None:
    """Say it to a person when a customer has come to owe more tiers than the plan bears."""
    standing, most = collecting.open_tiers(connection, tenant_id, customer_id)
    if standing >= most:
        detail = f"{standing} tier payments of customer {customer_id} are unpaid; the plan bears {most}"
        cause = Cause(tenant_id, AlertKind.OPEN_TIERS, customer_id, customer_id, customer_id, detail)
        raise_once(connection, [cause], now)


def is_affordable(tenant_id: str, customer_id: str) -> bool:
    """Whether a customer may go on using what tiers pay for: not with as many unpaid as the plan bears."""
    standing, most = in_transaction(lambda connection: collecting.open_tiers(connection, tenant_id, customer_id))
    return standing < most


def _day(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def _hour(now: datetime) -> datetime:
    return now.replace(minute=0, second=0, microsecond=0)
