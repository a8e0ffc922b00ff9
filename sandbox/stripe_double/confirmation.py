"""What confirming a payment intent does: success, decline, or a customer who has to authenticate.

Sources: https://docs.stripe.com/payments/paymentintents/lifecycle and
https://docs.stripe.com/payments/without-card-authentication
"""

from collections.abc import Mapping
from typing import Any

from sandbox.stripe_double.cards import AUTHENTICATION_NOT_HANDLED, AUTHENTICATION_REQUIRED, CardDecline
from sandbox.stripe_double.errors import ApiError, invalid_request
from sandbox.stripe_double.payment_methods import decline_facts, refused, unusable
from sandbox.stripe_double.render import payment_intent_json, payment_method_json
from sandbox.stripe_double.state import Charge, PaymentIntent, PaymentMethod, Store

CONFIRMABLE = frozenset({"requires_payment_method", "requires_confirmation", "requires_action"})


def confirm_intent(store: Store, intent: PaymentIntent, params: Mapping[str, Any]) -> None:
    """Charge the card, once: a succeeded or canceled intent is never confirmed again."""
    if intent.status not in CONFIRMABLE:
        raise unexpected_state(intent, f"A PaymentIntent that is {intent.status} can't be confirmed.")
    _refuse_redirects(intent, params)
    method = _method_for(store, intent, params.get("payment_method"))
    intent.payment_method, intent.last_payment_error = method.id, None
    if method.card.needs_authentication:
        _authenticate(store, intent, method, params)
    elif method.card.decline:
        raise _declined(intent, method, method.card.decline, store.add_charge(intent, method, method.card.decline))
    else:
        _succeed(store, intent, method)


def unexpected_state(intent: PaymentIntent, message: str) -> ApiError:
    shown = payment_intent_json(intent)
    return invalid_request(message, code="payment_intent_unexpected_state", payment_intent=shown)


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


def _succeed(store: Store, intent: PaymentIntent, method: PaymentMethod) -> None:
    store.add_charge(intent, method, None)
    intent.status, intent.next_action = "succeeded", None
    method.spent = method.customer is None


def _authenticate(store: Store, intent: PaymentIntent, method: PaymentMethod, params: Mapping[str, Any]) -> None:
    """Off session the issuer declines at once; else the customer is asked, unless the caller forbids it."""
    if params.get("off_session"):
        charge = store.add_charge(intent, method, AUTHENTICATION_REQUIRED)
        raise _declined(intent, method, AUTHENTICATION_REQUIRED, charge)
    if params.get("error_on_requires_action"):
        raise _declined(intent, method, AUTHENTICATION_NOT_HANDLED, None)
    intent.status = "requires_action"
    intent.next_action = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}


def _declined(intent: PaymentIntent, method: PaymentMethod, decline: CardDecline, charge: Charge | None) -> ApiError:
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
    return refused(decline, payment_intent=payment_intent_json(intent), payment_method=shown, **charged)
