"""Payments: what is collected, and what people do about it. Why one is where it is: `api.v1.explanations`."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Path, Query, Request, Response
from pydantic import Field

from api.access import Admin, Caller, Viewer, in_sight
from api.fields import PAGE_ROWS, Answer, Asking, Cursor, Limit, Nothing, Why
from api.idempotency import IdempotencyKey, answered_once
from api.routes import problems, router
from api.v1.moving import Minor
from billing.payments import PaymentKind, PaymentState, RefundState
from centavo.events import Identifier, Text
from config import clock
from services.collecting import guards, refunds, retrying, voiding
from services.desk import overview
from services.requests import Act

routes = router("payments")

PaymentId = Annotated[UUID, Path(description="The payment.", examples=["8b7e3f4e-0f0f-5f6a-9a53-0a1c6d5b7e11"])]


class PaymentOut(Answer):
    """A payment as it stands."""

    payment_id: UUID
    customer_id: str
    kind: PaymentKind
    tier: int = Field(description="Of a tier's payment, which one; else 0.")
    amount_minor: int
    refunded_minor: int
    currency: str
    state: PaymentState
    due_at: datetime | None = Field(description="When it is looked at next.")
    attempts_made: int
    last_decline_code: str | None
    created_at: datetime


class PaymentPage(Answer):
    """A page of payments, the newest first."""

    payments: list[PaymentOut]
    next: str | None


class RefundQuestion(Asking):
    """How much to give back, and why."""

    amount_minor: Minor | None = Field(default=None, description="In minor units; left out, all that is left.")
    reason: Text = "requested_by_customer"

    model_config = Asking.model_config | {
        "json_schema_extra": {"examples": [{"amount_minor": 10_000, "reason": "requested_by_customer"}]},
    }


class RefundAnswer(Answer):
    """A refund that was asked for; workers make it at Stripe."""

    refund_id: UUID
    payment_id: UUID
    amount_minor: int
    currency: str
    state: RefundState


@routes.get("/payments", operation_id="list_payments", summary="Payments", responses=problems(404))
def list_payments(
    caller: Caller,
    customer_id: Annotated[Identifier | None, Query(description="Of this customer alone.")] = None,
    state: Annotated[PaymentState | None, Query()] = None,
    kind: Annotated[PaymentKind | None, Query()] = None,
    limit: Limit = PAGE_ROWS,
    cursor: Cursor = None,
) -> PaymentPage:
    """The newest first."""
    whose = in_sight(caller, customer_id)
    page = overview.payment_page(caller.tenant_id, whose, state, kind, limit=limit, at=cursor)
    return PaymentPage(payments=[PaymentOut.model_validate(one) for one in page.rows], next=page.next)


@routes.get("/payments/{payment_id}", operation_id="get_payment", summary="One payment", responses=problems(404))
def get_payment(caller: Viewer, payment_id: PaymentId) -> PaymentOut:
    """How it stands; why, its explanation says."""
    return PaymentOut.model_validate(overview.payment(caller.tenant_id, payment_id))


@routes.post(
    "/payments/{payment_id}/retry",
    operation_id="retry_payment",
    summary="Try a payment again now",
    response_model=PaymentOut,
    responses=problems(404, 409, has_body=True),
)
def retry_payment(
    request: Request, caller: Admin, payment_id: PaymentId, question: Nothing, idempotency_key: IdempotencyKey
) -> Response:
    """Outside its schedule, with the card that there is. The limits of cards, caps and holds are kept."""

    def work(_first_at: datetime) -> tuple[int, PaymentOut]:
        retrying.retry(caller.tenant_id, payment_id, idempotency_key, clock.now())
        return 200, PaymentOut.model_validate(overview.payment(caller.tenant_id, payment_id))

    act = Act("payment.retry", str(payment_id))
    return answered_once(request, caller, idempotency_key, question, work, act=act)


@routes.post(
    "/payments/{payment_id}/approve",
    operation_id="approve_payment",
    summary="Let a payment through that is above a cap",
    response_model=PaymentOut,
    responses=problems(404, 409, has_body=True),
)
def approve_payment(
    request: Request, caller: Admin, payment_id: PaymentId, question: Nothing, idempotency_key: IdempotencyKey
) -> Response:
    """It is due at once."""

    def work(_first_at: datetime) -> tuple[int, PaymentOut]:
        guards.approve(caller.tenant_id, payment_id, clock.now())
        return 200, PaymentOut.model_validate(overview.payment(caller.tenant_id, payment_id))

    act = Act("payment.approve", str(payment_id))
    return answered_once(request, caller, idempotency_key, question, work, act=act)


@routes.post(
    "/payments/{payment_id}/void",
    operation_id="void_payment",
    summary="Collect a payment no more",
    response_model=PaymentOut,
    responses=problems(404, 409, has_body=True),
)
def void_payment(
    request: Request, caller: Admin, payment_id: PaymentId, question: Why, idempotency_key: IdempotencyKey
) -> Response:
    """While Stripe is at it, it is a wish: canceled there next, or given back if the money has moved."""

    def work(_first_at: datetime) -> tuple[int, PaymentOut]:
        voiding.void(caller.tenant_id, payment_id, question.reason, clock.now())
        return 200, PaymentOut.model_validate(overview.payment(caller.tenant_id, payment_id))

    act = Act("payment.void", str(payment_id), {"reason": question.reason})
    return answered_once(request, caller, idempotency_key, question, work, act=act)


@routes.post(
    "/payments/{payment_id}/refunds",
    operation_id="refund_payment",
    summary="Give a payment back",
    status_code=201,
    response_model=RefundAnswer,
    responses=problems(404, 409, has_body=True),
)
def refund_payment(
    request: Request, caller: Admin, payment_id: PaymentId, question: RefundQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """In full or in part, once per key, for ever."""

    def work(_first_at: datetime) -> tuple[int, RefundAnswer]:
        wanted = (question.amount_minor, question.reason, idempotency_key)
        asked = refunds.refund(caller.tenant_id, payment_id, *wanted, clock.now())
        return 201, RefundAnswer(**{name: getattr(asked, name) for name in RefundAnswer.model_fields})

    act = Act("payment.refund", str(payment_id), question.model_dump(mode="json"))
    return answered_once(request, caller, idempotency_key, question, work, act=act)
