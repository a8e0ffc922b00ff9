"""What Centavo asks of whoever moves the money, in its own words.

No type of Stripe's library is named here, so that services and tests speak of intents, cards and
declines without importing it. Amounts are integer minor units; currencies are ISO codes in capitals
(`BRL`); times carry a zone.

A definite decline is a *value*: it is an answer, and the dunning schedule decides what follows. The errors
are the cases that answer nothing::

    Unavailable
    ├── GatewayUnavailable      no answer, or none yet: same key, same parameters, later
    └── GatewayMisconfigured    our key is refused: stop collecting, tell a person
    Rejected
    ├── GatewayRejected         our request is wrong: a bug of ours
    │   └── GatewayKeyReused    an idempotency key came back with other parameters
    └── WebhookRefused          a delivery that is not what it says, or not of now
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from billing.errors import Rejected, Unavailable

#: The body of a call, as JSON: store it before the call, and send the same again after a crash.
Parameters = dict[str, Any]


class GatewayUnavailable(Unavailable):
    """Stripe did not answer, or not with an outcome.

    `reason` is one of `connection`, `rate_limited`, `in_progress` (the same key is being executed, or the
    object is locked) and `server_error`. `may_have_executed` is False only if no try of this call can have
    reached execution; otherwise the outcome is unknown: retrieve, or repeat with the same key.
    `is_replay`: Stripe keeps this failure as the key's answer, and will give no other; what the call has done,
    it has done.
    """

    def __init__(self, detail: str, *, reason: str, may_have_executed: bool, is_replay: bool = False) -> None:
        self.reason = reason
        self.may_have_executed = may_have_executed
        self.is_replay = is_replay
        super().__init__(detail, reason=reason, may_have_executed=may_have_executed, is_replay=is_replay)


class GatewayMisconfigured(Unavailable):
    """Stripe refuses our key; nothing can be collected until it is put right."""


class GatewayRejected(Rejected):
    """Stripe refuses this request as wrong; repeating it can't help."""

    code = "gateway_rejected"

    def __init__(self, message: str, *, stripe_code: str | None, param: str | None) -> None:
        self.message = message
        self.stripe_code = stripe_code
        self.param = param
        super().__init__(message, stripe_code=stripe_code, param=param)


class GatewayKeyReused(GatewayRejected):
    """An idempotency key was sent again with other parameters: retrieve the intent, and find the bug."""

    code = "gateway_key_reused"


class WebhookProblem(StrEnum):
    """Why a webhook is refused. The words are API: they are the codes of the answer."""

    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_WRONG = "signature_wrong"
    STALE = "stale"
    FUTURE = "future"
    NOT_JSON = "not_json"
    NOT_AN_EVENT = "not_an_event"


class WebhookRefused(Rejected):
    """This webhook can't be believed, or is no event."""

    code = "webhook_refused"

    def __init__(self, message: str, *, problem: WebhookProblem) -> None:
        self.problem = problem
        super().__init__(message, problem=problem.value)


#: What we ask Stripe to tell us, and look for when it could not.
EVENT_TYPES = (
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.canceled",
    "charge.refunded",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    "payment_method.automatically_updated",
    "payment_method.attached",
    "payment_method.detached",
    "setup_intent.succeeded",
)


@dataclass(frozen=True, slots=True)
class Decline:
    """Why a card was not charged, as Stripe tells it. `payments.classify` says what it means for us."""

    code: str | None
    decline_code: str | None = None
    advice_code: str | None = None
    network_advice_code: str | None = None
    outcome_reason: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class IntentSnapshot:
    """A PaymentIntent as it stood at one moment.

    `status` is one of Stripe's: succeeded, processing, requires_payment_method, requires_confirmation,
    requires_action, requires_capture, canceled. `decline` is the last one, while Stripe remembers it.
    `payment_id` and `environment` come from the metadata and are None on an intent that isn't ours.
    `refunded_minor` and `is_disputed` are the latest charge's, and are known only where Stripe sent it whole: in
    every answer of a gateway to a look, a confirmation or a cancellation.
    """

    stripe_payment_intent_id: str
    status: str
    amount_minor: int
    currency: str
    latest_charge_id: str | None
    decline: Decline | None
    payment_id: UUID | None
    environment: str | None
    refunded_minor: int = 0
    is_disputed: bool = False


