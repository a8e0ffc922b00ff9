"""Collecting a payment: intent row, call, outcome row. Whoever runs it again repairs a crash at any line.

A PaymentIntent succeeds at most once, so a payment keeps one intent for its life: it is created
unconfirmed, its id is committed, and only then is it confirmed. No call is made inside a transaction.
"""

from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

from billing.errors import DatabaseUnavailable, Stopping
from billing.payments import AlertKind, AttemptState, PaymentKind, PaymentState
from config import faults
from config.logging import logger
from config.settings import settings
from db import collecting
from db import payments as rows
from db.alerts import raise_alert
from db.payments import AttemptRow, Move, PaymentRow
from db.session import Connection, in_transaction
from payments.gateway import (
    GatewayKeyReused,
    GatewayMisconfigured,
    GatewayRejected,
    GatewayUnavailable,
    IntentRequest,
    IntentSnapshot,
    PaymentGateway,
)
from services.collecting import disputes, guards, payment_alerts
from services.collecting.declining import has_another_card
from services.collecting.next_step import Step, next_step
from services.collecting.sync import believe, check_identity, finish

log = logger(__name__)

#: Where a crash is tried out, in the order in which a payment comes by.
CRASH_POINTS = (
    "collect.before_create",
    "collect.after_create",
    "collect.after_intent",
    "collect.before_confirm",
    "collect.after_confirm",
    "collect.after_sync",
)

REJECTED_AGAIN_AFTER = timedelta(hours=6)
NO_ATTEMPT = 0
TOP_UP_REMEMBERED = timedelta(days=366)
IN_THE_DARK = frozenset({PaymentState.SUBMITTING, PaymentState.UNKNOWN})
#: Stripe may forget a key after 24 hours, and would then do the same once more.
KEY_LIVES = timedelta(hours=23)
#: The only word of Stripe's for a card that is gone: `param` says which of our parameters it could not find.
CARD_PARAM = "payment_method"


class Looked(NamedTuple):
    """An intent after an attempt, and whether that is the answer to the attempt's own confirm.

    `is_spent`: the attempt's key will never give another answer than the failure that it gave.
    """

    intent: IntentSnapshot
    is_answer: bool
    is_spent: bool = False


def claim_due(now: datetime) -> list[tuple[str, UUID]]:
    """Lease the payments that are due, as many as the pace allows; (tenant, payment) of each.

    A lease that runs out is given again: no message has to arrive.
    """
    limit = max(1, int(settings().payments_per_second * settings().sweep_seconds))
    until = now + timedelta(seconds=settings().payment_lease_seconds)

    def work(connection: Connection) -> list[tuple[str, UUID]]:
        is_paused = collecting.switch(connection).paused_at is not None
        return collecting.claim(connection, now, until, limit, is_paused=is_paused)

    return in_transaction(work)


def collect(tenant_id: str, payment_id: UUID, gateway: PaymentGateway, now: datetime) -> PaymentState | None:
    """Take a payment as far as it goes now; its state after that, or None if nothing came of it.

    A payment that is not due is left alone. A decline is an outcome. When Stripe is away or its answer unknown,
    the payment stays as it is and its lease runs out; that never uses up an attempt.
    """
    try:
        return _collect(tenant_id, payment_id, gateway, now)
    except GatewayUnavailable as error:
        log.warning("collecting waits", payment_id=str(payment_id), reason=error.reason, error=error.detail)
        in_transaction(partial(_note_unknown, tenant_id, payment_id, error, now))
    except GatewayMisconfigured as error:
        log.critical("stripe refuses our key", payment_id=str(payment_id), error=str(error))
        in_transaction(partial(_say_refused, tenant_id, str(error), now))
    except GatewayRejected as error:
        log.exception("stripe refuses our request", payment_id=str(payment_id))
        in_transaction(partial(_set_aside, tenant_id, payment_id, NO_ATTEMPT, error, now))
    except (DatabaseUnavailable, Stopping):
        raise
    except Exception as error:
        # Celery would acknowledge the message, and the next sweep run into the same, for ever and in silence.
        log.exception("collecting fails", payment_id=str(payment_id))
        in_transaction(partial(_say_failed, tenant_id, payment_id, f"{type(error).__name__}: {error}", now))
    return None


