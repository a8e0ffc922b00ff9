"""Charges: made by confirming an intent, and only to be looked at. Source: https://docs.stripe.com/api/charges"""

from sandbox.stripe_double.calls import CREATED, PAGE, Call
from sandbox.stripe_double.errors import Json
from sandbox.stripe_double.forms import Shape, text
from sandbox.stripe_double.render import charge_json

LIST: Shape = {**PAGE, **CREATED, "customer": text, "payment_intent": text}


def retrieve(call: Call) -> Json:
    return call.show(charge_json(call.store.charge(call.path_id)))


def list_(call: Call) -> Json:
    customer, intent_id = call.params.get("customer"), call.params.get("payment_intent")
    found = [
        charge
        for charge in call.store.charges.values()
        if customer in {None, charge.intent.customer} and intent_id in {None, charge.intent.id}
    ]
    return call.page(found, charge_json)
