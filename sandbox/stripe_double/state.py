"""Everything the double knows, in memory: the objects, its clock, and what happened."""

import secrets
import string
import time
from typing import TypeVar

from sandbox.stripe_double.cards import CardDecline, TestCard
from sandbox.stripe_double.errors import Json, no_such
from sandbox.stripe_double.objects import (
    Charge,
    Customer,
    Dispute,
    Event,
    PaymentIntent,
    PaymentMethod,
    Refund,
    SetupIntent,
    WebhookEndpoint,
)
from sandbox.stripe_double.scripts import CardBook

ALPHABET = string.ascii_letters + string.digits

Held = TypeVar("Held")


class Clock:
    """The double's own time, so that a test can cross the 24 hours after which keys are forgotten."""

    def __init__(self) -> None:
        self.offset_seconds = 0

    def now(self) -> int:
        return int(time.time()) + self.offset_seconds


class Store:
    """The objects by id, oldest first."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cards = CardBook()
        self.customers: dict[str, Customer] = {}
        self.payment_methods: dict[str, PaymentMethod] = {}
        self.payment_intents: dict[str, PaymentIntent] = {}
        self.setup_intents: dict[str, SetupIntent] = {}
        self.charges: dict[str, Charge] = {}
        self.refunds: dict[str, Refund] = {}
        self.disputes: dict[str, Dispute] = {}
        self.events: dict[str, Event] = {}
        self.webhook_endpoints: dict[str, WebhookEndpoint] = {}
        self._emitted: list[Event] = []

    def customer(self, customer_id: str, param: str = "id", status: int = 404) -> Customer:
        return _found(self.customers, "customer", customer_id, param, status)

    def payment_intent(self, intent_id: str, param: str = "intent", status: int = 404) -> PaymentIntent:
        return _found(self.payment_intents, "payment_intent", intent_id, param, status)

    def setup_intent(self, intent_id: str) -> SetupIntent:
        return _found(self.setup_intents, "setupintent", intent_id, "intent")

    def charge(self, charge_id: str, status: int = 404) -> Charge:
        return _found(self.charges, "charge", charge_id, "charge", status)

    def refund(self, refund_id: str) -> Refund:
        return _found(self.refunds, "refund", refund_id, "refund")

    def dispute(self, dispute_id: str) -> Dispute:
        return _found(self.disputes, "dispute", dispute_id, "dispute")

    def event(self, event_id: str) -> Event:
        return _found(self.events, "event", event_id, "id")

    def webhook_endpoint(self, endpoint_id: str) -> WebhookEndpoint:
        return _found(self.webhook_endpoints, "webhook endpoint", endpoint_id, "webhook_endpoint")

    def payment_method(self, id_or_token: str, status: int = 404) -> PaymentMethod:
        """The payment method of this id; a test token makes a new one each time."""
        card = self.cards.of_method_token(id_or_token)
        if card is not None:
            return self.add_payment_method(card)
        return _found(self.payment_methods, "PaymentMethod", id_or_token, "payment_method", status)

    def add_payment_method(self, card: TestCard) -> PaymentMethod:
        method = PaymentMethod(id=new_id("pm_1"), created=self.clock.now(), card=card)
        self.payment_methods[method.id] = method
        return method

    def add_charge(
        self, intent: PaymentIntent, method: PaymentMethod, decline: CardDecline | None, *, is_pending: bool = False
    ) -> Charge:
        charge = Charge(new_id("ch_3"), self.clock.now(), intent, method, intent.amount, decline, is_pending)
        self.charges[charge.id] = charge
        intent.latest_charge = charge.id
        return charge

    def emit(self, event_type: str, shown: Json, previous: Json | None = None) -> None:
        """Note that something happened; every endpoint that wants to know waits for it from now on."""
        event = Event(new_id("evt_1"), self.clock.now(), event_type, shown, previous, None, None)
        event.waiting = {one.id for one in self.webhook_endpoints.values() if one.wants(event_type)}
        self.events[event.id] = event
        self._emitted.append(event)

    def take_emitted(self) -> list[Event]:
        """What happened since this was asked last. Nothing may be awaited between the deed and this."""
        taken, self._emitted = self._emitted, []
        return taken


def _found(held: dict[str, Held], kind: str, object_id: str, param: str, status: int = 404) -> Held:
    if object_id not in held:
        raise no_such(kind, object_id, param, status=status)
    return held[object_id]


def new_id(prefix: str) -> str:
    """An id that looks like Stripe's: `pi_3` and 24 letters and digits."""
    separator = "" if prefix[-1].isdigit() else "_"
    return prefix + separator + "".join(secrets.choice(ALPHABET) for _ in range(24))


def merge_metadata(held: dict[str, str], sent: dict[str, str] | None) -> dict[str, str]:
    """Stripe merges what is sent: an empty value removes its key, None removes all."""
    if sent is None:
        return {}
    return {key: value for key, value in {**held, **sent}.items() if value != ""}
