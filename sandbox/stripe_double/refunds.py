"""Refunds: in full or in part, never more than was taken. Source: https://docs.stripe.com/api/refunds"""

from sandbox.stripe_double.calls import CREATED, EXPAND, PAGE, Call
from sandbox.stripe_double.errors import Json, invalid_request
from sandbox.stripe_double.forms import Shape, integer, metadata, one_of, text
from sandbox.stripe_double.objects import Charge, Refund
from sandbox.stripe_double.render import charge_json
from sandbox.stripe_double.render_more import refund_json
from sandbox.stripe_double.state import new_id

CREATE: Shape = {
    **EXPAND,
    "amount": integer,
    "charge": text,
    "metadata": metadata,
    "payment_intent": text,
    "reason": one_of("duplicate", "fraudulent", "requested_by_customer"),
}
LIST: Shape = {**PAGE, **CREATED, "charge": text, "payment_intent": text}


def create(call: Call) -> Json:
    charge = _charge_of(call)
    amount = _amount(call, charge)
    before = {"amount_refunded": charge.amount_refunded, "refunded": False}
    refund = Refund(new_id("re_3"), call.store.clock.now(), charge, amount, call.params.get("reason"))
    refund.metadata = call.params.get("metadata") or {}
    call.store.refunds[refund.id] = refund
    charge.amount_refunded += amount
    call.store.emit("charge.refunded", charge_json(charge), before)
    return call.show(refund_json(refund))


def retrieve(call: Call) -> Json:
    return call.show(refund_json(call.store.refund(call.path_id)))


def list_(call: Call) -> Json:
    charge_id, intent_id = call.params.get("charge"), call.params.get("payment_intent")
    found = [
        refund
        for refund in call.store.refunds.values()
        if charge_id in {None, refund.charge.id} and intent_id in {None, refund.charge.intent.id}
    ]
    return call.page(found, refund_json)


def _charge_of(call: Call) -> Charge:
    """The charge that is meant, itself or as that of an intent; only one that took money can give it back."""
    if ("charge" in call.params) == ("payment_intent" in call.params):
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise invalid_request(message, code="parameter_missing", param="payment_intent")
    if "charge" in call.params:
        charge = call.store.charge(call.params["charge"], status=400)
        if not charge.is_paid:
            raise invalid_request(f"Charge {charge.id} is {charge.status}: there is nothing to refund.", param="charge")
        return charge
    intent = call.store.payment_intent(call.params["payment_intent"], "payment_intent", status=400)
    if intent.status != "succeeded":
        message = f"This PaymentIntent ({intent.id}) does not have a successful charge to refund."
        raise invalid_request(message, param="payment_intent")
    return call.store.charge(str(intent.latest_charge))


def _amount(call: Call, charge: Charge) -> int:
    if charge.dispute and charge.dispute.status != "won":
        raise invalid_request(
            f"Charge {charge.id} has been charged back; cannot issue a refund.", code="charge_disputed"
        )
    left = charge.amount - charge.amount_refunded
    if left == 0:
        raise invalid_request(f"Charge {charge.id} has already been refunded.", code="charge_already_refunded")
    amount: int = call.params.get("amount", left)
    if amount < 1:
        raise invalid_request("Invalid positive integer", code="parameter_invalid_integer", param="amount")
    if amount > left:
        message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
        raise invalid_request(message, param="amount")
    return amount
