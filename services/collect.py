"""Collecting a payment: intent row, call, outcome row. Whoever runs it again repairs a crash at any line.

A PaymentIntent succeeds at most once, so a payment keeps one intent for its life: it is created
unconfirmed, its id is committed, and only then is it confirmed. No call is made inside a transaction.
"""

from datetime import datetime, timedelta
from enum import Enum
from uuid import UUID

from billing.payments import COLLECTABLE, PaymentState
from config import faults
from config.logging import logger
from config.settings import settings
from db import payments as rows
from db.payments import AttemptRow, PaymentRow
from db.session import Connection, in_transaction
from payments.gateway import (
    GatewayMisconfigured,
    GatewayRejected,
    GatewayUnavailable,
    IntentRequest,
    IntentSnapshot,
    PaymentGateway,
    confirm_parameters,
)
from services.sync import check_identity, sync

log = logger(__name__)

#: An intent may exist that we don't know of, if the first try was long enough ago for its key to be forgotten.
ADOPT_AFTER = timedelta(hours=1)
REJECTED_AGAIN_AFTER = timedelta(hours=6)


class Step(Enum):
    """What a payment needs next."""

    NOTHING = "nothing"
    CREATE = "create"
    CONFIRM = "confirm"
    RECOVER = "recover"


def claim_due(now: datetime) -> list[tuple[str, UUID]]:
    """Lease the payments that are due, as many as the pace allows; (tenant, payment) of each.

    A lease that runs out is given again: no message has to arrive.
    """
    limit = max(1, int(settings().payments_per_second * settings().sweep_seconds))
    until = now + timedelta(seconds=settings().payment_lease_seconds)
    return in_transaction(lambda connection: rows.claim(connection, now, until, limit))


def collect(tenant_id: str, payment_id: UUID, gateway: PaymentGateway, now: datetime) -> PaymentState | None:
    """Take a payment as far as it goes now; its state after that, or None if nothing came of it.

    A payment that is not due is left alone. A decline is an outcome. When Stripe is away or its answer unknown,
    the payment stays as it is and its lease runs out; that never uses up an attempt.
    """
    try:
        return _collect(tenant_id, payment_id, gateway, now)
    except GatewayUnavailable as error:
        log.warning("collecting waits", payment_id=str(payment_id), reason=error.reason, error=error.detail)
    except GatewayMisconfigured as error:
        log.critical("stripe refuses our key", payment_id=str(payment_id), error=str(error))
    except GatewayRejected as error:
        log.exception("stripe refuses our request", payment_id=str(payment_id))
        _set_aside(tenant_id, payment_id, error, now)
    return None


def _collect(tenant_id: str, payment_id: UUID, gateway: PaymentGateway, now: datetime) -> PaymentState | None:
    payment, attempt, step = in_transaction(lambda c: _next_step(c, tenant_id, payment_id, now))
    if payment is None:
        return None
    if step is Step.CREATE:
        _create_intent(payment, gateway, now)
        payment, attempt, step = in_transaction(lambda c: _next_step(c, tenant_id, payment_id, now))
        assert payment is not None
    if attempt is None or payment.stripe_payment_intent_id is None:
        return PaymentState(payment.state)

    intent, is_answer = _call(payment, attempt, step, gateway)
    faults.reached("collect.after_confirm")

    answered = attempt.attempt if is_answer else None
    return in_transaction(lambda c: sync(c, tenant_id, payment_id, intent, now, answered_attempt=answered))


def _next_step(
    connection: Connection, tenant_id: str, payment_id: UUID, now: datetime
) -> tuple[PaymentRow | None, AttemptRow | None, Step]:
    """Look at the payment under its lock; when it is to be confirmed, write the attempt.

    What is not due yet needs nothing: a second message for a payment that was declined meanwhile must not
    charge the card again.
    """
    payment = rows.lock(connection, tenant_id, payment_id)
    if payment is None or payment.state not in COLLECTABLE or not _is_due(payment, now):
        return payment, None, Step.NOTHING
    attempt = rows.open_attempt(connection, tenant_id, payment_id)
    if attempt is not None:
        return payment, attempt, Step.RECOVER
    if payment.stripe_customer_id is None or payment.default_payment_method_id is None:
        rows.settle(connection, payment, PaymentState.NEEDS_PAYMENT_METHOD, due_at=None, now=now)
        return payment._replace(state=PaymentState.NEEDS_PAYMENT_METHOD), None, Step.NOTHING
    if payment.stripe_payment_intent_id is None:
        return payment, None, Step.CREATE
    number = payment.attempts_made + 1
    key = f"pay:{payment_id}:confirm:{number}"
    parameters = confirm_parameters(payment.default_payment_method_id)
    rows.begin_attempt(connection, payment, number, key, parameters, payment.stripe_latest_charge_id, now)
    begun = AttemptRow(number, "submitting", key, parameters, payment.stripe_latest_charge_id, now)
    return payment, begun, Step.CONFIRM


