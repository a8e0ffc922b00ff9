"""Customers' cards. No number is ever here: a card is Stripe's id, its brand, its last four digits and its expiry."""

from datetime import datetime
from typing import Annotated

from fastapi import Path, Request, Response
from pydantic import Field

from api.access import Admin, CustomerId, Seen
from api.fields import Answer, Asking
from api.idempotency import IdempotencyKey, answered_once
from api.routes import problems, router
from config import clock
from db.cards import CardRow
from services import requests
from services.collecting import cards
from services.collecting.gateways import gateway
from services.requests import Act

routes = router("cards")

PATH = "/customers/{customer_id:path}/cards"
_ID = r"^(pm|card|src)_[A-Za-z0-9_]{1,128}$"

CardId = Annotated[str, Path(pattern=_ID, description="Stripe's payment method.", examples=["pm_1PabcdEfGhIjKlMn"])]


class CardQuestion(Asking):
    """A payment method that Stripe gave, such as one that a browser made."""

    payment_method: Annotated[str, Field(pattern=_ID)]

    model_config = Asking.model_config | {
        "json_schema_extra": {"examples": [{"payment_method": "pm_1PabcdEfGhIjKlMn"}]},
    }


class CardOut(Answer):
    """A card; one with a `hold_reason` is never tried again."""

    payment_method_id: str
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None
    attached_at: datetime
    detached_at: datetime | None
    hold_reason: str | None
    is_default: bool = Field(description="The customer pays with it.")

    @classmethod
    def of(cls, row: CardRow) -> "CardOut":
        return cls(**{name: getattr(row, name) for name in cls.model_fields})


class CardList(Answer):
    """A customer's cards, the latest first; those that are gone, too."""

    cards: list[CardOut]


class SetupAnswer(Answer):
    """What the customer's browser confirms with Stripe's script; the card is then told by Stripe."""

    setup_intent_id: str
    client_secret: str


@routes.get(PATH, operation_id="list_cards", summary="With what a customer pays", responses=problems(404))
def list_cards(seen: Seen) -> CardList:
    """As Stripe has told of them."""
    return CardList(cards=[CardOut.of(one) for one in cards.cards_of(*seen)])


@routes.post(
    PATH,
    operation_id="attach_card",
    summary="Give a customer a card",
    status_code=201,
    response_model=CardList,
    responses=problems(404, 409, has_body=True),
)
def attach_card(
    request: Request, caller: Admin, customer_id: CustomerId, question: CardQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """The customer pays with it from now on; what waited for a card is tried again."""

    def work(_first_at: datetime) -> tuple[int, CardList]:
        cards.attach(caller.tenant_id, customer_id, question.payment_method, gateway(), clock.now())
        return 201, _cards_of(caller.tenant_id, customer_id)

    act = Act("card.attach", customer_id, {"payment_method": question.payment_method})
    return answered_once(request, caller, idempotency_key, question, work, act=act)


@routes.post(
    f"{PATH}/setup",
    operation_id="set_up_card",
    summary="Begin to take a card in the customer's browser",
    status_code=201,
    responses=problems(404),
)
def set_up_card(caller: Admin, customer_id: CustomerId) -> SetupAnswer:
    """For charges while the customer is away. Each time it is another: what nobody confirms comes to nothing."""
    requests.note(caller, Act("card.set_up", customer_id), clock.now())
    begun = cards.start_setup(caller.tenant_id, customer_id, gateway(), clock.now())
    return SetupAnswer(setup_intent_id=begun.setup_intent_id, client_secret=begun.client_secret)


@routes.put(
    f"{PATH}/{{payment_method}}/default",
    operation_id="choose_card",
    summary="Let a customer pay with another of their cards",
    responses=problems(404),
)
def choose_card(caller: Admin, customer_id: CustomerId, payment_method: CardId) -> CardList:
    """What waited for a card is tried again."""
    requests.note(caller, Act("card.choose", customer_id, {"payment_method": payment_method}), clock.now())
    cards.choose(caller.tenant_id, customer_id, payment_method, clock.now())
    return _cards_of(caller.tenant_id, customer_id)


@routes.delete(
    f"{PATH}/{{payment_method}}",
    operation_id="detach_card",
    summary="Take a card from a customer",
    status_code=204,
    response_class=Response,
    responses=problems(404),
)
def detach_card(caller: Admin, customer_id: CustomerId, payment_method: CardId) -> None:
    """For good: Stripe attaches none a second time."""
    requests.note(caller, Act("card.detach", customer_id, {"payment_method": payment_method}), clock.now())
    cards.detach(caller.tenant_id, customer_id, payment_method, gateway(), clock.now())


def _cards_of(tenant_id: str, customer_id: str) -> CardList:
    return CardList(cards=[CardOut.of(one) for one in cards.cards_of(tenant_id, customer_id)])
