"""What Stripe tells: kept as it came, then worked by looking at the object again.

Events come at least once, in any order and sometimes never. So an event only says where to look: what it carries
is kept for people and decides nothing. What Stripe could not deliver is fetched.
"""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from billing.errors import DatabaseUnavailable, PaymentNotFound, Stopping, Unavailable
from billing.payments import AlertKind, PaymentState
from config.logging import logger
from config.settings import SettingsMissing, settings
from db import webhooks as rows
from db.alerts import raise_alert
from db.cards import find_customer
from db.session import Connection, in_transaction
from db.webhooks import Owner, WebhookEvent
from payments.gateway import (
    EVENT_TYPES,
    EventSnapshot,
    GatewayMisconfigured,
    GatewayUnavailable,
    IntentSnapshot,
    PaymentGateway,
)
from payments.snapshots import event_of
from services.collecting import cards, disputes, refunds
from services.collecting.sync import believe

log = logger(__name__)

#: An event is handed to a worker as it is kept; only after this does a sweep take it for lost.
HANDED_OVER_WITHIN = timedelta(seconds=15)
#: An event that a sweep has handed out and that nobody finished is handed out again after this.
LEASE = timedelta(minutes=5)
SWEPT_MAX = 500

FIRST_WAIT = timedelta(seconds=30)
LONGEST_WAIT = timedelta(hours=6)
ALERT_AFTER_TRIES = 5
#: Some four days: longer than Stripe itself tries.
TRIES_MAX = 25

#: Stripe tries for three days.
LOOK_BACK = timedelta(days=4)


class Received(NamedTuple):
    """An event that is kept; `is_new` unless it had come before."""

    event_id: str
    is_new: bool


class Outcome(NamedTuple):
    """What came of an event, in words, and which payment it was about."""

    said: str
    owner: Owner | None = None


class Whose(NamedTuple):
    """The payment that an event is about, and (tenant, customer); each None if it is none of ours."""

    payment: Owner | None
    customer: tuple[str, str] | None


def receive(raw: bytes, signature: str | None, now: datetime) -> Received:
    """Keep a delivery of Stripe's, once; to be worked from now on.

    Raises `WebhookRefused` if it is not from Stripe or not of now, `SettingsMissing` without a secret to tell
    by, `DatabaseUnavailable` if it could not be kept: Stripe sends it again.
    """
    from payments.webhooks import verified  # Stripe's library takes memory that usage workers can do without

    secrets = settings().webhook_secrets
    if not secrets:
        raise SettingsMissing("CENTAVO_STRIPE_WEBHOOK_SECRETS is not set; Stripe shows the secret of each endpoint")
    event = verified(raw, signature, secrets, now)
    is_new = _keep(event, "delivered", now + HANDED_OVER_WITHIN, now)
    log.info("webhook received", event_id=event.event_id, type=event.type, is_new=is_new)
    return Received(event.event_id, is_new)


def sweep(now: datetime) -> list[str]:
    """Lease the events that are due: those that no worker was told of, and those to be tried again; their ids."""
    return in_transaction(lambda connection: rows.claim(connection, now, now + LEASE, SWEPT_MAX))


def work(event_id: str, gateway: PaymentGateway, now: datetime) -> str | None:
    """Do what an event asks for; in words what came of it, or None if it is not kept or was worked before.

    Whatever goes wrong is written beside the event, which is due again later. Raises `DatabaseUnavailable`.
    """
    event = in_transaction(lambda connection: rows.find(connection, event_id))
    if event is None or event.worked_at is not None:
        return None
    snapshot = event_of(event.payload)
    whose = in_transaction(lambda connection: _whose(connection, snapshot))
    try:
        outcome = _followed(snapshot, whose.payment, gateway, now)
    except (DatabaseUnavailable, Stopping):
        raise
    except Unavailable as error:
        log.warning("webhook waits", event_id=event_id, error=str(error))
        return _try_again(event, whose, str(error), now, is_outage=True)
    except Exception as error:
        log.exception("webhook can't be worked", event_id=event_id)
        return _try_again(event, whose, f"{type(error).__name__}: {error}", now, is_outage=False)
    return _finish(event_id, outcome, now)


