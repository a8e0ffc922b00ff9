"""A tenant's own prices: dated, added and never overwritten. The price book is read in `api.v1.quotes`."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Path, Request, Response
from pydantic import Field

from api.access import Admin
from api.fields import Amount, Answer, Asking, Currency, UnitPrice
from api.idempotency import IdempotencyKey, answered_once
from api.routes import problems, router
from api.v1.quotes import PriceOut
from billing.prices import LadderSpan, Price
from centavo.events import Model, Moment, Name, Text
from config import clock
from services.books.catalogue_files import price_of
from services.desk import prices
from services.requests import Act

routes = router("prices")

RUNGS_MAX = 100
PRICE_ID_MAX = 2**62
#: Left out, a price begins so long after it was asked for: past the notice that is given of each change.
BEGINS_AFTER = 2 * prices.NOTICE

PriceId = Annotated[int, Path(ge=1, le=PRICE_ID_MAX, description="One of the tenant's own.")]
EffectiveFrom = Annotated[
    Moment | None,
    Field(
        description="From then on; at least a minute ahead where it takes another's place. "
        f"Left out, {BEGINS_AFTER // timedelta(minutes=1)} minutes after it was asked for first.",
        examples=["2026-12-01T00:00:00Z"],
    ),
]


class RungQuestion(Asking):
    """A step of a ladder: up to so many units (left out: without end), each at that price."""

    up_to: Amount | None = None
    unit_price: UnitPrice


class PriceQuestion(Asking):
    """What one product is to cost the tenant's customers: a price for each `per` units, or a ladder."""

    category: Name
    provider: Name
    model: Model
    unit: Name
    currency: Currency
    unit_price: UnitPrice | None = None
    per: Amount | None = Field(default=None, description="Left out, 1.")
    ladder: Annotated[tuple[RungQuestion, ...], Field(max_length=RUNGS_MAX)] = ()
    ladder_span: LadderSpan = LadderSpan.EVENT
    is_provider_default: bool = Field(default=False, description="It serves models that no price names, too.")
    effective_from: EffectiveFrom = None
    description: Text | None = None
    is_correction: bool = Field(default=False, description="It corrects the price of the same start.")

    model_config = Asking.model_config | {
        "json_schema_extra": {
            "examples": [
                {
                    "category": "llm_prompt",
                    "provider": "openai",
                    "model": "gpt-4",
                    "unit": "token",
                    "currency": "USD",
                    "unit_price": "0.00003",
                    "effective_from": "2026-12-01T00:00:00Z",
                }
            ]
        }
    }

    def said(self) -> dict[str, Any]:
        """As a catalogue says it."""
        words = self.model_dump(exclude={"is_correction", "is_provider_default", "effective_from"}, exclude_none=True)
        return words | {"provider_default": self.is_provider_default}


class PriceEnding(Asking):
    """From when on a price holds no longer."""

    effective_from: EffectiveFrom = None

    model_config = Asking.model_config | {
        "json_schema_extra": {"examples": [{"effective_from": "2026-12-01T00:00:00Z"}]}
    }


class PriceAnswer(Answer):
    """A price as it stands in the book."""

    price: PriceOut

    @classmethod
    def of(cls, price: Price) -> "PriceAnswer":
        return cls(price=PriceOut.of(price, is_own=True))


@routes.post(
    "/prices",
    operation_id="create_price",
    summary="Add a price",
    status_code=201,
    response_model=PriceAnswer,
    responses=problems(404, 409, has_body=True),
)
def create_price(request: Request, caller: Admin, question: PriceQuestion, idempotency_key: IdempotencyKey) -> Response:
    """It ends the one before it at its start. Nothing in the book is overwritten: what was charged can be explained."""

    def work(first_at: datetime) -> tuple[int, PriceAnswer]:
        starts = question.effective_from or first_at + BEGINS_AFTER
        wanted = price_of(question.said(), caller.tenant_id, starts)
        return 201, PriceAnswer.of(prices.add(wanted, clock.now(), is_correction=question.is_correction))

    product = f"{question.category}/{question.provider}/{question.model}/{question.unit}"
    act = Act("price.create", product, question.model_dump(mode="json", exclude_unset=True))
    return answered_once(request, caller, idempotency_key, question, work, act=act)


@routes.post(
    "/prices/{price_id}/end",
    operation_id="end_price",
    summary="Let a price hold no longer",
    status_code=201,
    response_model=PriceAnswer,
    responses=problems(404, 409, has_body=True),
)
def end_price(
    request: Request, caller: Admin, price_id: PriceId, question: PriceEnding, idempotency_key: IdempotencyKey
) -> Response:
    """Everybody's price of the product holds then, where there is one; else its usage is parked."""

    def work(first_at: datetime) -> tuple[int, PriceAnswer]:
        at = question.effective_from or first_at + BEGINS_AFTER
        return 201, PriceAnswer.of(prices.end(caller.tenant_id, price_id, at, clock.now()))

    act = Act("price.end", str(price_id), question.model_dump(mode="json"))
    return answered_once(request, caller, idempotency_key, question, work, act=act)
