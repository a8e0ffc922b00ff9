"""Events, to be looked at: what happened, and whether every endpoint knows. Source: https://docs.stripe.com/api/events"""

from sandbox.stripe_double.calls import CREATED, PAGE, Call
from sandbox.stripe_double.errors import Json, invalid_request
from sandbox.stripe_double.forms import Shape, array_of, boolean, text
from sandbox.stripe_double.objects import Event
from sandbox.stripe_double.render_more import event_json

LIST: Shape = {**PAGE, **CREATED, "delivery_success": boolean, "type": text, "types": array_of(text)}


def retrieve(call: Call) -> Json:
    return call.show(event_json(call.store.event(call.path_id)))


def list_(call: Call) -> Json:
    if "type" in call.params and "types" in call.params:
        raise invalid_request("You may not specify both type and types.", param="types")
    return call.page([event for event in call.store.events.values() if _is_asked_for(event, call)], event_json)


def _is_asked_for(event: Event, call: Call) -> bool:
    types = call.params.get("types", [call.params["type"]] if "type" in call.params else None)
    if types is not None and not any(_matches(event.type, wanted) for wanted in types):
        return False
    is_delivered = not event.waiting
    return call.params.get("delivery_success") in {None, is_delivered}


def _matches(event_type: str, wanted: str) -> bool:
    """`charge.dispute.*` stands for all types that begin so."""
    return event_type.startswith(wanted[:-1]) if wanted.endswith("*") else event_type == wanted
