"""Disputes: opened by the customer's bank, which here is a test card or a test's wish; and closed.

Sources: https://docs.stripe.com/api/disputes and https://docs.stripe.com/disputes/how-disputes-work
"""

from sandbox.stripe_double.calls import CREATED, PAGE, Call
from sandbox.stripe_double.errors import Json, invalid_request
from sandbox.stripe_double.forms import Shape, text
from sandbox.stripe_double.objects import Charge, Dispute
from sandbox.stripe_double.render_more import dispute_json
from sandbox.stripe_double.state import Store, new_id

LIST: Shape = {**PAGE, **CREATED, "charge": text, "payment_intent": text}


def retrieve(call: Call) -> Json:
    return call.show(dispute_json(call.store.dispute(call.path_id)))


def list_(call: Call) -> Json:
    charge_id, intent_id = call.params.get("charge"), call.params.get("payment_intent")
    found = [
        dispute
        for dispute in call.store.disputes.values()
        if charge_id in {None, dispute.charge.id} and intent_id in {None, dispute.charge.intent.id}
    ]
    return call.page(found, dispute_json)


def close(call: Call) -> Json:
    """Give in: the dispute is lost."""
    dispute = call.store.dispute(call.path_id)
    close_dispute(call.store, dispute, "lost")
    return call.show(dispute_json(dispute))


def open_dispute(store: Store, charge: Charge, amount_minor: int | None = None, reason: str = "fraudulent") -> Dispute:
    """The bank takes the charge back, or a part of it; what was refunded before is not taken twice."""
    if not charge.is_paid or charge.dispute:
        raise invalid_request(f"{charge.id} is {charge.status}, or disputed already: it can't be disputed.")
    left = charge.amount - charge.amount_refunded
    amount = left if amount_minor is None else amount_minor
    if not 0 < amount <= left:
        raise invalid_request(f"{amount} can't be disputed: {left} of {charge.id} is left.", param="amount")
    dispute = Dispute(new_id("du_1"), store.clock.now(), charge, amount, reason)
    charge.dispute = store.disputes[dispute.id] = dispute
    store.emit("charge.dispute.created", dispute_json(dispute))
    store.emit("charge.dispute.funds_withdrawn", dispute_json(dispute))
    return dispute


def review_dispute(store: Store, dispute: Dispute) -> None:
    """The merchant has answered, and the bank looks at it."""
    _refuse_closed(dispute)
    before, dispute.status = dispute.status, "under_review"
    store.emit("charge.dispute.updated", dispute_json(dispute), {"status": before})


def close_dispute(store: Store, dispute: Dispute, outcome: str) -> None:
    """End it as `won` (the money comes back) or `lost`."""
    _refuse_closed(dispute)
    before, dispute.status = dispute.status, outcome
    store.emit("charge.dispute.closed", dispute_json(dispute), {"status": before})
    if outcome == "won":
        store.emit("charge.dispute.funds_reinstated", dispute_json(dispute))


def _refuse_closed(dispute: Dispute) -> None:
    if dispute.is_closed:
        raise invalid_request(f"This dispute is already closed: {dispute.id} is {dispute.status}.")
