"""Everything the double knows, in memory: the objects, its clock, and the money it captured."""

import secrets
import string
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from sandbox.stripe_double.cards import BY_METHOD_TOKEN, CardDecline, TestCard
from sandbox.stripe_double.errors import Json, no_such

ALPHABET = string.ascii_letters + string.digits


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
    """A card. Spent (detached, or charged without a customer) it can't be used again."""

    id: str
    created: int
    card: TestCard
    exp_month: int = 12
    exp_year: int = 2034
    customer: str | None = None
    spent: bool = False
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Charge:
    """One try to take money from a card; `decline` is None when it worked."""

    id: str
    created: int
    intent: "PaymentIntent"
    method: PaymentMethod
    amount: int
    decline: CardDecline | None = None


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


Held = TypeVar("Held", Customer, PaymentMethod, PaymentIntent, Charge)


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
        self.customers: dict[str, Customer] = {}
        self.payment_methods: dict[str, PaymentMethod] = {}
        self.payment_intents: dict[str, PaymentIntent] = {}
        self.charges: dict[str, Charge] = {}

    def customer(self, customer_id: str, param: str = "id", status: int = 404) -> Customer:
        return _found(self.customers, "customer", customer_id, param, status)

    def payment_intent(self, intent_id: str) -> PaymentIntent:
        return _found(self.payment_intents, "payment_intent", intent_id, "intent")

    def charge(self, charge_id: str) -> Charge:
        return _found(self.charges, "charge", charge_id, "charge")

    def payment_method(self, id_or_token: str, status: int = 404) -> PaymentMethod:
        """The payment method of this id; a test token makes a new one each time."""
        if id_or_token in BY_METHOD_TOKEN:
            return self.add_payment_method(BY_METHOD_TOKEN[id_or_token])
        return _found(self.payment_methods, "PaymentMethod", id_or_token, "payment_method", status)

    def add_payment_method(self, card: TestCard) -> PaymentMethod:
        method = PaymentMethod(id=new_id("pm_1"), created=self.clock.now(), card=card)
        self.payment_methods[method.id] = method
        return method

    def add_charge(self, intent: PaymentIntent, method: PaymentMethod, decline: CardDecline | None) -> Charge:
        charge = Charge(new_id("ch_3"), self.clock.now(), intent, method, intent.amount, decline)
        self.charges[charge.id] = charge
        intent.latest_charge = charge.id
        return charge

    def captured(self) -> Json:
        """What was really taken, by `metadata.payment_id`: the figure every test of money ends with."""
        taken = [charge for charge in self.charges.values() if charge.decline is None]
        payments: dict[str, Json] = {}
        for charge in taken:
            payment_id = charge.intent.metadata.get("payment_id", f"unnamed:{charge.intent.id}")
            entry = payments.setdefault(payment_id, _nothing_captured(charge.intent.currency))
            entry["amount_minor"] += charge.amount
            entry["successes"] += 1
            entry["stripe_payment_intent_ids"].append(charge.intent.id)
        return {"payments": payments, "totals": _totals(taken)}


def _nothing_captured(currency: str) -> Json:
    return {"currency": currency, "amount_minor": 0, "successes": 0, "stripe_payment_intent_ids": []}


def _totals(taken: Iterable[Charge]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for charge in taken:
        totals[charge.intent.currency] = totals.get(charge.intent.currency, 0) + charge.amount
    return totals


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