@dataclass(frozen=True, slots=True)
class RefundSnapshot:
    """A refund as it stood at one moment.

    `status` is one of Stripe's: pending, requires_action, succeeded, failed, canceled. `refund_id` comes from
    the metadata and is None on a refund that was made elsewhere, by hand for example.
    """

    stripe_refund_id: str
    status: str
    amount_minor: int
    failure_reason: str | None
    refund_id: UUID | None


@dataclass(frozen=True, slots=True)
class DisputeSnapshot:
    """A dispute as it stood at one moment; `status` is one of `billing.payments.DisputeStatus`."""

    stripe_dispute_id: str
    status: str
    amount_minor: int
    reason: str | None
    stripe_payment_intent_id: str | None
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class SetupIntentSnapshot:
    """A SetupIntent as it stood at one moment: how a customer gives a card for charges while they are away.

    `client_secret` is for the customer's browser; it is not logged. `payment_method_id`
    is there once a card was given, `stripe_customer_id` says whose.
    """

    setup_intent_id: str
    status: str
    client_secret: str | None = field(repr=False)
    payment_method_id: str | None
    stripe_customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class CardSnapshot:
    """A card as Stripe knows it; never its number. Without a customer it is detached, or not attached yet."""

    payment_method_id: str
    stripe_customer_id: str | None
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None


@dataclass(frozen=True, slots=True)
class EventSnapshot:
    """What happened at Stripe, as it was then: whoever acts on it looks at the object again.

    `object_kind` is Stripe's word for what `object_id` is, such as `payment_intent` or `dispute`.
    `payment_intent_id` is the intent that it is about, if any, and `stripe_customer_id` whose it is; `payment_id`
    and `environment` come from the object's metadata. `payload` is the event as JSON, whole.
    """

    event_id: str
    type: str
    created_at: datetime
    object_id: str
    object_kind: str
    payment_intent_id: str | None
    stripe_customer_id: str | None
    payment_id: UUID | None
    environment: str | None
    payload: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class IntentRequest:
    """What an intent is created from. `tier` is 0 for a payment that isn't a tier's."""

    payment_id: UUID
    amount_minor: int
    currency: str
    stripe_customer_id: str
    statement_descriptor_suffix: str
    description: str
    kind: str
    period: str
    tier: int
    environment: str


def create_parameters(request: IntentRequest) -> Parameters:
    """The exact body that creates an unconfirmed intent, cards only.

    Unconfirmed, because an intent succeeds at most once: that holds for ever, while Stripe remembers an
    idempotency key for a day. Only the descriptor's suffix is sent: cards refuse a whole one.
    """
    return {
        "amount": request.amount_minor,
        "currency": request.currency.lower(),
        "customer": request.stripe_customer_id,
        "allowed_payment_method_types": ["card"],
        "statement_descriptor_suffix": request.statement_descriptor_suffix,
        "description": request.description,
        "metadata": {
            "payment_id": str(request.payment_id),
            "kind": request.kind,
            "period": request.period,
            "tier": str(request.tier),
            "environment": request.environment,
        },
    }


def confirm_parameters(payment_method: str) -> Parameters:
    """The exact body that charges a card while the customer is away.

    The card is named each time, because a decline clears it from the intent.
    """
    return {
        "payment_method": payment_method,
        "off_session": True,
        "error_on_requires_action": True,
        "expand": ["latest_charge"],
    }


def setup_parameters(stripe_customer_id: str, metadata: dict[str, str]) -> Parameters:
    """The body that begins to take a card: for charges while the customer is away, cards only."""
    return {
        "customer": stripe_customer_id,
        "allowed_payment_method_types": ["card"],
        "usage": "off_session",
        "metadata": metadata,
    }