def _say_failed(tenant_id: str, payment_id: UUID, told: str, now: datetime, connection: Connection) -> None:
    """Something that should not be: a person is told, and the payment looked at again much later."""
    payment = rows.lock(connection, tenant_id, payment_id)
    if payment is None or payment.due_at is None:
        return
    why = f"collecting fails: {told}"
    again = Move(PaymentState(payment.state), why, max(payment.due_at, now + REJECTED_AGAIN_AFTER))
    rows.settle(connection, payment, again, now, source="sweep")
    subject = str(payment_id)
    raise_alert(connection, tenant_id, AlertKind.COLLECTING_FAILS, subject, why, now, customer_id=payment.customer_id)


def _say_refused(tenant_id: str, told: str, now: datetime, connection: Connection) -> None:
    raise_alert(connection, tenant_id, AlertKind.STRIPE_REFUSES, "key", told, now)


def _collect(tenant_id: str, payment_id: UUID, gateway: PaymentGateway, now: datetime) -> PaymentState | None:
    def look(connection: Connection) -> tuple[PaymentRow | None, AttemptRow | None, Step]:
        return next_step(connection, tenant_id, payment_id, now)

    payment, attempt, step = in_transaction(look)
    if payment is None:
        return None
    if step is Step.NOTHING:
        return PaymentState(payment.state)
    guards.await_slot()
    if step is Step.CREATE:
        _create_intent(payment, gateway, now)
        payment, attempt, step = in_transaction(look)
        assert payment is not None
    try:
        looked = _carry_out(step, payment, attempt, gateway, now)
    except GatewayRejected as error:
        log.exception("stripe refuses our request", payment_id=str(payment_id))
        worked = attempt.attempt if attempt else NO_ATTEMPT
        in_transaction(partial(_set_aside, tenant_id, payment_id, worked, error, now))
        return None
    if looked is None:
        return PaymentState(payment.state)
    faults.reached("collect.after_confirm")

    if looked.intent.is_disputed:
        # Before it is believed: once it is paid nobody comes by again.
        disputes.look(tenant_id, payment_id, gateway, now)
    answered = attempt.attempt if attempt is not None and looked.is_answer else None
    source = "answer" if looked.is_answer else "reconciler"
    state = believe(tenant_id, payment_id, looked.intent, now, source=source, answered_attempt=answered)
    if state is PaymentState.UNKNOWN and attempt is not None and (looked.is_spent or _is_forgotten(attempt, now)):
        return in_transaction(partial(_abandon, tenant_id, payment_id, attempt.attempt, looked, now))
    return state


def _carry_out(
    step: Step, payment: PaymentRow, attempt: AttemptRow | None, gateway: PaymentGateway, now: datetime
) -> Looked | None:
    """Make the one call that this step is; None where there is none to make."""
    intent_id = payment.stripe_payment_intent_id
    if intent_id is None:
        return None
    if step is Step.CANCEL:
        return Looked(gateway.cancel_intent(intent_id, f"pay:{payment.payment_id}:cancel"), is_answer=False)
    if attempt is None:
        return None
    if step is Step.CONFIRM:
        return _confirm(intent_id, attempt, gateway)
    if step in {Step.RECOVER, Step.LOOK}:
        return _recover(intent_id, attempt, gateway, now, may_send=step is Step.RECOVER)
    return None


def _confirm(intent_id: str, attempt: AttemptRow, gateway: PaymentGateway) -> Looked:
    card = attempt.payment_method_id
    faults.reached("collect.before_confirm")
    try:
        intent = gateway.confirm_intent(intent_id, card, attempt.idempotency_key, stored=attempt.parameters)
    except GatewayUnavailable:
        faults.reached("collect.after_confirm")
        raise
    return Looked(intent, is_answer=True)


