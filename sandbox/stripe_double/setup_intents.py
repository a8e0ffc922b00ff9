"""Setup intents: a card is made ready to be charged while its customer is away.

Sources: https://docs.stripe.com/api/setup_intents and https://docs.stripe.com/payments/setupintents/lifecycle
"""

from sandbox.stripe_double.calls import CREATED, EXPAND, PAGE, Call
from sandbox.stripe_double.cards import CardDecline
from sandbox.stripe_double.errors import ApiError, Json, invalid_request
from sandbox.stripe_double.forms import Shape, array_of, boolean, metadata, object_of, one_of, text
from sandbox.stripe_double.objects import PaymentMethod, SetupIntent
from sandbox.stripe_double.payment_methods import attach_to, decline_facts, refused, unusable
from sandbox.stripe_double.render import payment_method_json
from sandbox.stripe_double.render_more import setup_intent_json
from sandbox.stripe_double.state import Store, new_id

CONFIRM: Shape = {**EXPAND, "payment_method": text, "return_url": text}
CREATE: Shape = {
    **CONFIRM,
    "allowed_payment_method_types": array_of(one_of("card")),
    "automatic_payment_methods": object_of(enabled=boolean, allow_redirects=one_of("always", "never")),
    "confirm": boolean,
    "customer": text,
    "description": text,
    "metadata": metadata,
    "usage": one_of("off_session", "on_session"),
}
CANCEL: Shape = {**EXPAND, "cancellation_reason": one_of("abandoned", "duplicate", "requested_by_customer")}
LIST: Shape = {**PAGE, **CREATED, "customer": text, "payment_method": text}

OPEN = frozenset({"requires_payment_method", "requires_confirmation", "requires_action"})


def create(call: Call) -> Json:
    intent_id = new_id("seti_1")
    intent = SetupIntent(intent_id, call.store.clock.now(), new_id(f"{intent_id}_secret"))
    _set_details(intent, call)
    call.store.setup_intents[intent.id] = intent
    if call.params.get("confirm"):
        _confirm(call, intent)
    return call.show(setup_intent_json(intent))


def retrieve(call: Call) -> Json:
    return call.show(setup_intent_json(call.store.setup_intent(call.path_id)))


def confirm(call: Call) -> Json:
    intent = call.store.setup_intent(call.path_id)
    _confirm(call, intent)
    return call.show(setup_intent_json(intent))


def cancel(call: Call) -> Json:
    intent = call.store.setup_intent(call.path_id)
    _refuse_unless_open(intent, "canceled")
    intent.status, intent.next_action = "canceled", None
    intent.cancellation_reason = call.params.get("cancellation_reason")
    return call.show(setup_intent_json(intent))


def list_(call: Call) -> Json:
    customer, method_id = call.params.get("customer"), call.params.get("payment_method")
    found = [
        intent
        for intent in call.store.setup_intents.values()
        if customer in {None, intent.customer} and method_id in {None, intent.payment_method}
    ]
    return call.page(found, setup_intent_json)


def succeed(store: Store, intent: SetupIntent, method: PaymentMethod) -> None:
    """The card may be charged without its customer from now on, and belongs to the intent's customer."""
    if intent.customer is not None:
        attach_to(store, store.customer(intent.customer), method)
    method.is_set_up = method.card.can_be_set_up
    intent.status, intent.next_action = "succeeded", None
    store.emit("setup_intent.succeeded", setup_intent_json(intent))


def declined(intent: SetupIntent, method: PaymentMethod, decline: CardDecline) -> ApiError:
    """The card was refused; another one may be tried."""
    shown = payment_method_json(method)
    intent.status, intent.payment_method, intent.next_action = "requires_payment_method", None, None
    told = {"type": "card_error", "message": decline.message, "payment_method": shown}
    intent.last_setup_error = {**told, **decline_facts(decline)}
    return refused(decline, setup_intent=setup_intent_json(intent), payment_method=shown)


def _set_details(intent: SetupIntent, call: Call) -> None:
    params = call.params
    if "allowed_payment_method_types" in params and "automatic_payment_methods" in params:
        message = "Give allowed_payment_method_types or automatic_payment_methods, not both."
        raise invalid_request(message, param="allowed_payment_method_types")
    if "customer" in params:
        intent.customer = call.store.customer(params["customer"], "customer", status=400).id
    if "payment_method" in params:
        intent.payment_method = call.store.payment_method(params["payment_method"], status=400).id
        intent.status = "requires_confirmation"
    intent.usage = params.get("usage", intent.usage)
    intent.description = params.get("description")
    intent.metadata = params.get("metadata") or {}
    intent.allowed_payment_method_types = params.get("allowed_payment_method_types")
    if intent.allowed_payment_method_types is None:
        asked: Json = params.get("automatic_payment_methods", {})
        intent.automatic_payment_methods = {"enabled": True, "allow_redirects": "always", **asked}


def _confirm(call: Call, intent: SetupIntent) -> None:
    _refuse_unless_open(intent, "confirmed")
    automatic = intent.automatic_payment_methods or {}
    if automatic.get("allow_redirects") == "always" and "return_url" not in call.params:
        message = "This SetupIntent allows methods that redirect: give a return_url, or allow cards alone."
        raise invalid_request(message, param="return_url")
    named = intent.payment_method if call.params.get("confirm") else call.params.get("payment_method")
    method = _method_for(call.store, intent, named or intent.payment_method)
    intent.payment_method, intent.last_setup_error = method.id, None
    if method.card.decline and not method.card.attachable:
        raise declined(intent, method, method.card.decline)
    if method.card.needs_authentication and not method.is_set_up:
        intent.status = "requires_action"
        intent.next_action = {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
        return
    succeed(call.store, intent, method)


def _method_for(store: Store, intent: SetupIntent, named: str | None) -> PaymentMethod:
    if named is None:
        raise invalid_request("You must name a payment_method to confirm this SetupIntent.", param="payment_method")
    method = store.payment_method(named, status=400)
    if method.spent:
        raise unusable(f"{method.id} was detached, or used without a customer; it can't be used again.")
    if method.customer not in {None, intent.customer}:
        raise unusable(f"{method.id} does not belong to the customer of this SetupIntent.")
    return method


def _refuse_unless_open(intent: SetupIntent, wanted: str) -> None:
    if intent.status not in OPEN:
        message = f"A SetupIntent that is {intent.status} can't be {wanted}."
        raise invalid_request(message, code="setup_intent_unexpected_state", setup_intent=setup_intent_json(intent))