def refund_parameters(stripe_payment_intent_id: str, amount_minor: int, metadata: dict[str, str]) -> Parameters:
    """The exact body that gives money back: the amount is always said, for "the rest" means another sum each time."""
    return {"payment_intent": stripe_payment_intent_id, "amount": amount_minor, "metadata": metadata}


class PaymentGateway(Protocol):
    """The few verbs Centavo needs. Every one may raise the errors of this module.

    An idempotency key belongs to one body. Whoever repeats a call hands over the stored one as `stored`;
    it is then sent as it is, so that a new release can't change it between two tries.
    """

    def create_intent(
        self, request: IntentRequest, idempotency_key: str, *, stored: Parameters | None = None
    ) -> IntentSnapshot:
        """Create an intent without confirming it; the same key gives the same intent for 24 hours."""
        ...

    def confirm_intent(
        self,
        stripe_payment_intent_id: str,
        payment_method: str,
        idempotency_key: str,
        *,
        stored: Parameters | None = None,
    ) -> IntentSnapshot:
        """Charge a card. A decline comes back in the snapshot; an intent already final, as it stands."""
        ...

    def retrieve_intent(self, stripe_payment_intent_id: str) -> IntentSnapshot:
        """Look at an intent as it stands now."""
        ...

    def cancel_intent(self, stripe_payment_intent_id: str, idempotency_key: str) -> IntentSnapshot:
        """Cancel an intent, if it still can be; otherwise its state as it stands (it may have succeeded)."""
        ...

    def find_intents(self, stripe_customer_id: str, created_since: datetime) -> list[IntentSnapshot]:
        """A customer's intents created at or after a time, newest first: for adoption by `payment_id`."""
        ...

    def create_customer(
        self, name: str, metadata: dict[str, str], idempotency_key: str, *, email: str | None = None
    ) -> str:
        """Create a customer at Stripe and return its id (`cus_…`)."""
        ...

    def find_customer(self, metadata: tuple[str, str]) -> str | None:
        """A customer's id by one (name, value) of their metadata, or None; what is a minute old may be missed."""
        ...

    def attach_payment_method(
        self, stripe_customer_id: str, payment_method: str, idempotency_key: str | None = None
    ) -> str:
        """Give a customer a card (or a test token) and return its id (`pm_…`).

        A card that is refused already now is a `GatewayRejected` with Stripe's code.
        """
        ...

    def detach_payment_method(self, payment_method_id: str) -> CardSnapshot:
        """Take a card from its customer for good; one that is detached already, as it stands."""
        ...

    def retrieve_payment_method(self, payment_method_id: str) -> CardSnapshot:
        """Look at a card as it stands now."""
        ...

    def create_setup_intent(
        self, stripe_customer_id: str, metadata: dict[str, str], idempotency_key: str
    ) -> SetupIntentSnapshot:
        """Begin to take a card for charges while the customer is away; cards only."""
        ...

    def retrieve_setup_intent(self, setup_intent_id: str) -> SetupIntentSnapshot:
        """Look at a SetupIntent as it stands now."""
        ...

    def create_refund(
        self, stripe_payment_intent_id: str, amount_minor: int, metadata: dict[str, str], idempotency_key: str
    ) -> RefundSnapshot:
        """Give back so much of a payment. More than is left of it is a `GatewayRejected` with Stripe's code.

        `metadata` carries our `refund_id`, by which `find_refunds` recognises it when its key is forgotten.
        """
        ...

    def find_refunds(self, stripe_payment_intent_id: str) -> list[RefundSnapshot]:
        """Every refund of an intent, newest first, also those made by hand."""
        ...

    def retrieve_dispute(self, stripe_dispute_id: str) -> DisputeSnapshot:
        """Look at a dispute as it stands now."""
        ...

    def find_disputes(self, stripe_payment_intent_id: str) -> list[DisputeSnapshot]:
        """Every dispute of an intent, newest first."""
        ...

    def missed_events(self, since: datetime, *, is_everything: bool = False) -> Iterator[EventSnapshot]:
        """Events of `EVENT_TYPES` since then that Stripe could not deliver, or not yet; or all. Newest first."""
        ...
