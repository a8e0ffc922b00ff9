"""Which requests the double knows: path, handler, and the parameters each one takes."""

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.stripe_double import (
    charges,
    customers,
    disputes,
    events,
    payment_intents,
    payment_methods,
    refunds,
    setup_intents,
    webhook_endpoints,
)
from sandbox.stripe_double.calls import EXPAND, Call
from sandbox.stripe_double.errors import Json
from sandbox.stripe_double.forms import Shape

Handler = Callable[[Call], Json]


@dataclass(frozen=True)
class Route:
    method: str
    template: str
    handler: Handler
    shape: Shape
    required: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"


def _get(template: str, handler: Handler, shape: Shape = EXPAND) -> Route:
    return Route("GET", template, handler, shape)


def _post(template: str, handler: Handler, shape: Shape, required: tuple[str, ...] = ()) -> Route:
    return Route("POST", template, handler, shape, required)


ROUTES: tuple[Route, ...] = (
    _post("/v1/customers", customers.create, customers.CREATE),
    _get("/v1/customers", customers.list_, customers.LIST),
    _get("/v1/customers/search", customers.search, customers.SEARCH),
    _get("/v1/customers/{id}", customers.retrieve),
    _post("/v1/customers/{id}", customers.update, customers.UPDATE),
    _get("/v1/customers/{id}/payment_methods", customers.list_methods, customers.LIST_METHODS),
    _post("/v1/payment_methods", payment_methods.create, payment_methods.CREATE, payment_methods.CREATE_REQUIRED),
    _get("/v1/payment_methods", payment_methods.list_, payment_methods.LIST),
    _get("/v1/payment_methods/{id}", payment_methods.retrieve),
    _post(
        "/v1/payment_methods/{id}/attach",
        payment_methods.attach,
        payment_methods.ATTACH,
        payment_methods.ATTACH_REQUIRED,
    ),
    _post("/v1/payment_methods/{id}/detach", payment_methods.detach, payment_methods.DETACH),
    _post("/v1/payment_intents", payment_intents.create, payment_intents.CREATE, payment_intents.CREATE_REQUIRED),
    _get("/v1/payment_intents", payment_intents.list_, payment_intents.LIST),
    _get("/v1/payment_intents/{id}", payment_intents.retrieve),
    _post("/v1/payment_intents/{id}", payment_intents.update, payment_intents.UPDATE),
    _post("/v1/payment_intents/{id}/confirm", payment_intents.confirm, payment_intents.CONFIRM),
    _post("/v1/payment_intents/{id}/cancel", payment_intents.cancel, payment_intents.CANCEL),
    _get("/v1/charges", charges.list_, charges.LIST),
    _get("/v1/charges/{id}", charges.retrieve),
    _post("/v1/setup_intents", setup_intents.create, setup_intents.CREATE),
    _get("/v1/setup_intents", setup_intents.list_, setup_intents.LIST),
    _get("/v1/setup_intents/{id}", setup_intents.retrieve),
    _post("/v1/setup_intents/{id}/confirm", setup_intents.confirm, setup_intents.CONFIRM),
    _post("/v1/setup_intents/{id}/cancel", setup_intents.cancel, setup_intents.CANCEL),
    _post("/v1/refunds", refunds.create, refunds.CREATE),
    _get("/v1/refunds", refunds.list_, refunds.LIST),
    _get("/v1/refunds/{id}", refunds.retrieve),
    _get("/v1/disputes", disputes.list_, disputes.LIST),
    _get("/v1/disputes/{id}", disputes.retrieve),
    _post("/v1/disputes/{id}/close", disputes.close, EXPAND),
    _get("/v1/events", events.list_, events.LIST),
    _get("/v1/events/{id}", events.retrieve),
    _post(
        "/v1/webhook_endpoints",
        webhook_endpoints.create,
        webhook_endpoints.CREATE,
        webhook_endpoints.CREATE_REQUIRED,
    ),
    _get("/v1/webhook_endpoints", webhook_endpoints.list_, webhook_endpoints.LIST),
    _get("/v1/webhook_endpoints/{id}", webhook_endpoints.retrieve),
    Route("DELETE", "/v1/webhook_endpoints/{id}", webhook_endpoints.delete, {}),
)
