"""Customers. Source: https://docs.stripe.com/api/customers"""

import re

from sandbox.stripe_double.calls import CREATED, EXPAND, PAGE, Call
from sandbox.stripe_double.errors import Json, invalid_request
from sandbox.stripe_double.forms import Shape, integer, metadata, object_of, text
from sandbox.stripe_double.objects import Customer
from sandbox.stripe_double.payment_methods import attach_to
from sandbox.stripe_double.render import customer_json, payment_method_json
from sandbox.stripe_double.state import merge_metadata, new_id

_BY_METADATA = re.compile(r"metadata\['(\w+)'\]:'([^']*)'")
DETAILS: Shape = {
    **EXPAND,
    "name": text,
    "email": text,
    "phone": text,
    "description": text,
    "metadata": metadata,
    "invoice_settings": object_of(default_payment_method=text),
}
CREATE: Shape = {**DETAILS, "payment_method": text}
UPDATE = DETAILS
LIST: Shape = {**PAGE, **CREATED, "email": text}
SEARCH: Shape = {**EXPAND, "query": text, "limit": integer, "page": text}
LIST_METHODS: Shape = {**PAGE, "type": text}


def create(call: Call) -> Json:
    customer = Customer(id=new_id("cus"), created=call.store.clock.now())
    if "payment_method" in call.params:
        attach_to(call.store, customer, call.store.payment_method(call.params["payment_method"], status=400))
    _set_details(customer, call)
    call.store.customers[customer.id] = customer
    return call.show(customer_json(customer))


def retrieve(call: Call) -> Json:
    return call.show(customer_json(call.store.customer(call.path_id)))


def update(call: Call) -> Json:
    customer = call.store.customer(call.path_id)
    _set_details(customer, call)
    return call.show(customer_json(customer))


def list_(call: Call) -> Json:
    email = call.params.get("email")
    found = [customer for customer in call.store.customers.values() if email in {None, customer.email}]
    return call.page(found, customer_json)


def search(call: Call) -> Json:
    """By one word of the metadata alone, and at once: at Stripe what is found may be a minute old."""
    asked = _BY_METADATA.fullmatch(call.params["query"])
    if asked is None:
        raise invalid_request("This double searches metadata['name']:'value' alone.", param="query")
    name, value = asked.groups()
    limit = call.params.get("limit", 10)
    found = [customer for customer in call.store.customers.values() if customer.metadata.get(name) == value]
    page = {"object": "search_result", "data": [call.show(customer_json(one)) for one in found[:limit]]}
    return page | {"has_more": len(found) > limit, "next_page": None, "url": "/v1/customers/search"}


def list_methods(call: Call) -> Json:
    customer = call.store.customer(call.path_id, "customer")
    held = [method for method in call.store.payment_methods.values() if method.customer == customer.id]
    return call.page(held, payment_method_json)


def _set_details(customer: Customer, call: Call) -> None:
    default = call.params.get("invoice_settings", {}).get("default_payment_method")
    if default is not None:
        if call.store.payment_method(default, status=400).customer != customer.id:
            message = f"The customer has no payment method {default}; attach it first."
            raise invalid_request(message, code="resource_missing", param="invoice_settings[default_payment_method]")
        customer.default_payment_method = default
    for name in ("name", "email", "phone", "description"):
        setattr(customer, name, call.params.get(name, getattr(customer, name)))
    if "metadata" in call.params:
        customer.metadata = merge_metadata(customer.metadata, call.params["metadata"])