def _recover(intent_id: str, attempt: AttemptRow, gateway: PaymentGateway, now: datetime, *, may_send: bool) -> Looked:
    """An attempt left open by a crash or a silence is looked up first.

    Only if Stripe never executed it is it sent again, with the same key and the same parameters, and only while
    Stripe is sure to remember the key. Where that brings back a failure that Stripe keeps under the key, a second
    look shows what came of it; if nothing did, nothing ever will.
    """
    intent = gateway.retrieve_intent(intent_id)
    waits_for_us = intent.status in {"requires_payment_method", "requires_confirmation"}
    is_open = waits_for_us and intent.latest_charge_id == attempt.charge_before
    if is_open and may_send and not _is_forgotten(attempt, now):
        try:
            return _confirm(intent_id, attempt, gateway)
        except GatewayUnavailable as error:
            if not error.is_replay:
                raise
            return Looked(gateway.retrieve_intent(intent_id), is_answer=False, is_spent=True)
    return Looked(intent, is_answer=False)


def _is_forgotten(attempt: AttemptRow, now: datetime) -> bool:
    return now - attempt.started_at > KEY_LIVES


def _create_intent(payment: PaymentRow, gateway: PaymentGateway, now: datetime) -> None:
    """Make the payment's intent, or take the one that Stripe has of it already.

    Always looked for first: a database that was put back knows nothing of yesterday's intents, and Stripe forgets
    keys after a day.
    """
    faults.reached("collect.before_create")
    key = f"pay:{payment.payment_id}:create"
    intent = _adoptable(payment, gateway) or gateway.create_intent(_request(payment), key)
    # Before it can be confirmed: an intent of another amount must never be charged.
    check_identity(payment, intent)
    intent_id = intent.stripe_payment_intent_id
    faults.reached("collect.after_create")
    charge_id = intent.latest_charge_id
    in_transaction(lambda c: rows.set_intent(c, payment.tenant_id, payment.payment_id, intent_id, charge_id, now))
    faults.reached("collect.after_intent")
    if intent.is_disputed:
        disputes.look(payment.tenant_id, payment.payment_id, gateway, now)
    if intent.status == "succeeded":
        believe(payment.tenant_id, payment.payment_id, intent, now, source="adopted")


def _adoptable(payment: PaymentRow, gateway: PaymentGateway) -> IntentSnapshot | None:
    """The intent of this payment that Stripe has already, if any, by the id in its metadata.

    Looked for from the start of the period: the row may be younger than the intent, if the database was
    restored and the usage sent again. One that is canceled can collect nothing any more.
    """
    assert payment.stripe_customer_id is not None
    since = min(payment.period_start, payment.created_at)
    if payment.kind == PaymentKind.TOP_UP:
        since = payment.created_at - TOP_UP_REMEMBERED  # whoever asks again under the same key may do so much later
    found = gateway.find_intents(payment.stripe_customer_id, since)
    ours = [one for one in found if one.payment_id == payment.payment_id and one.status != "canceled"]
    return min(ours, key=_how_open, default=None)


def _how_open(intent: IntentSnapshot) -> int:
    """Least for the intent that has collected, or is about to."""
    return {"succeeded": 0, "processing": 1}.get(intent.status, 2)


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


def _note_unknown(
    tenant_id: str, payment_id: UUID, error: GatewayUnavailable, now: datetime, connection: Connection
) -> None:
    """A call that may have been executed leaves an outcome that nobody knows yet; it is asked for ever less often."""
    payment, attempt = _locked(connection, tenant_id, payment_id)
    if payment is None or attempt is None or PaymentState(payment.state) not in IN_THE_DARK:
        return
    if not error.may_have_executed and payment.state == PaymentState.SUBMITTING:
        return
    soonest = timedelta(seconds=settings().unknown_again_seconds)
    again = now + max(soonest, (now - attempt.started_at) / 4)
    move = Move(PaymentState.UNKNOWN, f"no outcome: {error.detail}", again)
    rows.settle(connection, payment, move, now, source="answer")


