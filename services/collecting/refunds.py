"""Giving money back: asked for in a row, then made at Stripe, then believed from there.

The three paragraphs of collecting: the row is committed before the call, and no call is made inside a transaction.
Before it makes a refund, whoever comes looks for it at Stripe by our id in its metadata: so it is made once,
however often a process dies, and also when Stripe has forgotten the key, or our database was put back.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from billing.errors import (
    DatabaseUnavailable,
    IdempotencyConflict,
    PaymentNotFound,
    Rejected,
    Stopping,
    Unavailable,
)
from billing.money import in_minor_units
from billing.payments import PAID, AlertKind, PaymentState, RefundState
from config import faults
from config.logging import logger
from config.settings import settings
from db import disputes as dispute_rows
from db import payments as payment_rows
from db import refunds as rows
from db.alerts import raise_alert
from db.payments import PaymentRow
from db.refunds import Outcome, RefundRow
from db.session import Connection, in_transaction
from payments.gateway import (
    GatewayKeyReused,
    GatewayMisconfigured,
    GatewayRejected,
    GatewayUnavailable,
    PaymentGateway,
    RefundSnapshot,
)
from services.collecting.paid import lock_with_wallets
from services.collecting.sync import sync

log = logger(__name__)

#: How often what is under way at Stripe is looked at, should no webhook tell.
LOOK_AGAIN_AFTER = timedelta(days=1)
SOONEST_AGAIN, LATEST_AGAIN = timedelta(seconds=10), timedelta(hours=1)
CLAIMED_AT_ONCE = 50
#: A payment that moved each time while we looked at Stripe is looked at later.
LOOKS_MAX = 5
KEY_CHARACTERS_MAX = 255
#: Under such keys it is owed by itself what goes back: by a plan change, a void, a dispute won. A caller's would be in
#: its way.
_OWN_KEYS = re.compile(r"(prorate|unowed|void|won):[0-9a-f-]{36}")


class RefundBusy(Unavailable):
    """The payment moves while it is looked at; try again in a moment."""


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund as it stands here; not new when the same key had asked for it before."""

    tenant_id: str
    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    currency: str
    state: RefundState
    failure: str | None
    is_new: bool


def refund(
    tenant_id: str, payment_id: UUID, amount_minor: int | None, reason: str, idempotency_key: str, now: datetime
) -> Refund:
    """Ask for a payment to be given back, or so much of it (minor units; None: all that is left); once per key.

    Nothing is called here: the sweep makes it, or `carry_out`. Raises `PaymentNotFound`, `Rejected` (not collected,
    or more than is left), `IdempotencyConflict` (the key asked for something else).
    """
    if not 0 < len(idempotency_key) <= KEY_CHARACTERS_MAX:
        raise Rejected(f"an idempotency key has 1 to {KEY_CHARACTERS_MAX} characters", given=len(idempotency_key))
    if _OWN_KEYS.fullmatch(idempotency_key):
        raise Rejected(f"keys like {idempotency_key} are for refunds that are owed by themselves; take another")

    def work(connection: Connection) -> Refund:
        payment = payment_rows.lock(connection, tenant_id, payment_id)
        if payment is None:
            raise PaymentNotFound(tenant_id=tenant_id, payment_id=str(payment_id))
        return _ask(connection, payment, amount_minor, reason, idempotency_key, now)

    asked = in_transaction(work)
    if asked.is_new:
        log.info(
            "refund asked for",
            tenant_id=tenant_id,
            payment_id=str(payment_id),
            refund_id=str(asked.refund_id),
            amount_minor=asked.amount_minor,
            currency=asked.currency,
            reason=reason,
        )
    return asked


def _ask(
    connection: Connection, payment: PaymentRow, amount_minor: int | None, reason: str, key: str, now: datetime
) -> Refund:
    before = rows.by_key(connection, payment.tenant_id, key)
    if before is not None:
        if before.payment_id != payment.payment_id or amount_minor not in {None, before.amount_minor}:
            raise IdempotencyConflict(
                idempotency_key=key, refunded=before.amount_minor, of_payment=str(before.payment_id)
            )
        return _shown(payment, before, is_new=False)
    amount = _allowed(connection, payment, amount_minor)
    if not rows.add(connection, payment, amount, reason, key, now):
        raise IdempotencyConflict(idempotency_key=key)
    asked = rows.by_key(connection, payment.tenant_id, key)
    assert asked is not None
    return _shown(payment, asked, is_new=True)


