"""Stripe's objects as JSON, in our words: the answers of calls and the objects in events alike."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from payments.gateway import (
    CardSnapshot,
    Decline,
    DisputeSnapshot,
    EventSnapshot,
    IntentSnapshot,
    RefundSnapshot,
    SetupIntentSnapshot,
)

Json = Mapping[str, Any]


def intent_of(intent: Json) -> IntentSnapshot:
    """A PaymentIntent; what only its latest charge tells is there if that was expanded."""
    metadata = intent.get("metadata") or {}
    charge = intent.get("latest_charge")
    expanded = charge if isinstance(charge, Mapping) else {}
    last_error = intent.get("last_payment_error")
    return IntentSnapshot(
        stripe_payment_intent_id=intent["id"],
        status=intent["status"],
        amount_minor=intent["amount"],
        currency=intent["currency"].upper(),
        latest_charge_id=expanded.get("id", charge),
        decline=decline_of(last_error, reason_of(expanded)) if last_error else None,
        payment_id=uuid_of(metadata.get("payment_id")),
        environment=metadata.get("environment"),
        refunded_minor=expanded.get("amount_refunded") or 0,
        is_disputed=bool(expanded.get("disputed")),
    )


def decline_of(told: Json, outcome_reason: str | None) -> Decline:
    """The decline that an error tells."""
    return Decline(
        code=told.get("code"),
        decline_code=told.get("decline_code"),
        advice_code=told.get("advice_code"),
        network_advice_code=told.get("network_advice_code"),
        outcome_reason=outcome_reason,
        message=told.get("message"),
    )


def reason_of(charge: Json) -> str | None:
    """Why a charge came out as it did."""
    reason: str | None = (charge.get("outcome") or {}).get("reason")
    return reason


def refund_of(refund: Json) -> RefundSnapshot:
    """A refund. Stripe may leave the status out; then it is not final."""
    return RefundSnapshot(
        stripe_refund_id=refund["id"],
        status=refund.get("status") or "pending",
        amount_minor=refund["amount"],
        failure_reason=refund.get("failure_reason"),
        refund_id=uuid_of((refund.get("metadata") or {}).get("refund_id")),
    )


def dispute_of(dispute: Json) -> DisputeSnapshot:
    """A dispute."""
    return DisputeSnapshot(
        stripe_dispute_id=dispute["id"],
        status=dispute["status"],
        amount_minor=dispute["amount"],
        reason=dispute.get("reason"),
        stripe_payment_intent_id=id_of(dispute.get("payment_intent")),
        opened_at=moment_of(dispute["created"]),
    )


def setup_intent_of(setup: Json) -> SetupIntentSnapshot:
    """A SetupIntent."""
    return SetupIntentSnapshot(
        setup_intent_id=setup["id"],
        status=setup["status"],
        client_secret=setup.get("client_secret"),
        payment_method_id=id_of(setup.get("payment_method")),
        stripe_customer_id=id_of(setup.get("customer")),
    )


def card_of(method: Json) -> CardSnapshot:
    """A payment method; one that is no card has neither brand nor number's end nor expiry."""
    card = method.get("card") or {}
    return CardSnapshot(
        payment_method_id=method["id"],
        stripe_customer_id=id_of(method.get("customer")),
        brand=card.get("brand"),
        last4=card.get("last4"),
        exp_month=card.get("exp_month"),
        exp_year=card.get("exp_year"),
    )


def event_of(event: Json) -> EventSnapshot:
    """An event. Raises KeyError, TypeError, AttributeError, ValueError or OverflowError if it is none."""
    about = event["data"]["object"]
    kind = str(about["object"])
    metadata = about.get("metadata") or {}
    intent = about["id"] if kind == "payment_intent" else about.get("payment_intent")
    return EventSnapshot(
        event_id=str(event["id"]),
        type=str(event["type"]),
        created_at=moment_of(event["created"]),
        object_id=str(about["id"]),
        object_kind=kind,
        payment_intent_id=id_of(intent),
        stripe_customer_id=id_of(about.get("customer")),
        payment_id=uuid_of(metadata.get("payment_id")),
        environment=metadata.get("environment"),
        payload=dict(event),
    )


def moment_of(seconds: int) -> datetime:
    """Stripe tells times in whole seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def id_of(shown: str | Json | None) -> str | None:
    """The id of an object that is shown as its id, or whole."""
    return shown["id"] if isinstance(shown, Mapping) else shown


def uuid_of(text: object) -> UUID | None:
    """A stranger's metadata may hold anything; then it is nothing of ours."""
    with suppress(ValueError):
        return UUID(text) if isinstance(text, str) else None
    return None