def look_for_missed(gateway: PaymentGateway, now: datetime, *, is_everything: bool = False) -> int:
    """Fetch what Stripe could not deliver; how many events were new. They are due at once.

    Everything, also what was delivered, is for a database that was put back: it has forgotten what it was told.

    Stripe's list is read whole first: a page that fails loses nothing that the next look would not find. What
    Stripe never made an event of is for `services.collecting.reconcile`.
    """
    try:
        missed = list(gateway.missed_events(now - LOOK_BACK, is_everything=is_everything))
    except (GatewayUnavailable, GatewayMisconfigured) as error:
        log.warning("stripe can't say what was missed; the next look comes", error=str(error))
        return 0
    fetched = sum(_keep(event, "fetched", now, now) for event in missed)
    log.info("looked for missed webhooks", undelivered=len(missed), fetched=fetched)
    return fetched


def _keep(event: EventSnapshot, source: str, due_at: datetime, now: datetime) -> bool:
    def work(connection: Connection) -> bool:
        return rows.store(
            connection,
            event.event_id,
            event.type,
            event.payload,
            event.created_at,
            source=source,
            due_at=due_at,
            now=now,
        )

    return in_transaction(work)


def _whose(connection: Connection, event: EventSnapshot) -> Whose:
    if owner := _owner(connection, event):
        return Whose(owner, (owner.tenant_id, owner.customer_id))
    known = find_customer(connection, event.stripe_customer_id) if event.stripe_customer_id else None
    return Whose(None, known)


def _owner(connection: Connection, event: EventSnapshot) -> Owner | None:
    """By the metadata, which was committed before Stripe ever heard of the payment; else by the intent."""
    if event.payment_id is not None and (owner := rows.owner_by_payment(connection, event.payment_id)):
        return owner
    return rows.owner_by_intent(connection, event.payment_intent_id) if event.payment_intent_id else None


def _followed(event: EventSnapshot, owner: Owner | None, gateway: PaymentGateway, now: datetime) -> Outcome:
    """The one place that says which event leads where."""
    if event.type not in EVENT_TYPES:
        return Outcome(f"ignored: events of type {event.type} are not followed")
    if event.environment is not None and event.environment != settings().environment:
        return Outcome(f"ignored: of environment {event.environment!r}")
    family = event.type.rpartition(".")[0]
    match family:
        case "payment_intent" | "charge":
            return _payment(event, owner, gateway, now)
        case "charge.dispute":
            return _dispute(event, owner, gateway, now)
        case "refund":
            return _refund(owner, gateway, now)
        case _:
            return Outcome(_card(event, gateway, now))


def _payment(event: EventSnapshot, owner: Owner | None, gateway: PaymentGateway, now: datetime) -> Outcome:
    intent_id = event.payment_intent_id
    if owner is None and event.payment_id is not None and event.environment is not None:
        # Ours, and not here: the database was put back. It may come again with its usage, or a person must look.
        raise PaymentNotFound(payment=str(event.payment_id), intent=intent_id)
    if owner is None or intent_id is None:
        return Outcome("ignored: no payment of ours")
    intent = gateway.retrieve_intent(intent_id)
    if owner.stripe_payment_intent_id not in {None, intent_id}:
        return _stray(owner, intent, now)
    state = _as_it_stands(owner, intent, gateway, now)
    if intent.is_disputed:
        disputes.look(owner.tenant_id, owner.payment_id, gateway, now)
    return Outcome(f"the intent is {intent.status}, the payment is {state}", owner)


