"""What confirming a payment intent does: success, decline, waiting, or a customer who has to authenticate.

Sources: https://docs.stripe.com/payments/paymentintents/lifecycle and
https://docs.stripe.com/payments/without-card-authentication
"""

from collections.abc import Mapping
from typing import Any

from sandbox.stripe_double.cards import AUTHENTICATION_NOT_HANDLED, AUTHENTICATION_REQUIRED, GENERIC, CardDecline
from sandbox.stripe_double.disputes import open_dispute
from sandbox.stripe_double.errors import ApiError, invalid_request
from sandbox.stripe_double.objects import Charge, PaymentIntent, PaymentMethod
from sandbox.stripe_double.payment_methods import decline_facts, refused, unusable
from sandbox.stripe_double.render import payment_intent_json, payment_method_json
from sandbox.stripe_double.scripts import decline_of
from sandbox.stripe_double.state import Store
from sandbox.stripe_double.wishes import Step

CONFIRMABLE = frozenset({"requires_payment_method", "requires_confirmation", "requires_action"})


def confirm_intent(store: Store, intent: PaymentIntent, params: Mapping[str, Any]) -> None:
    """Charge the card, once: a succeeded or canceled intent is never confirmed again."""
    if intent.status not in CONFIRMABLE:
        raise unexpected_state(intent, f"A PaymentIntent that is {intent.status} can't be confirmed.")
    _refuse_redirects(intent, params)
    method = _method_for(store, intent, params.get("payment_method"))
    intent.payment_method, intent.last_payment_error = method.id, None
    step = store.cards.next_step(method, intent.customer)
    match step.do if step else _own_way(method):
        case "authenticate":
            _authenticate(store, intent, method, params)
        case "decline":
            decline = decline_of(step) if step else method.card.decline or GENERIC
            raise declined(store, intent, method, decline, store.add_charge(intent, method, decline))
        case "processing":
            _wait(store, intent, method)
        case _:
            succeed(store, intent, store.add_charge(intent, method, None))


def unexpected_state(intent: PaymentIntent, message: str) -> ApiError:
    shown = payment_intent_json(intent)
    return invalid_request(message, code="payment_intent_unexpected_state", payment_intent=shown)


def succeed(store: Store, intent: PaymentIntent, charge: Charge) -> None:
    """The money is taken. A card that its holder disputes is disputed at once."""
    intent.status, intent.next_action = "succeeded", None
    charge.method.spent = charge.method.customer is None
    store.emit("payment_intent.succeeded", payment_intent_json(intent))
    if charge.method.card.is_disputed:
        open_dispute(store, charge)


def declined(
    store: Store, intent: PaymentIntent, method: PaymentMethod, decline: CardDecline, charge: Charge | None
) -> ApiError:
    """The decline as an error; the intent is left without a payment method, so every retry names one."""
    shown = payment_method_json(method)
    charged = {"charge": charge.id} if charge else {}
    intent.status, intent.payment_method, intent.next_action = "requires_payment_method", None, None
    intent.last_payment_error = {
        "type": "card_error",
        "message": decline.message,
        "payment_method": shown,
        **charged,
        **decline_facts(decline),
    }
    store.emit("payment_intent.payment_failed", payment_intent_json(intent))
    return refused(decline, payment_intent=payment_intent_json(intent), payment_method=shown, **charged)


def _own_way(method: PaymentMethod) -> str:
    """What an unscripted card does, as a step has it."""
    needs_authentication = method.card.needs_authentication and not method.is_set_up
    own = Step(do="authenticate" if needs_authentication else "decline" if method.card.decline else "succeed")
    return own.do


def _refuse_redirects(intent: PaymentIntent, params: Mapping[str, Any]) -> None:
    automatic = intent.automatic_payment_methods or {}
    if automatic.get("allow_redirects") == "always" and "return_url" not in params:
        message = "This PaymentIntent allows methods that redirect: give a return_url, or allow cards alone."
        raise invalid_request(message, param="return_url")


def _method_for(store: Store, intent: PaymentIntent, sent: str | None) -> PaymentMethod:
    named = sent or intent.payment_method
    if named is None:
        raise unexpected_state(intent, "This PaymentIntent has no payment method: a decline clears it, name one.")
    method = store.payment_method(named, status=400)
    if method.spent:
        raise unusable(f"{method.id} was detached, or used without a customer; it can't be used again.")
    if method.customer not in {None, intent.customer}:
        raise unusable(f"{method.id} does not belong to the customer of this PaymentIntent.")
    return method


def _wait(store: Store, intent: PaymentIntent, method: PaymentMethod) -> None:
    """The outcome comes later, when a test says so."""
    store.add_charge(intent, method, None, is_pending=True)
    intent.status, intent.next_action = "processing", None
    store.emit("payment_intent.processing", payment_intent_json(intent))


def _authenticate(store: Store, intent: PaymentIntent, method: PaymentMethod, params: Mapping[str, Any]) -> None:
    """Off session the issuer declines at once; else the customer is asked, unless the caller forbids it."""
    if params.get("off_session"):
        charge = store.add_charge(intent, method, AUTHENTICATION_REQUIRED)
        raise declined(store, intent, method, AUTHENTICATION_REQUIRED, charge)
    if params.get("error_on_requires_action"):
        raise declined(store, intent, method, AUTHENTICATION_NOT_HANDLED, None)
    intent.status = "requires_action"
    intent.next_action = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
    store.emit("payment_intent.requires_action", payment_intent_json(intent))