def _abandon(
    tenant_id: str, payment_id: UUID, worked: int, looked: Looked, now: datetime, connection: Connection
) -> PaymentState | None:
    """An attempt that did nothing, and whose key can do nothing any more. The next one has a key of its own.

    It counts for nothing: only declines use up the schedule. Two attempts can't both collect: an intent succeeds
    once. `worked` is the attempt that was looked at.
    """
    payment, attempt = _locked(connection, tenant_id, payment_id)
    if payment is None or attempt is None or payment.state != PaymentState.UNKNOWN or attempt.attempt != worked:
        return PaymentState(payment.state) if payment else None
    finish(connection, payment, attempt, AttemptState.ABANDONED, looked.intent, now)
    spent, old = (
        "Stripe answers its key with a failure for good",
        "Stripe never had it, and its key is too old to be sent",
    )
    why = f"attempt {worked} did nothing: {spent if looked.is_spent else old}"
    move = Move(PaymentState.RETRY_SCHEDULED, why, now)
    rows.settle(connection, payment, move, now, source="reconciler")
    return PaymentState.RETRY_SCHEDULED


def _set_aside(
    tenant_id: str, payment_id: UUID, worked: int, error: GatewayRejected, now: datetime, connection: Connection
) -> None:
    """Stripe refuses the request itself: nothing has moved. What could be said differently is; the rest, a person's.

    Unless another worker has gone on meanwhile: that stands. `worked` is the attempt that was refused.
    """
    payment, attempt = _locked(connection, tenant_id, payment_id)
    if payment is None or payment.due_at is None or worked != (attempt.attempt if attempt else NO_ATTEMPT):
        return
    code = error.stripe_code or error.code
    why = f"Stripe refuses our request ({code}): {error.message}"
    if attempt is not None and (move := _said_differently(connection, payment, attempt, error, why, now)):
        _finish_unsent(connection, payment, attempt, now)
        rows.settle(connection, payment, move, now, source="answer")
        if move.state is PaymentState.NEEDS_PAYMENT_METHOD:
            payment_alerts.tell(connection, payment, move, now)
        return
    state = PaymentState.UNKNOWN if attempt else PaymentState(payment.state)
    move = Move(state, why, now + REJECTED_AGAIN_AFTER, code, error.message)
    rows.settle(connection, payment, move, now, source="answer")
    subject = str(payment_id)
    raise_alert(connection, tenant_id, AlertKind.STRIPE_REFUSES, subject, why, now, customer_id=payment.customer_id)


def _said_differently(
    connection: Connection, payment: PaymentRow, attempt: AttemptRow, error: GatewayRejected, why: str, now: datetime
) -> Move | None:
    """The next attempt says something else, if the card is gone or changed, or the key is another attempt's.

    A key that came back with other parameters is one of before the database was put back.
    """
    code, card = error.stripe_code or error.code, attempt.payment_method_id
    if error.param == CARD_PARAM:
        collecting.hold_card(connection, payment.tenant_id, payment.customer_id, card, code, now)
    if has_another_card(payment, card) or isinstance(error, GatewayKeyReused):
        return Move(PaymentState.RETRY_SCHEDULED, why, now, code, error.message)
    if error.param == CARD_PARAM:
        return Move(PaymentState.NEEDS_PAYMENT_METHOD, why, None, code, error.message)
    return None


def _finish_unsent(connection: Connection, payment: PaymentRow, attempt: AttemptRow, now: datetime) -> None:
    rows.finish_attempt(
        connection,
        payment,
        attempt.attempt,
        AttemptState.ABANDONED,
        charge_id=None,
        decline=None,
        decline_class=None,
        now=now,
    )


def _locked(connection: Connection, tenant_id: str, payment_id: UUID) -> tuple[PaymentRow | None, AttemptRow | None]:
    payment = rows.lock(connection, tenant_id, payment_id)
    return payment, rows.open_attempt(connection, tenant_id, payment_id) if payment else None