def _as_it_stands(owner: Owner, intent: IntentSnapshot, gateway: PaymentGateway, now: datetime) -> PaymentState | None:
    """Move the payment to where its intent is.

    If something went back, its refunds move along: one that we asked for and that was made would count twice else.
    """
    state = None
    if not intent.refunded_minor or owner.stripe_payment_intent_id is None:
        state = believe(owner.tenant_id, owner.payment_id, intent, now, source="webhook")
    if intent.refunded_minor:
        state = refunds.look(owner.tenant_id, owner.payment_id, gateway, now)
    return state


def _stray(owner: Owner, intent: IntentSnapshot, now: datetime) -> Outcome:
    """A second intent of one payment is harmless as long as it collects nothing; then a person must look."""
    intent_id = intent.stripe_payment_intent_id
    said = f"{intent_id} ({intent.status}) is not the intent of payment {owner.payment_id}"
    if intent.status == "succeeded":
        detail = f"{said}, and has collected"
        in_transaction(
            lambda connection: _alert(connection, owner.tenant_id, owner.customer_id, intent_id, detail, now)
        )
    return Outcome(f"ignored: {said}", owner)


def _refund(owner: Owner | None, gateway: PaymentGateway, now: datetime) -> Outcome:
    if owner is None:
        return Outcome("ignored: no payment of ours")
    refunds.look(owner.tenant_id, owner.payment_id, gateway, now)
    return Outcome("its refunds were looked at", owner)


def _dispute(event: EventSnapshot, owner: Owner | None, gateway: PaymentGateway, now: datetime) -> Outcome:
    if owner is None:
        return Outcome("ignored: no payment of ours")
    dispute = gateway.retrieve_dispute(event.object_id)
    disputes.record(owner.tenant_id, owner.payment_id, dispute, gateway, now)
    return Outcome(f"the dispute is {dispute.status}", owner)


def _card(event: EventSnapshot, gateway: PaymentGateway, now: datetime) -> str:
    match event.type:
        case "setup_intent.succeeded":
            return cards.completed_setup(event.object_id, event.created_at, gateway, now)
        case "payment_method.attached":
            return cards.attached(event.object_id, event.created_at, gateway, now)
        case "payment_method.detached":
            return cards.detached(event.object_id, now)
        case _:
            return cards.updated(event.object_id, event.created_at, gateway, now)


def _finish(event_id: str, outcome: Outcome, now: datetime) -> str:
    payment_id: UUID | None = outcome.owner.payment_id if outcome.owner else None
    in_transaction(lambda connection: rows.finish(connection, event_id, outcome.said, payment_id, now))
    log.info("webhook worked", event_id=event_id, outcome=outcome.said)
    return outcome.said


def _try_again(event: WebhookEvent, whose: Whose, why: str, now: datetime, *, is_outage: bool) -> str:
    """Count the try; say so to a person at once if it is no outage, or when it has lasted; give up in the end."""
    tries = event.tries + 1
    is_last = tries >= TRIES_MAX
    said = f"given up at try {tries}: {why}" if is_last else f"try {tries}: {why}"
    payment_id = whose.payment.payment_id if whose.payment else None

    def write(connection: Connection) -> None:
        if is_last:
            rows.finish(connection, event.event_id, said, payment_id, now)
        else:
            due_at = now + min(FIRST_WAIT * 2 ** (tries - 1), LONGEST_WAIT)
            rows.try_again(connection, event.event_id, said, payment_id, due_at)
        if whose.customer and (tries >= ALERT_AFTER_TRIES or not is_outage):
            _alert(connection, *whose.customer, event.event_id, f"{event.type}: {said}", now)

    in_transaction(write)
    return said


def _alert(connection: Connection, tenant_id: str, customer_id: str, subject: str, detail: str, now: datetime) -> None:
    kind = AlertKind.WEBHOOK_UNWORKABLE
    raise_alert(connection, tenant_id, kind, subject, detail, now, customer_id=customer_id)
