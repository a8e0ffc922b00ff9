"""Value kept back for usage under way; and what quotas leave."""

from datetime import datetime
from typing import Annotated

from fastapi import Path, Query, Request, Response
from pydantic import AwareDatetime, Field, model_validator

from api.access import CustomerId, OfTenant, Seen, Viewer, Writer, for_own_purpose, in_sight
from api.fields import Amount, Answer, Asking, Currency, Nothing, Number
from api.idempotency import IdempotencyKey, answered_once
from api.low_limits import LowLimits
from api.routes import problems, router
from billing.credit_holds import HoldState
from billing.quotas import Measure, QuotaKind, Scope
from centavo import Item
from centavo.events import ITEMS_MAX, Identifier, Name
from config import clock
from services.desk import credit_holds, quotas
from services.desk.credit_holds import HoldWish, Reserved

routes = router("holds")

HoldId = Annotated[Identifier, Path(description="The hold.", examples=["0b7e3f4e-0f0f-5f6a-9a53-0a1c6d5b7e11"])]
TOKENS_MAX = 10**15


class HoldQuestion(Asking):
    """What to keep back: an amount in a wallet's currency, or what items would cost, with a buffer."""

    amount: Amount | None = None
    currency: Currency | None = Field(default=None, description="With an amount, where there are several wallets.")
    items: Annotated[list[Item], Field(min_length=1, max_length=ITEMS_MAX)] | None = None
    buffer: Amount | None = Field(default=None, description="With items: 1.2 keeps back a fifth more.")
    seconds: Annotated[int, Field(ge=1)] | None = Field(default=None, description="How long it lasts.")
    user_id: Identifier | None = Field(default=None, description="Whose usage it is for: quotas of users.")
    organization_id: Identifier | None = None
    service_type: Name | None = None
    feature: Identifier | None = None

    model_config = Asking.model_config | {
        "json_schema_extra": {"examples": [{"amount": "0.50", "currency": "USD", "seconds": 300}]},
    }

    @model_validator(mode="after")
    def _one_of_both(self) -> "HoldQuestion":
        if (self.amount is None) == (self.items is None):
            raise ValueError("say either an amount or items")
        return self

    def wish(self, tenant_id: str, customer_id: str, idempotency_key: str) -> HoldWish:
        """The hold that this asks for."""
        said = {name: getattr(self, name) for name in type(self).model_fields}
        return HoldWish(tenant_id, customer_id, idempotency_key, **said)


class HoldOpened(Answer):
    """A hold as it was opened, whatever has become of it. Usage that names it as `hold_id` captures it."""

    hold_id: str
    customer_id: str
    amount: Number
    currency: str
    opened_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, found: Reserved) -> "HoldOpened":
        return cls(**{name: getattr(found, name) for name in cls.model_fields})


class HoldOut(Answer):
    """A hold as it stands; what it still keeps back is `amount - captured`, while it is open."""

    hold_id: str
    customer_id: str
    amount: Number
    currency: str
    captured: Number
    state: HoldState
    opened_at: datetime
    expires_at: datetime
    closed_at: datetime | None


class HoldPage(Answer):
    """A customer's holds, the newest first."""

    holds: list[HoldOut]


class QuotaQuestion(Asking):
    """What somebody is about to use; what is not known is left out."""

    customer_id: Identifier
    user_id: Identifier | None = None
    organization_id: Identifier | None = None
    service_type: Name | None = None
    feature: Identifier | None = None
    tokens: Annotated[int, Field(ge=0, le=TOKENS_MAX)] = 0
    events: Annotated[int, Field(ge=0, le=TOKENS_MAX)] = 1
    cost: Annotated[Amount, Field(ge=0)] | None = None
    currency: Currency | None = None

    model_config = Asking.model_config | {
        "json_schema_extra": {"examples": [{"customer_id": "ana", "user_id": "u1", "tokens": 1000}]},
    }


class AllowanceOut(Answer):
    """How a quota stands to the question."""

    name: str
    kind: QuotaKind
    scope: Scope
    measure: Measure
    is_hard: bool
    limit: Number
    used: Number
    asked: Number
    remaining: Number
    resets_at: AwareDatetime
    is_within: bool


