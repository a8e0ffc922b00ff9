"""What administrators move: credits they give, value that customers buy. Each is written into their trail."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Request, Response
from pydantic import AwareDatetime, Field

from api.access import Admin, CustomerId
from api.fields import Amount, Answer, Asking, Currency, Number, PaymentCurrency
from api.idempotency import IdempotencyKey, answered_once
from api.routes import problems, router
from billing.grants import Source
from billing.money import written
from billing.payments import PaymentState
from billing.reasons import Reason
from centavo.events import Name
from config import clock
from services.books import adjusting
from services.books import credits as credit_service
from services.books.adjusting import Adjustment
from services.books.credits import PRIORITY_MAX, Grant
from services.collecting import topups
from services.collecting.topups import Offer
from services.requests import Act

routes = router("credits")


Minor = Annotated[int, Field(gt=0, lt=10**15, description="In minor units: 10000 is R$ 100.00.")]


class GrantQuestion(Asking):
    """Value to give: how much of which wallet, from where and why, and when it pays."""

    currency: Currency
    amount: Amount
    source: Source = Source.PROMO
    reason: Annotated[Name, Field(examples=["welcome_bonus"])] = Reason.MANUAL_ADJUSTMENT.value
    valid_from: AwareDatetime | None = Field(default=None, description="It pays for what occurs from then on.")
    expires_at: AwareDatetime | None = Field(default=None, description="And before this.")
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX)] | None = Field(
        default=None, description="The smaller is burned first; left out, as its source has it."
    )

    model_config = Asking.model_config | {
        "json_schema_extra": {
            "examples": [{"currency": "USD", "amount": "100", "source": "promo", "reason": "welcome_bonus"}]
        },
    }


class GrantAnswer(Answer):
    """A grant as it stands in the ledger."""

    customer_id: str
    currency: str
    amount: Number
    balance_after: Number


class AdjustmentQuestion(Asking):
    """How much a wallet is to have more, or below zero less, and why."""

    currency: Currency
    amount: Annotated[Amount, Field(examples=["-5.00"])]
    reason: Annotated[Name, Field(examples=["manual_adjustment"])] = Reason.MANUAL_ADJUSTMENT.value
    into_debt: bool = Field(default=False, description="Take more than is available, if need be.")

    model_config = Asking.model_config | {
        "json_schema_extra": {
            "examples": [{"currency": "USD", "amount": "-5.00", "reason": "manual_adjustment"}],
        },
    }


class TopUpQuestion(Asking):
    """What is bought for how much: so much of a wallet, for minor units of the currency that is paid in."""

    currency: Currency
    credit_amount: Amount
    amount_minor: Minor
    payment_currency: PaymentCurrency

    model_config = Asking.model_config | {
        "json_schema_extra": {
            "examples": [{"currency": "USD", "credit_amount": "20", "amount_minor": 10_000, "payment_currency": "BRL"}]
        },
    }


class TopUpAnswer(Answer):
    """A payment that is due; the wallet gets the value when the money has come in."""

    payment_id: UUID
    customer_id: str
    currency: str
    credit_amount: Number
    amount_minor: int
    payment_currency: str
    state: PaymentState


@routes.post(
    "/customers/{customer_id:path}/grants",
    operation_id="grant_credits",
    summary="Give credits",
    status_code=201,
    response_model=GrantAnswer,
    responses=problems(404, 409, has_body=True),
)
def grant_credits(
    request: Request, caller: Admin, customer_id: CustomerId, question: GrantQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """Once per key, for ever. Debt is paid first, by what arrives."""

    def work(_first_at: datetime) -> tuple[int, GrantAnswer]:
        validity = (question.valid_from, question.expires_at, question.priority)
        what = (question.currency, question.amount, question.source.value, question.reason)
        asked = Grant(caller.tenant_id, customer_id, *what, idempotency_key, *validity)
        given = credit_service.grant(asked, clock.now())
        amounts = {"currency": given.currency, "amount": given.amount, "balance_after": given.balance_after}
        return 201, GrantAnswer(customer_id=customer_id, **amounts)

    detail = {"amount": written(question.amount), "currency": question.currency, "source": question.source.value}
    act = Act("credits.grant", customer_id, detail | {"reason": question.reason})
    return answered_once(request, caller, idempotency_key, question, work, act=act)


@routes.post(
    "/customers/{customer_id:path}/adjustments",
    operation_id="adjust_credits",
    summary="Put a wallet right",
    status_code=201,
    response_model=GrantAnswer,
    responses=problems(402, 404, 409, has_body=True),
)
def adjust_credits(
    request: Request,
    caller: Admin,
    customer_id: CustomerId,
    question: AdjustmentQuestion,
    idempotency_key: IdempotencyKey,
) -> Response:
    """Once per key, for ever. What is taken comes from what would pay now; 402 where less is available."""

    def work(_first_at: datetime) -> tuple[int, GrantAnswer]:
        what = (question.currency, question.amount, question.reason, idempotency_key, question.into_debt)
        done = adjusting.adjust(Adjustment(caller.tenant_id, customer_id, *what), clock.now())
        amounts = {"currency": done.currency, "amount": done.amount, "balance_after": done.balance_after}
        return 201, GrantAnswer(customer_id=customer_id, **amounts)

    act = Act("credits.adjust", customer_id, question.model_dump(mode="json"))
    return answered_once(request, caller, idempotency_key, question, work, act=act)


@routes.post(
    "/customers/{customer_id:path}/top-ups",
    operation_id="request_top_up",
    summary="Let a customer buy value",
    status_code=201,
    response_model=TopUpAnswer,
    responses=problems(404, 409, has_body=True),
)
def request_top_up(
    request: Request, caller: Admin, customer_id: CustomerId, question: TopUpQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """Once per key, for ever: a payment is due at once, and collected from the customer's card."""

    def work(_first_at: datetime) -> tuple[int, TopUpAnswer]:
        offer = Offer(question.credit_amount, question.amount_minor, question.payment_currency)
        asked = topups.request(caller.tenant_id, customer_id, question.currency, offer, idempotency_key, clock.now())
        return 201, TopUpAnswer(
            payment_id=asked.payment_id,
            customer_id=customer_id,
            currency=question.currency,
            credit_amount=asked.credit_amount,
            amount_minor=asked.amount_minor,
            payment_currency=asked.currency,
            state=asked.state,
        )

    detail = {"credit_amount": written(question.credit_amount), "currency": question.currency}
    act = Act("top_up.request", customer_id, detail | {"amount_minor": question.amount_minor})
    return answered_once(request, caller, idempotency_key, question, work, act=act)
