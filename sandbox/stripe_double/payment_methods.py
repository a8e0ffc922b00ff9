"""Payment methods: cards alone. Source: https://docs.stripe.com/api/payment_methods"""

from typing import Any

from sandbox.stripe_double.calls import EXPAND, PAGE, Call
from sandbox.stripe_double.cards import NOT_A_TEST_CARD, CardDecline, TestCard
from sandbox.stripe_double.errors import ApiError, Json, invalid_request, no_such
from sandbox.stripe_double.forms import Shape, integer, metadata, object_of, one_of, text
from sandbox.stripe_double.objects import Customer, PaymentMethod
from sandbox.stripe_double.render import payment_method_json
from sandbox.stripe_double.state import Store

CREATE: Shape = {
    **EXPAND,
    "type": one_of("card"),
    "card": object_of(number=text, exp_month=integer, exp_year=integer, cvc=text, token=text),
    "metadata": metadata,
}
CREATE_REQUIRED = ("type", "card")
ATTACH: Shape = {**EXPAND, "customer": text}
ATTACH_REQUIRED = ("customer",)
DETACH: Shape = EXPAND
LIST: Shape = {**PAGE, "customer": text, "type": text}


def create(call: Call) -> Json:
    sent = call.params["card"]
    method = call.store.add_payment_method(_card_of(call.store, sent))
    method.exp_month = sent.get("exp_month", method.exp_month)
    method.exp_year = sent.get("exp_year", method.exp_year)
    method.metadata = call.params.get("metadata") or {}
    return call.show(payment_method_json(method))


def retrieve(call: Call) -> Json:
    return call.show(payment_method_json(call.store.payment_method(call.path_id)))


def attach(call: Call) -> Json:
    customer = call.store.customer(call.params["customer"], "customer", status=400)
    method = call.store.payment_method(call.path_id)
    attach_to(call.store, customer, method)
    return call.show(payment_method_json(method))


def detach(call: Call) -> Json:
    method = call.store.payment_method(call.path_id)
    if method.customer is None:
        raise unusable(f"{method.id} is not attached to a customer.")
    _forget_default(call.store.customer(method.customer), method)
    customer, method.customer, method.spent = method.customer, None, True
    call.store.emit("payment_method.detached", payment_method_json(method), {"customer": customer})
    return call.show(payment_method_json(method))


def list_(call: Call) -> Json:
    wanted = call.params.get("customer")
    held = [m for m in call.store.payment_methods.values() if m.customer is not None and wanted in {None, m.customer}]
    return call.page(held, payment_method_json)


def attach_to(store: Store, customer: Customer, method: PaymentMethod) -> None:
    """Attach a card; Stripe tries the card first, so one that always declines never gets this far."""
    if method.spent:
        raise unusable(f"{method.id} was detached, or used without a customer; make a new one.")
    if method.customer not in {None, customer.id}:
        raise unusable(f"{method.id} is attached to another customer already.")
    if method.card.decline and not method.card.attachable:
        raise refused(method.card.decline, payment_method=payment_method_json(method))
    if method.customer is None:
        method.customer = customer.id
        store.emit("payment_method.attached", payment_method_json(method))


def unusable(message: str) -> ApiError:
    return invalid_request(message, code="payment_method_unexpected_state", param="payment_method")


def refused(decline: CardDecline, **facts: Any) -> ApiError:
    """The 402 of a card that the issuer refuses."""
    return ApiError(402, "card_error", decline.message, **decline_facts(decline), **facts)


def decline_facts(decline: CardDecline) -> Json:
    """What an error and an intent's last error tell alike about a decline."""
    told = {
        "advice_code": decline.advice_code,
        "code": decline.code,
        "decline_code": decline.decline_code,
        "doc_url": f"https://docs.stripe.com/error-codes/{decline.code.replace('_', '-')}",
        "network_advice_code": decline.network_advice_code,
        "network_decline_code": decline.network_decline_code,
    }
    return {name: value for name, value in told.items() if value is not None}


def _card_of(store: Store, sent: Json) -> TestCard:
    if "token" in sent:
        card = store.cards.of_card_token(sent["token"])
        if card is None:
            raise no_such("token", sent["token"], "card[token]", status=400)
        return card
    card = store.cards.of_number(sent.get("number", ""))
    if card is None:
        raise refused(NOT_A_TEST_CARD, param="card[number]")
    return card


def _forget_default(customer: Customer, method: PaymentMethod) -> None:
    if customer.default_payment_method == method.id:
        customer.default_payment_method = None