class QuotaAnswer(Answer):
    """Whether no hard quota refuses it, and every quota that it would count in."""

    is_allowed: bool
    refused_by: str | None
    allowances: list[AllowanceOut]


@routes.post(
    "/customers/{customer_id:path}/holds",
    operation_id="open_hold",
    summary="Keep value of a wallet back",
    status_code=201,
    response_model=HoldOpened,
    responses=problems(402, 404, 409, has_body=True),
)
def open_hold(
    request: Request, caller: Writer, customer_id: CustomerId, question: HoldQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """Once per key. Refused with 402 where less is available, and with 429 where a hard quota leaves no room."""
    low_limits: LowLimits = request.app.state.low_limits

    def work(_first_at: datetime) -> tuple[int, HoldOpened]:
        low_limits.take(caller.tenant_id, customer_id)
        opened = credit_holds.reserve(question.wish(caller.tenant_id, customer_id, idempotency_key), clock.now())
        return 201, HoldOpened.of(opened)

    return answered_once(request, caller, idempotency_key, question, work)


@routes.get(
    "/customers/{customer_id:path}/holds",
    operation_id="list_holds",
    summary="A customer's holds",
    response_model=HoldPage,
    responses=problems(),
)
def list_holds(
    seen: Seen,
    with_closed: Annotated[bool, Query(description="Those that are closed, too.")] = False,
    limit: Annotated[int, Query(ge=1, le=credit_holds.LIST_MAX)] = 100,
) -> HoldPage:
    """Those that are open, or all, the newest first."""
    found = credit_holds.of_customer(*seen, with_closed=with_closed, limit=limit)
    return HoldPage(holds=[HoldOut.model_validate(one) for one in found])


@routes.get(
    "/holds/{hold_id:path}",
    operation_id="show_hold",
    summary="A hold as it stands",
    response_model=HoldOut,
    responses=problems(404),
)
def show_hold(caller: Viewer, hold_id: HoldId) -> HoldOut:
    """For whoever may see the tenant."""
    return HoldOut.model_validate(credit_holds.show(caller.tenant_id, hold_id))


@routes.post(
    "/holds/{hold_id:path}/release",
    operation_id="release_hold",
    summary="Give back what a hold still keeps back",
    response_model=HoldOut,
    responses=problems(404, 409, has_body=True),
)
def release_hold(
    request: Request, caller: Writer, hold_id: HoldId, question: Nothing, idempotency_key: IdempotencyKey
) -> Response:
    """Harmless where it is closed already."""

    def work(_first_at: datetime) -> tuple[int, HoldOut]:
        return 200, HoldOut.model_validate(credit_holds.release(caller.tenant_id, hold_id, clock.now()))

    return answered_once(request, caller, idempotency_key, question, work)


@routes.post(
    "/quotas/check",
    operation_id="check_quotas",
    summary="Whether quotas leave room for this",
    response_model=QuotaAnswer,
    responses=problems(has_body=True),
)
def check_quotas(request: Request, caller: OfTenant, question: QuotaQuestion) -> QuotaAnswer:
    """Nothing is set aside: two that ask at once may both be told yes."""
    in_sight(caller, question.customer_id)
    for_own_purpose(request, question.user_id, question.organization_id)
    said = {name: value for name in type(question).model_fields if (value := getattr(question, name)) is not None}
    found = quotas.check(quotas.Usage(caller.tenant_id, **said), clock.now())
    refused = found.refused_by
    return QuotaAnswer(
        is_allowed=found.is_allowed,
        refused_by=refused.quota.name if refused else None,
        allowances=[_allowance(one) for one in found.allowances],
    )


def _allowance(one: quotas.Allowance) -> AllowanceOut:
    quota = one.quota
    of_quota = {name: getattr(quota, name) for name in ("name", "kind", "scope", "measure", "is_hard", "limit")}
    of_answer = {name: getattr(one, name) for name in ("used", "asked", "remaining", "resets_at", "is_within")}
    return AllowanceOut(**of_quota, **of_answer)
