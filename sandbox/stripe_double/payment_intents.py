"""Payment intents, but for what confirming does. Source: https://docs.stripe.com/api/payment_intents"""

import re

from sandbox.stripe_double.calls import CREATED, EXPAND, PAGE, Call
from sandbox.stripe_double.cards import GENERIC
from sandbox.stripe_double.confirmation import CONFIRMABLE, confirm_intent, unexpected_state
from sandbox.stripe_double.errors import Json, invalid_request
from sandbox.stripe_double.forms import Node, Shape, array_of, boolean, integer, metadata, object_of, one_of, text
from sandbox.stripe_double.objects import Charge, PaymentIntent
from sandbox.stripe_double.render import payment_intent_json
from sandbox.stripe_double.state import merge_metadata, new_id

AMOUNT_MIN, AMOUNT_MAX = 50, 99_999_999


def _currency(node: Node, name: str) -> str:
    code = text(node, name)
    if not re.fullmatch("[a-z]{3}", code):
        raise invalid_request(f"Invalid currency: {code}; three small letters, as in ISO 4217.", param=name)
    return code


DETAILS: Shape = {
    **EXPAND,
    "amount": integer,
    "currency": _currency,
    "customer": text,
    "description": text,
    "metadata": metadata,
    "payment_method": text,
    "receipt_email": text,
    "statement_descriptor": text,
    "statement_descriptor_suffix": text,
}
CONFIRM: Shape = {
    **EXPAND,
    "error_on_requires_action": boolean,
    "off_session": boolean,
    "payment_method": text,
    "return_url": text,
}
CREATE: Shape = {
    **DETAILS,
    **CONFIRM,
    "allowed_payment_method_types": array_of(one_of("card")),
    "automatic_payment_methods": object_of(enabled=boolean, allow_redirects=one_of("always", "never")),
    "confirm": boolean,
}
CREATE_REQUIRED = ("amount", "currency")
UPDATE = DETAILS
CANCEL: Shape = {
    **EXPAND,
    "cancellation_reason": one_of("abandoned", "duplicate", "fraudulent", "requested_by_customer"),
}
LIST: Shape = {**PAGE, **CREATED, "customer": text}

#: After success only what describes the intent may change.
DESCRIPTIVE = frozenset({"description", "metadata", "receipt_email"})
CANCELABLE = frozenset({*CONFIRMABLE, "requires_capture", "processing"})


def create(call: Call) -> Json:
    _refuse_contradictions(call)
    intent_id = new_id("pi_3")
    intent = PaymentIntent(
        id=intent_id,
        created=call.store.clock.now(),
        amount=call.params["amount"],
        currency=call.params["currency"],
        client_secret=new_id(f"{intent_id}_secret"),
        allowed_payment_method_types=call.params.get("allowed_payment_method_types"),
        automatic_payment_methods=_automatic(call),
    )
    _set_details(intent, call)
    call.store.payment_intents[intent.id] = intent
    if call.params.get("confirm"):
        confirm_intent(call.store, intent, call.params)
    return call.show(payment_intent_json(intent))


def retrieve(call: Call) -> Json:
    return call.show(payment_intent_json(call.store.payment_intent(call.path_id)))


def update(call: Call) -> Json:
    intent = call.store.payment_intent(call.path_id)
    if intent.status not in CONFIRMABLE and not DESCRIPTIVE.issuperset(call.params):
        raise unexpected_state(intent, f"A PaymentIntent that is {intent.status} can't be updated this way.")
    _set_details(intent, call)
    intent.last_payment_error = None
    return call.show(payment_intent_json(intent))


def confirm(call: Call) -> Json:
    intent = call.store.payment_intent(call.path_id)
    confirm_intent(call.store, intent, call.params)
    return call.show(payment_intent_json(intent))


def cancel(call: Call) -> Json:
    intent = call.store.payment_intent(call.path_id)
    if intent.status not in CANCELABLE:
        raise unexpected_state(intent, f"A PaymentIntent that is {intent.status} can't be canceled.")
    if intent.status == "processing":
        _give_up(call.store.charge(str(intent.latest_charge)))
    intent.status, intent.next_action = "canceled", None
    intent.canceled_at = call.store.clock.now()
    intent.cancellation_reason = call.params.get("cancellation_reason")
    shown = payment_intent_json(intent)
    call.store.emit("payment_intent.canceled", shown)
    return call.show(shown)


def list_(call: Call) -> Json:
    wanted = call.params.get("customer")
    found = [intent for intent in call.store.payment_intents.values() if wanted in {None, intent.customer}]
    return call.page(found, payment_intent_json)


def _give_up(charge: Charge) -> None:
    charge.is_pending, charge.decline = False, GENERIC


def _refuse_contradictions(call: Call) -> None:
    if "allowed_payment_method_types" in call.params and "automatic_payment_methods" in call.params:
        message = "Give allowed_payment_method_types or automatic_payment_methods, not both."
        raise invalid_request(message, param="allowed_payment_method_types")
    for name in ("off_session", "error_on_requires_action", "return_url"):
        if name in call.params and not call.params.get("confirm"):
            raise invalid_request(f"{name} can only be given with confirm=true.", param=name)


def _automatic(call: Call) -> Json | None:
    if "allowed_payment_method_types" in call.params:
        return None
    asked: Json = call.params.get("automatic_payment_methods", {})
    return {"enabled": True, "allow_redirects": "always", **asked}


def _set_details(intent: PaymentIntent, call: Call) -> None:
    _refuse_values(call)
    if "payment_method" in call.params:
        method = call.store.payment_method(call.params["payment_method"], status=400)
        intent.payment_method, intent.status = method.id, "requires_confirmation"
    for name in ("amount", "currency", "customer", "description", "receipt_email", "statement_descriptor_suffix"):
        setattr(intent, name, call.params.get(name, getattr(intent, name)))
    if "metadata" in call.params:
        intent.metadata = merge_metadata(intent.metadata, call.params["metadata"])


def _refuse_values(call: Call) -> None:
    amount = call.params.get("amount", AMOUNT_MIN)
    if amount < AMOUNT_MIN:
        raise invalid_request(f"Amount must be at least {AMOUNT_MIN}.", code="amount_too_small", param="amount")
    if amount > AMOUNT_MAX:
        raise invalid_request(f"Amount must be at most {AMOUNT_MAX}.", code="amount_too_large", param="amount")
    if "statement_descriptor" in call.params:
        message = "Cards take a statement_descriptor_suffix, not a statement_descriptor."
        raise invalid_request(message, param="statement_descriptor")
    if "customer" in call.params:
        call.store.customer(call.params["customer"], "customer", status=400)
