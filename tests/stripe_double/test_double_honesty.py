"""The double measured against the installed library, whose types are generated from Stripe's specification."""

import inspect
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import stripe
import stripe.params

from sandbox.stripe_double.app import API_VERSION
from sandbox.stripe_double.routes import ROUTES, Route

PARAMS = {
    "POST /v1/customers": stripe.params.CustomerCreateParams,
    "GET /v1/customers": stripe.params.CustomerListParams,
    "GET /v1/customers/{id}": stripe.params.CustomerRetrieveParams,
    "POST /v1/customers/{id}": stripe.params.CustomerUpdateParams,
    "GET /v1/customers/{id}/payment_methods": stripe.params.CustomerPaymentMethodListParams,
    "POST /v1/payment_methods": stripe.params.PaymentMethodCreateParams,
    "GET /v1/payment_methods": stripe.params.PaymentMethodListParams,
    "GET /v1/payment_methods/{id}": stripe.params.PaymentMethodRetrieveParams,
    "POST /v1/payment_methods/{id}/attach": stripe.params.PaymentMethodAttachParams,
    "POST /v1/payment_methods/{id}/detach": stripe.params.PaymentMethodDetachParams,
    "POST /v1/payment_intents": stripe.params.PaymentIntentCreateParams,
    "GET /v1/payment_intents": stripe.params.PaymentIntentListParams,
    "GET /v1/payment_intents/{id}": stripe.params.PaymentIntentRetrieveParams,
    "POST /v1/payment_intents/{id}": stripe.params.PaymentIntentUpdateParams,
    "POST /v1/payment_intents/{id}/confirm": stripe.params.PaymentIntentConfirmParams,
    "POST /v1/payment_intents/{id}/cancel": stripe.params.PaymentIntentCancelParams,
    "GET /v1/charges": stripe.params.ChargeListParams,
    "GET /v1/charges/{id}": stripe.params.ChargeRetrieveParams,
}


class LibraryNames(dict[str, Any]):
    """What a forward reference of the library means; a class it doesn't export is any object."""

    def __missing__(self, name: str) -> Any:
        if name in vars(typing):
            return vars(typing)[name]
        return getattr(stripe, name, stripe.StripeObject)


def differences(value: Any, kind: Any, path: str) -> list[str]:
    """Where a value from the wire is not what the library's annotation promises."""
    if isinstance(kind, type) and issubclass(kind, stripe.StripeObject):
        return object_differences(value, kind, path)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return union_differences(value, arguments, path)
    if origin is Literal:
        return [] if value in arguments else [f"{path}: {value!r} is none of {arguments}"]
    if origin is list:
        return list_differences(value, arguments[0], path)
    if origin is not None:
        return [] if isinstance(value, dict) else [f"{path}: {value!r} is no object"]
    return [] if kind is Any or type(value) is kind else [f"{path}: {value!r} is no {kind}"]


def list_differences(value: Any, kind: Any, path: str) -> list[str]:
    if not isinstance(value, list):
        return [f"{path}: {value!r} is no list"]
    return [line for i, item in enumerate(value) for line in differences(item, kind, f"{path}[{i}]")]


def union_differences(value: Any, arguments: tuple[Any, ...], path: str) -> list[str]:
    if any(get_origin(one) is Literal for one in arguments):
        arguments = tuple(one for one in arguments if one is not str)  # an open enum, taken strictly
    found = [differences(value, one, path) for one in arguments]
    return [] if [] in found else min(found, key=len)


def object_differences(value: Any, kind: type[stripe.StripeObject], path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: {value!r} is no {kind.__qualname__}"]
    declared = inspect.get_annotations(kind).keys() - {"OBJECT_NAME"}
    if not declared:
        return []
    every = typing.get_type_hints(kind, localns=LibraryNames())
    hints = {name: every[name] for name in every if name in declared}
    unknown = [f"{path}.{name}: not in {kind.__qualname__}" for name in value if name not in hints]
    optional = {name for name, hint in hints.items() if type(None) in get_args(hint)}
    missing = [f"{path}.{name}: missing" for name in hints if name not in value and name not in optional]
    known = [name for name in value if name in hints]
    inner = [line for name in known for line in differences(value[name], hints[name], f"{path}.{name}")]
    return [*unknown, *missing, *inner]


def wrong(shown: stripe.StripeObject) -> list[str]:
    return differences(shown.to_dict(), type(shown), type(shown).__name__)


def test_it_speaks_the_version_of_the_installed_library(client: stripe.StripeClient) -> None:
    made = client.v1.customers.create({"name": "Ana"})

    assert stripe.api_version == API_VERSION
    assert made.last_response is not None
    assert made.last_response.headers["Stripe-Version"] == stripe.api_version


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_every_parameter_it_takes_exists_at_stripe(route: Route) -> None:
    assert set(route.shape) - set(PARAMS[route.name].__annotations__) == set()


def test_customers_and_cards_have_the_librarys_shape(client: stripe.StripeClient, customer: str) -> None:
    card = client.v1.payment_methods.attach("pm_card_visa", {"customer": customer})

    assert wrong(client.v1.customers.retrieve(customer)) == []
    assert wrong(card) == []


def test_intents_and_charges_have_the_librarys_shape_in_every_state(client: stripe.StripeClient, intent: str) -> None:
    unconfirmed = client.v1.payment_intents.retrieve(intent)
    with pytest.raises(stripe.CardError) as refusal:
        client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_chargeDeclined"})
    declined = client.v1.payment_intents.retrieve(intent, {"expand": ["latest_charge", "customer"]})
    asked = client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_authenticationRequired"})
    succeeded = client.v1.payment_intents.confirm(
        intent, {"payment_method": "pm_card_visa", "expand": ["latest_charge", "payment_method"]}
    )

    assert refusal.value.error is not None
    for shown in (unconfirmed, refusal.value.error.payment_intent, declined, asked, succeeded):
        assert isinstance(shown, stripe.PaymentIntent)
        assert wrong(shown) == []


def test_the_check_itself_finds_what_is_wrong(client: stripe.StripeClient, customer: str) -> None:
    shown = client.v1.customers.retrieve(customer).to_dict()
    shown |= {"livemode": "no", "tax_exempt": "sometimes", "colour": "red"}
    del shown["created"]

    found = differences(shown, stripe.Customer, "Customer")

    assert [line.split(":")[0] for line in found] == [
        "Customer.colour",
        "Customer.created",
        "Customer.livemode",
        "Customer.tax_exempt",
    ]
