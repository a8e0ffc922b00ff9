"""Which requests the double knows: path, handler, and the parameters each one takes."""

from collections.abc import Callable
from dataclasses import dataclass

from sandbox.stripe_double import charges, customers, payment_intents, payment_methods
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


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/customers", customers.create, customers.CREATE),
    Route("GET", "/v1/customers", customers.list_, customers.LIST),
    Route("GET", "/v1/customers/{id}", customers.retrieve, EXPAND),
    Route("POST", "/v1/customers/{id}", customers.update, customers.UPDATE),
    Route("GET", "/v1/customers/{id}/payment_methods", customers.list_methods, customers.LIST_METHODS),
    Route(
        "POST",
        "/v1/payment_methods",
        payment_methods.create,
        payment_methods.CREATE,
        payment_methods.CREATE_REQUIRED,
    ),
    Route("GET", "/v1/payment_methods", payment_methods.list_, payment_methods.LIST),
    Route("GET", "/v1/payment_methods/{id}", payment_methods.retrieve, EXPAND),
    Route(
        "POST",
        "/v1/payment_methods/{id}/attach",
        payment_methods.attach,
        payment_methods.ATTACH,
        payment_methods.ATTACH_REQUIRED,
    ),
    Route("POST", "/v1/payment_methods/{id}/detach", payment_methods.detach, payment_methods.DETACH),
    Route(
        "POST",
        "/v1/payment_intents",
        payment_intents.create,
        payment_intents.CREATE,
        payment_intents.CREATE_REQUIRED,
    ),
    Route("GET", "/v1/payment_intents", payment_intents.list_, payment_intents.LIST),
    Route("GET", "/v1/payment_intents/{id}", payment_intents.retrieve, EXPAND),
    Route("POST", "/v1/payment_intents/{id}", payment_intents.update, payment_intents.UPDATE),
    Route("POST", "/v1/payment_intents/{id}/confirm", payment_intents.confirm, payment_intents.CONFIRM),
    Route("POST", "/v1/payment_intents/{id}/cancel", payment_intents.cancel, payment_intents.CANCEL),
    Route("GET", "/v1/charges", charges.list_, charges.LIST),
    Route("GET", "/v1/charges/{id}", charges.retrieve, EXPAND),
)
