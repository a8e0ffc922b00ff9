"""What the double holds: Stripe's objects, with no more in them than it needs to behave like Stripe."""

from dataclasses import dataclass, field

from sandbox.stripe_double.cards import CardDecline, TestCard
from sandbox.stripe_double.errors import Json


@dataclass
class Customer:
    id: str
    created: int
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    description: str | None = None
    default_payment_method: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class PaymentMethod:
    """A card. Spent (detached, or charged without a customer) it can't be used again.

    Set up by a SetupIntent, a card that asks for authentication once has got it.
    """

    id: str
    created: int
    card: TestCard
    exp_month: int = 12
    exp_year: int = 2034
    customer: str | None = None
    spent: bool = False
    is_set_up: bool = False
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Charge:
    """One try to take money from a card: pending, or declined, or it worked."""

    id: str
    created: int
    intent: "PaymentIntent"
    method: PaymentMethod
    amount: int
    decline: CardDecline | None = None
    is_pending: bool = False
    amount_refunded: int = 0
    dispute: "Dispute | None" = None

    @property
    def is_paid(self) -> bool:
        return self.decline is None and not self.is_pending

    @property
    def status(self) -> str:
        if self.is_pending:
            return "pending"
        return "succeeded" if self.is_paid else "failed"


@dataclass
class PaymentIntent:
    id: str
    created: int
    amount: int
    currency: str
    client_secret: str
    status: str = "requires_payment_method"
    customer: str | None = None
    description: str | None = None
    statement_descriptor_suffix: str | None = None
    receipt_email: str | None = None
    allowed_payment_method_types: list[str] | None = None
    automatic_payment_methods: Json | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    payment_method: str | None = None
    last_payment_error: Json | None = None
    latest_charge: str | None = None
    next_action: Json | None = None
    canceled_at: int | None = None
    cancellation_reason: str | None = None


@dataclass
class SetupIntent:
    """A card made ready to be charged while its customer is away."""

    id: str
    created: int
    client_secret: str
    usage: str = "off_session"
    status: str = "requires_payment_method"
    customer: str | None = None
    description: str | None = None
    allowed_payment_method_types: list[str] | None = None
    automatic_payment_methods: Json | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    payment_method: str | None = None
    last_setup_error: Json | None = None
    next_action: Json | None = None
    cancellation_reason: str | None = None


@dataclass
class Refund:
    id: str
    created: int
    charge: Charge
    amount: int
    reason: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Dispute:
    """The customer's bank takes the money back; it stays there unless the dispute is won."""

    id: str
    created: int
    charge: Charge
    amount: int
    reason: str = "fraudulent"
    status: str = "needs_response"

    @property
    def is_closed(self) -> bool:
        return self.status in {"won", "lost"}


@dataclass
class WebhookEndpoint:
    id: str
    created: int
    url: str
    secret: str
    enabled_events: list[str]
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def wants(self, event_type: str) -> bool:
        return "*" in self.enabled_events or event_type in self.enabled_events


@dataclass
class Event:
    """A fact, with the object as it was then, and the endpoints that have not acknowledged it yet."""

    id: str
    created: int
    type: str
    shown: Json
    previous: Json | None
    request_id: str | None
    idempotency_key: str | None
    waiting: set[str] = field(default_factory=set)
