"""The double measured against the installed library, whose types are generated from Stripe's specification."""

import inspect
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import stripe
import stripe.params

from sandbox.stripe_double.app import API_VERSION
from sandbox.stripe_double.control import PROCESSING, DoubleControl
from sandbox.stripe_double.routes import ROUTES, Route

PARAMS = {
    "POST /v1/customers": stripe.params.CustomerCreateParams,
    "GET /v1/customers": stripe.params.CustomerListParams,
    "GET /v1/customers/search": stripe.params.CustomerSearchParams,
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
    "POST /v1/setup_intents": stripe.params.SetupIntentCreateParams,
    "GET /v1/setup_intents": stripe.params.SetupIntentListParams,
    "GET /v1/setup_intents/{id}": stripe.params.SetupIntentRetrieveParams,
    "POST /v1/setup_intents/{id}/confirm": stripe.params.SetupIntentConfirmParams,
    "POST /v1/setup_intents/{id}/cancel": stripe.params.SetupIntentCancelParams,
    "POST /v1/refunds": stripe.params.RefundCreateParams,
    "GET /v1/refunds": stripe.params.RefundListParams,
    "GET /v1/refunds/{id}": stripe.params.RefundRetrieveParams,
    "GET /v1/disputes": stripe.params.DisputeListParams,
    "GET /v1/disputes/{id}": stripe.params.DisputeRetrieveParams,
    "POST /v1/disputes/{id}/close": stripe.params.DisputeCloseParams,
    "GET /v1/events": stripe.params.EventListParams,
    "GET /v1/events/{id}": stripe.params.EventRetrieveParams,
    "POST /v1/webhook_endpoints": stripe.params.WebhookEndpointCreateParams,
    "GET /v1/webhook_endpoints": stripe.params.WebhookEndpointListParams,
    "GET /v1/webhook_endpoints/{id}": stripe.params.WebhookEndpointRetrieveParams,
    "DELETE /v1/webhook_endpoints/{id}": stripe.params.WebhookEndpointDeleteParams,
}

EVENTS = {
    *(
        f"payment_intent.{turn}"
        for turn in ("succeeded", "payment_failed", "processing", "requires_action", "canceled")
    ),
    "charge.refunded",
    *(f"charge.dispute.{turn}" for turn in ("created", "funds_withdrawn", "updated", "closed", "funds_reinstated")),
    *(f"payment_method.{turn}" for turn in ("attached", "detached", "automatically_updated")),
    "setup_intent.succeeded",
}
CARRIED = {
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "dispute": stripe.Dispute,
    "payment_method": stripe.PaymentMethod,
    "setup_intent": stripe.SetupIntent,
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


def test_a_payment_that_is_processing_has_the_librarys_shape(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    control.script_card("pm_card_slow", [PROCESSING])

    shown = client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_slow", "expand": ["latest_charge"]})

    assert shown.status == "processing"
    assert wrong(shown) == []


def test_setups_have_the_librarys_shape_in_every_state(
    client: stripe.StripeClient, customer: str, control: DoubleControl
) -> None:
    setup = client.v1.setup_intents.create({"customer": customer, "allowed_payment_method_types": ["card"]})
    with pytest.raises(stripe.CardError) as refusal:
        client.v1.setup_intents.confirm(setup.id, {"payment_method": "pm_card_chargeDeclinedExpiredCard"})
    declined = client.v1.setup_intents.retrieve(setup.id, {"expand": ["customer"]})
    asked = client.v1.setup_intents.confirm(setup.id, {"payment_method": "pm_card_authenticationRequired"})
    control.authenticate(setup.id, is_successful=False)
    failed = client.v1.setup_intents.retrieve(setup.id)
    succeeded = client.v1.setup_intents.confirm(
        setup.id, {"payment_method": "pm_card_visa", "expand": ["payment_method"]}
    )

    assert refusal.value.error is not None
    for shown in (setup, refusal.value.error.setup_intent, declined, asked, failed, succeeded):
        assert isinstance(shown, stripe.SetupIntent)
        assert wrong(shown) == []


def test_money_that_goes_back_has_the_librarys_shape(
    client: stripe.StripeClient, intent: str, control: DoubleControl
) -> None:
    client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_visa"})
    refund = client.v1.refunds.create({"payment_intent": intent, "amount": 100, "expand": ["charge"]})
    opened = client.v1.disputes.retrieve(control.open_dispute(intent), {"expand": ["charge", "payment_intent"]})
    control.review_dispute(opened.id)
    under_review = client.v1.disputes.retrieve(opened.id)
    closed = client.v1.disputes.close(opened.id)

    for shown in (refund, opened, under_review, closed):
        assert wrong(shown) == []


def test_endpoints_have_the_librarys_shape(client: stripe.StripeClient) -> None:
    made = client.v1.webhook_endpoints.create({"url": "http://127.0.0.1:1/hook", "enabled_events": ["*"]})

    assert wrong(made) == []
    assert made.secret is not None
    assert made.secret.startswith("whsec_")
    assert wrong(client.v1.webhook_endpoints.retrieve(made.id)) == []


def test_events_and_what_they_carry_have_the_librarys_shape(
    client: stripe.StripeClient, customer: str, intent: str, control: DoubleControl
) -> None:
    everything_happens(client, customer, intent, control)

    shown = list(client.v1.events.list({"limit": 100}).auto_paging_iter())

    assert {event.type for event in shown} == EVENTS
    for event in shown:
        assert wrong(event) == []
        carried = event.to_dict()["data"]["object"]
        assert differences(carried, CARRIED[carried["object"]], event.type) == []


def everything_happens(client: stripe.StripeClient, customer: str, intent: str, control: DoubleControl) -> None:
    """Every kind of event, on one customer."""
    control.script_card("pm_card_slow", [PROCESSING])
    setup: Any = {"customer": customer, "allowed_payment_method_types": ["card"], "confirm": True}
    setup["payment_method"] = "pm_card_visa"
    client.v1.setup_intents.create(setup)
    with pytest.raises(stripe.CardError):
        client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_chargeDeclined"})
    client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_authenticationRequired"})
    client.v1.payment_intents.confirm(intent, {"payment_method": "pm_card_slow"})
    control.settle_processing(intent)
    client.v1.refunds.create({"payment_intent": intent, "amount": 100})
    dispute = control.open_dispute(intent)
    control.review_dispute(dispute)
    control.close_dispute(dispute, "won")
    card = client.v1.payment_methods.attach("pm_card_visa", {"customer": customer}).id
    control.update_card(card, 11, 2040)
    client.v1.payment_methods.detach(card)
    client.v1.payment_intents.cancel(client.v1.payment_intents.create({"amount": 500, "currency": "brl"}).id)


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