def _allowed(connection: Connection, payment: PaymentRow, amount_minor: int | None) -> int:
    """The amount to give back. Raises `Rejected` when the payment does not hold it any more."""
    if payment.state not in PAID:
        raise Rejected(f"payment {payment.payment_id} is {payment.state}: nothing was collected; void it instead")
    left = left_minor(connection, payment)
    amount = left if amount_minor is None else amount_minor
    if amount <= 0 or amount > left:
        said = {
            "of": payment.amount_minor,
            "refunded": payment.refunded_minor,
            "asked for": rows.asked_minor(connection, payment.tenant_id, payment.payment_id),
            "disputed": payment_rows.disputed_minor(connection, payment.tenant_id, payment.payment_id),
            "left": max(0, left),
        }
        told = ", ".join(f"{name} {in_minor_units(minor, payment.currency)}" for name, minor in said.items())
        wanted = "all that is left" if amount_minor is None else in_minor_units(amount_minor, payment.currency)
        raise Rejected(f"{wanted} of payment {payment.payment_id} can't be refunded: {told}")
    return amount


def left_minor(connection: Connection, payment: PaymentRow) -> int:
    """What of a collected payment is neither given back, nor asked for, nor disputed; minor units."""
    asked = rows.asked_minor(connection, payment.tenant_id, payment.payment_id)
    disputed = payment_rows.disputed_minor(connection, payment.tenant_id, payment.payment_id)
    return payment.amount_minor - payment.refunded_minor - asked - disputed


def left_in_the_end_minor(connection: Connection, payment: PaymentRow) -> int:
    """The same, with what a bank may still give back: a refund of that waits until it has."""
    left = left_minor(connection, payment)
    if dispute_rows.is_open(connection, payment.tenant_id, payment.payment_id):
        left += payment_rows.disputed_minor(connection, payment.tenant_id, payment.payment_id)
    return left


def claim_due(now: datetime) -> list[tuple[str, UUID]]:
    """Lease the refunds that are due; (tenant, refund) of each. A lease that runs out is given again."""
    until = now + timedelta(seconds=settings().payment_lease_seconds)
    return in_transaction(lambda connection: rows.claim(connection, now, until, CLAIMED_AT_ONCE))


def carry_out(tenant_id: str, refund_id: UUID, gateway: PaymentGateway, now: datetime) -> RefundState | None:
    """Make a refund at Stripe, if it is not there yet, and write what became of it; its state after that.

    None if there is no such refund, or nothing came of it: then it is due again by itself, later each time.
    """
    wanted = in_transaction(lambda connection: rows.find(connection, tenant_id, refund_id))
    if wanted is None:
        return None
    if wanted.due_at is None:
        return RefundState(wanted.state)
    try:
        made = _made(wanted, gateway)
        faults.reached("refund.after_call")
        _believe(tenant_id, wanted.payment_id, [made], gateway, now)
    except (GatewayUnavailable, RefundBusy) as error:
        log.warning("refund waits", refund_id=str(refund_id), error=str(error))
        _wait(wanted, str(error), now)
        return None
    except (GatewayMisconfigured, GatewayRejected) as error:
        log.critical("stripe refuses us", refund_id=str(refund_id), error=str(error))
        told, subject = str(error), "key" if isinstance(error, GatewayMisconfigured) else str(refund_id)
        in_transaction(lambda c: raise_alert(c, tenant_id, AlertKind.STRIPE_REFUSES, subject, told, now))
        _wait(wanted, told, now)
        return None
    except (DatabaseUnavailable, Stopping):
        raise
    except Exception as error:
        # Celery would acknowledge the message, and the next sweep run into the same, for ever and in silence.
        log.exception("refund fails", refund_id=str(refund_id))
        said, failed = f"refund {refund_id} fails: {type(error).__name__}: {error}", str(refund_id)
        in_transaction(lambda c: raise_alert(c, tenant_id, AlertKind.REFUND_FAILED, failed, said, now))
        _wait(wanted, said, now)
        return None
    after = in_transaction(lambda connection: rows.find(connection, tenant_id, refund_id))
    assert after is not None
    if after.state == RefundState.PENDING:
        again = now + LOOK_AGAIN_AFTER
        in_transaction(lambda connection: rows.wait(connection, after, again, None, now))
    return RefundState(after.state)


def look(tenant_id: str, payment_id: UUID, gateway: PaymentGateway, now: datetime) -> PaymentState | None:
    """Believe what Stripe says of every refund of a payment, one may fail weeks after it had succeeded; its state then.

    Raises the gateway's errors, and `RefundBusy`.
    """
    intent_id = in_transaction(lambda connection: _intent_id(connection, tenant_id, payment_id))
    return _believe(tenant_id, payment_id, gateway.find_refunds(intent_id), gateway, now)