def _is_due(payment: PaymentRow, now: datetime) -> bool:
    return payment.due_at is not None and payment.due_at <= now


def _create_intent(payment: PaymentRow, gateway: PaymentGateway, now: datetime) -> None:
    intent = _adoptable(payment, gateway) if now - payment.created_at > ADOPT_AFTER else None
    intent = intent or gateway.create_intent(_request(payment), f"pay:{payment.payment_id}:create")
    # Before it can be confirmed: an intent of another amount must never be charged.
    check_identity(payment, intent)
    intent_id = intent.stripe_payment_intent_id
    faults.reached("collect.after_create")
    in_transaction(lambda c: rows.set_intent(c, payment.tenant_id, payment.payment_id, intent_id, now))


def _adoptable(payment: PaymentRow, gateway: PaymentGateway) -> IntentSnapshot | None:
    """The intent of this payment that Stripe has already, if any, by the id in its metadata.

    Looked for from the start of the period: the row may be younger than the intent, if the database was
    restored and the usage sent again. One that is canceled can collect nothing any more.
    """
    assert payment.stripe_customer_id is not None
    found = gateway.find_intents(payment.stripe_customer_id, min(payment.period_start, payment.created_at))
    ours = [one for one in found if one.payment_id == payment.payment_id and one.status != "canceled"]
    return min(ours, key=_how_open, default=None)


def _how_open(intent: IntentSnapshot) -> int:
    """Least for the intent that has collected, or is about to."""
    return {"succeeded": 0, "processing": 1}.get(intent.status, 2)


def _call(payment: PaymentRow, attempt: AttemptRow, step: Step, gateway: PaymentGateway) -> tuple[IntentSnapshot, bool]:
    """The intent after this attempt, and whether that is the answer to our own confirm.

    An attempt left open by a crash is looked up first; only if Stripe never executed it is it sent again, with
    the same key and the same parameters.
    """
    intent_id = payment.stripe_payment_intent_id
    assert intent_id is not None
    if step is Step.RECOVER:
        intent = gateway.retrieve_intent(intent_id)
        waits_for_us = intent.status in {"requires_payment_method", "requires_confirmation"}
        if not waits_for_us or intent.latest_charge_id != attempt.charge_before:
            return intent, False
    card = str(attempt.parameters["payment_method"])
    return gateway.confirm_intent(intent_id, card, attempt.idempotency_key, stored=attempt.parameters), True


def _request(payment: PaymentRow) -> IntentRequest:
    what = f"Tier {payment.tier}" if payment.tier else payment.kind.replace("_", " ").capitalize()
    return IntentRequest(
        payment_id=payment.payment_id,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        stripe_customer_id=payment.stripe_customer_id or "",
        statement_descriptor_suffix=what.upper(),
        description=f"{what} of the month from {payment.period_start.date().isoformat()}",
        kind=payment.kind,
        period=payment.period_start.isoformat(),
        tier=payment.tier,
        environment=settings().environment,
    )


def _set_aside(tenant_id: str, payment_id: UUID, error: GatewayRejected, now: datetime) -> None:
    """Our request is wrong: nothing is known to have moved; look again much later, and say so.

    Unless another worker has settled the payment meanwhile: that stands.
    """

    def work(connection: Connection) -> None:
        payment = rows.lock(connection, tenant_id, payment_id)
        if payment is not None and payment.state in COLLECTABLE:
            rows.settle(
                connection,
                payment,
                PaymentState.UNKNOWN,
                due_at=now + REJECTED_AGAIN_AFTER,
                now=now,
                decline_code=error.stripe_code or error.code,
                decline_message=error.message,
            )

    in_transaction(work)
