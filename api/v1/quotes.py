"""What usage would cost, and which prices there are."""

from datetime import datetime
from typing import Annotated

from fastapi import Query, Request
from pydantic import AwareDatetime, Field

from api.access import Caller, in_sight
from api.fields import PAGE_ROWS, Answer, Asking, Cursor, Limit, Number
from api.low_limits import LowLimits
from api.routes import problems, router
from billing import quotes as rules
from billing.prices import LadderSpan, Price
from billing.quotes import BillingMethod
from centavo import Item
from centavo.events import Identifier, Model, Name
from config import clock
from services.desk import prices, quotes

routes = router("prices")


class QuoteQuestion(Asking):
    """Items as if they were used now; for a customer, or for anybody whose plan covers nothing."""

    customer_id: Identifier | None = None
    items: Annotated[list[Item], Field(min_length=1, max_length=64)]

    model_config = Asking.model_config | {
        "json_schema_extra": {
            "examples": [
                {
                    "items": [
                        {
                            "category": "stt",
                            "provider": "openai",
                            "model": "whisper-1",
                            "unit": "second",
                            "quantity": "60",
                        }
                    ]
                }
            ]
        }
    }


class QuotedLineOut(Answer):
    """One item with its price (null: the plan covers it) and what it would cost."""

    category: str
    provider: str
    model: str
    unit: str
    quantity: Number
    unit_price: Number | None = Field(description="For each `per` units; of a ladder, null: the price has its rungs.")
    per: Number | None
    price_id: int | None
    cost: Number
    method: BillingMethod
    is_provider_default: bool


class CoveredOut(Answer):
    """Tokens that the plan covers: within the fee, within tiers that have begun, and those that would begin."""

    tokens: int
    in_fee: int
    in_tiers: int
    further: int
    tiers_begun: int
    tiers_minor: int
    payment_currency: str | None


class QuoteAnswer(Answer):
    """What items would cost in all. `currency` is null where the plan covers everything."""

    total_cost: Number
    currency: str | None
    items: list[QuotedLineOut]
    covered: CoveredOut
    is_free: bool
    is_included: bool
    suggested_method: BillingMethod
    possible_methods: list[BillingMethod]
    price_revision: int

    @classmethod
    def of(cls, found: rules.Quote) -> "QuoteAnswer":
        return cls(
            total_cost=found.cost,
            currency=found.currency,
            items=[_line(one) for one in found.lines],
            covered=CoveredOut.model_validate(found.covered),
            is_free=found.is_free,
            is_included=found.is_included,
            suggested_method=found.suggested,
            possible_methods=list(found.possible),
            price_revision=found.price_revision,
        )


class RungOut(Answer):
    """A step of a ladder: up to so many units (null: without end), each at that price."""

    up_to: Number | None
    unit_price: Number


class PriceOut(Answer):
    """What one product costs from a moment on."""

    price_id: int
    is_own: bool = Field(description="The tenant's own, not everybody's.")
    category: str
    provider: str
    model: str
    unit: str
    currency: str
    unit_price: Number
    per: Number
    ladder: list[RungOut]
    ladder_span: LadderSpan
    is_provider_default: bool
    is_ended: bool
    effective_from: datetime
    revision: int

    @classmethod
    def of(cls, price: Price, *, is_own: bool) -> "PriceOut":
        return cls(
            price_id=price.price_id,
            is_own=is_own,
            category=price.category,
            provider=price.provider,
            model=price.model,
            unit=price.unit,
            currency=price.currency,
            unit_price=price.unit_price,
            per=price.per,
            ladder=[RungOut.model_validate(one) for one in price.ladder],
            ladder_span=price.ladder_span,
            is_provider_default=price.is_provider_default,
            is_ended=price.is_ended,
            effective_from=price.effective_from,
            revision=price.revision,
        )


class PricePage(Answer):
    """A page of prices, in the order in which they were added; `next` is null where there are no more for now."""

    prices: list[PriceOut]
    next: str | None


class PriceFound(Answer):
    """The price that usage of a product is rated by."""

    price: PriceOut
    serves_as_default: bool = Field(description="No price names the model: one of its provider's serves it.")


@routes.post("/quotes", operation_id="quote", summary="What usage would cost", responses=problems(404, has_body=True))
def quote(request: Request, caller: Caller, question: QuoteQuestion) -> QuoteAnswer:
    """Rated as usage would be: unit prices, costs, total, what fee and tiers cover, how it could be paid."""
    if question.customer_id is not None:
        in_sight(caller, question.customer_id)
        low_limits: LowLimits = request.app.state.low_limits
        low_limits.take(caller.tenant_id, question.customer_id)
    return QuoteAnswer.of(quotes.quote(caller.tenant_id, question.customer_id, question.items, clock.now()))


@routes.get("/prices", operation_id="list_prices", summary="The price book", responses=problems(404))
def list_prices(
    caller: Caller,
    provider: Annotated[Name | None, Query(description="Of this provider alone.")] = None,
    limit: Limit = PAGE_ROWS,
    cursor: Cursor = None,
) -> PricePage:
    """The tenant's own prices and everybody's, past and future ones too, in the order in which they were added."""
    page = prices.page(caller.tenant_id, provider, limit=limit, at=cursor)
    return PricePage(prices=[PriceOut.of(one, is_own=is_own) for one, is_own in page.rows], next=page.next)


@routes.get("/prices/lookup", operation_id="look_up_price", summary="The price of a product", responses=problems(404))
def look_up_price(
    caller: Caller,
    category: Annotated[Name, Query(examples=["llm_prompt"])],
    provider: Annotated[Name, Query(examples=["openai"])],
    model: Annotated[Model, Query(examples=["gpt-4"])],
    unit: Annotated[Name, Query(examples=["token"])],
    at: Annotated[AwareDatetime | None, Query(description="For usage that occurs then; now if left out.")] = None,
) -> PriceFound:
    """The tenant's own before everybody's, the model's before a provider's default."""
    product = (category, provider, model, unit)
    found = quotes.price_for(caller.tenant_id, product, at or clock.now())
    return PriceFound(price=PriceOut.of(found.price, is_own=found.is_own), serves_as_default=found.is_provider_default)


def _line(line: rules.QuotedLine) -> QuotedLineOut:
    item, price = line.item, line.price
    return QuotedLineOut(
        category=item.category,
        provider=item.provider,
        model=item.model,
        unit=item.unit,
        quantity=item.quantity,
        unit_price=price.unit_price if price is not None and not price.ladder else None,
        per=price.per if price is not None else None,
        price_id=price.price_id if price is not None else None,
        cost=line.cost,
        method=line.method,
        is_provider_default=line.is_provider_default,
    )