def _made(wanted: RefundRow, gateway: PaymentGateway) -> RefundSnapshot:
    """The refund at Stripe: found there, or made now. One that Stripe refuses has failed, with its words."""
    intent_id = in_transaction(lambda connection: _intent_id(connection, wanted.tenant_id, wanted.payment_id))
    for known in gateway.find_refunds(intent_id):
        if wanted.refund_id == known.refund_id or wanted.stripe_refund_id == known.stripe_refund_id:
            return replace(known, refund_id=wanted.refund_id)
    if in_transaction(lambda connection: dispute_rows.is_open(connection, wanted.tenant_id, wanted.payment_id)):
        # Stripe would refuse it, and what it refuses has failed for good.
        raise RefundBusy("the payment is disputed; its refund waits until that is over")
    metadata = {"refund_id": str(wanted.refund_id), "payment_id": str(wanted.payment_id)}
    key = f"refund:{wanted.refund_id}"
    faults.reached("refund.before_call")
    try:
        return gateway.create_refund(intent_id, wanted.amount_minor, metadata, key)
    except GatewayKeyReused:
        raise  # something may have been made under this key: never take it for a failure
    except GatewayRejected as error:
        log.exception("stripe refuses a refund", refund_id=str(wanted.refund_id))
        return RefundSnapshot(
            stripe_refund_id="",
            status="failed",
            amount_minor=wanted.amount_minor,
            failure_reason=f"{error.stripe_code or error.code}: {error.message}",
            refund_id=wanted.refund_id,
        )


def _believe(
    tenant_id: str, payment_id: UUID, seen: Sequence[RefundSnapshot], gateway: PaymentGateway, now: datetime
) -> PaymentState | None:
    """Write refunds as they were seen, and with them what the payment holds by now, in one transaction; its state.

    The intent is read between two looks at our row: if the row moved meanwhile, somebody else may have believed
    a newer intent, and what was read here could undo that. Then it is read again.
    """
    for _ in range(LOOKS_MAX):
        before = in_transaction(lambda connection: _standing(connection, tenant_id, payment_id))
        intent = gateway.retrieve_intent(before[0])

        def work(connection: Connection, before: tuple[str, int] = before) -> tuple[bool, PaymentState | None]:
            payment = lock_with_wallets(connection, tenant_id, payment_id)
            if payment is None or (payment.stripe_payment_intent_id, payment.refunded_minor) != before:
                return False, None
            for one in seen:
                _note(connection, payment, one, now)
            # `intent` is the one of this round: the transaction ends before the next begins.
            return True, sync(connection, tenant_id, payment_id, intent, now, source="refund")  # noqa: B023

        is_written, state = in_transaction(work)
        if is_written:
            return state
    raise RefundBusy(payment_id=str(payment_id))


def _note(connection: Connection, payment: PaymentRow, seen: RefundSnapshot, now: datetime) -> None:
    """One refund as Stripe has it. One that was made there by hand has no row here; the payment tells of it."""
    if seen.refund_id is None:
        return
    state = _STATES.get(seen.status, RefundState.PENDING)  # a word we don't know is not the last one
    due_at = now + LOOK_AGAIN_AFTER if state is RefundState.PENDING else None
    outcome = Outcome(state, seen.stripe_refund_id or None, seen.failure_reason, due_at)
    if not rows.note(connection, payment.tenant_id, seen.refund_id, outcome, now):
        return
    log.info("refund", refund_id=str(seen.refund_id), payment_id=str(payment.payment_id), state=state)
    if state in {RefundState.FAILED, RefundState.CANCELED}:
        amount = in_minor_units(seen.amount_minor, payment.currency)
        why = f" ({seen.failure_reason})" if seen.failure_reason else ""
        detail = f"{amount} of payment {payment.payment_id} did not go back to customer {payment.customer_id}{why}"
        raise_alert(
            connection,
            payment.tenant_id,
            AlertKind.REFUND_FAILED,
            str(seen.refund_id),
            detail,
            now,
            customer_id=payment.customer_id,
        )


_STATES = {
    "pending": RefundState.PENDING,
    "requires_action": RefundState.PENDING,
    "succeeded": RefundState.SUCCEEDED,
    "failed": RefundState.FAILED,
    "canceled": RefundState.CANCELED,
}


def _wait(wanted: RefundRow, why: str, now: datetime) -> None:
    """Due again after as long as it has been waiting already: so the waits double by themselves."""
    age = min(max(now - wanted.created_at, SOONEST_AGAIN), LATEST_AGAIN)
    in_transaction(lambda connection: rows.wait(connection, wanted, now + age, why, now))


def _standing(connection: Connection, tenant_id: str, payment_id: UUID) -> tuple[str, int]:
    payment = payment_rows.lock(connection, tenant_id, payment_id)
    if payment is None or payment.stripe_payment_intent_id is None:
        raise PaymentNotFound("this payment was never at Stripe", tenant_id=tenant_id, payment_id=str(payment_id))
    return payment.stripe_payment_intent_id, payment.refunded_minor


def _intent_id(connection: Connection, tenant_id: str, payment_id: UUID) -> str:
    return _standing(connection, tenant_id, payment_id)[0]


def _shown(payment: PaymentRow, row: RefundRow, *, is_new: bool) -> Refund:
    return Refund(
        row.tenant_id,
        row.refund_id,
        row.payment_id,
        row.amount_minor,
        payment.currency,
        RefundState(row.state),
        row.failure,
        is_new,
    )
