"""How much may be used: quotas, budgets of features, customers' caps. Asking them is in `api.v1.holds`."""

from typing import Annotated, Any

from fastapi import Path, Query, Response
from pydantic import Field

from api.access import Admin, CustomerId, Viewer
from api.fields import PAGE_ROWS, Amount, Answer, Asking, Currency, Cursor, Limit, Number
from api.routes import Responses, problems, router
from api.v1.subscriptions import Zone
from billing.access import Principal
from billing.quotas import Measure, Per, Quota, QuotaKind, Scope
from centavo.events import Identifier, Name
from config import clock
from services import requests
from services.desk import quotas
from services.desk.quotas import QuotaSet, Wanted
from services.requests import Act

routes = router("quotas")

QuotaName = Annotated[Identifier, Path(description="Its name.", examples=["tokens-of-the-month"])]
Feature = Annotated[Identifier, Path(description="The feature.", examples=["voice-agent"])]
Most = Annotated[Amount, Field(ge=0, description="How much, in tokens, events or units of the currency.")]


class QuotaQuestion(Asking):
    """A quota; all but its limit, and whether it is hard, stays as it is made."""

    limit: Most
    scope: Scope = Scope.TENANT
    subject: Identifier | None = Field(default=None, description="Which one; left out, each of them has so much.")
    service_type: Name | None = None
    feature: Identifier | None = None
    per: Per = Per.MONTH
    measure: Measure = Measure.TOKENS
    currency: Currency | None = Field(default=None, description="Of cost.")
    is_hard: bool = Field(default=False, description="Refuse what does not fit any more.")
    time_zone: Zone | None = None

    model_config = Asking.model_config | {
        "json_schema_extra": {"examples": [{"limit": "1000000", "scope": "user", "per": "day", "is_hard": True}]},
    }


class BudgetQuestion(Asking):
    """What a feature should cost, the tenant or one customer: it warns at 80 and 100 percent, and refuses nothing."""

    limit: Most
    currency: Currency
    per: Per = Per.MONTH
    customer_id: Identifier | None = None
    time_zone: Zone | None = None

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"limit": "250", "currency": "USD"}]}}


class CapQuestion(Asking):
    """A customer's own limit on what usage costs: hard, by the customer's calendar."""

    limit: Most
    currency: Currency
    per: Per = Per.MONTH

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"limit": "25", "currency": "USD"}]}}


class QuotaOut(Answer):
    """A quota, a budget or a cap."""

    name: str
    kind: QuotaKind
    scope: Scope
    subject: str = Field(description="Empty: each of the scope, or the tenant as a whole.")
    service_type: str | None
    feature: str | None
    per: Per
    time_zone: str
    measure: Measure
    currency: str | None
    limit: Number
    is_hard: bool


class QuotaPage(Answer):
    """A page of quotas, by name."""

    quotas: list[QuotaOut]
    next: str | None


_NEW: Responses = {201: {"description": "It counts from now on.", "model": QuotaOut}}


@routes.get("/quotas", operation_id="list_quotas", summary="Quotas, budgets and caps", responses=problems(404))
def list_quotas(
    caller: Viewer,
    subject: Annotated[Identifier | None, Query(description="Of this user, customer or organization alone.")] = None,
    limit: Limit = PAGE_ROWS,
    cursor: Cursor = None,
) -> QuotaPage:
    """Those that count now."""
    page = quotas.page(caller.tenant_id, subject, limit=limit, at=cursor)
    return QuotaPage(quotas=[QuotaOut.model_validate(one) for one in page.rows], next=page.next)


@routes.put(
    "/quotas/{name:path}",
    operation_id="put_quota",
    summary="Set a quota",
    responses=problems(404, 409, has_body=True, but=_NEW),
)
def put_quota(caller: Admin, name: QuotaName, question: QuotaQuestion, response: Response) -> QuotaOut:
    """Make it, or give the one of this name another limit; another quota of the same name is refused."""
    _note(caller, "quota.put", name, question)
    said = _said(question) | {"subject": question.subject or ""}
    return _answered(quotas.set_quota(Wanted(caller.tenant_id, name, **said), clock.now()), response)


@routes.put(
    "/features/{feature:path}/budget",
    operation_id="put_budget",
    summary="Set what a feature should cost",
    responses=problems(404, 409, has_body=True, but=_NEW),
)
def put_budget(caller: Admin, feature: Feature, question: BudgetQuestion, response: Response) -> QuotaOut:
    """One for each currency, day or month, and customer; it is listed and removed as a quota, by its name."""
    _note(caller, "budget.put", feature, question)
    done = quotas.set_budget(caller.tenant_id, feature, now=clock.now(), **_said(question))
    return _answered(done, response)


@routes.put(
    "/customers/{customer_id:path}/cap",
    operation_id="put_cap",
    summary="Set a customer's own limit",
    responses=problems(404, 409, has_body=True, but=_NEW),
)
def put_cap(caller: Admin, customer_id: CustomerId, question: CapQuestion, response: Response) -> QuotaOut:
    """One for each currency, and day or month; it is listed and removed as a quota, by its name."""
    _note(caller, "cap.put", customer_id, question)
    done = quotas.set_cap(caller.tenant_id, customer_id, now=clock.now(), **_said(question))
    return _answered(done, response)


@routes.delete(
    "/quotas/{name:path}",
    operation_id="delete_quota",
    summary="End a quota, a budget or a cap",
    status_code=204,
    response_class=Response,
    responses=problems(404),
)
def delete_quota(caller: Admin, name: QuotaName) -> None:
    """It counts and refuses no more. What it has counted stays."""
    requests.note(caller, Act("quota.end", name), clock.now())
    quotas.end_quota(caller.tenant_id, name, clock.now())


def _said(question: Asking) -> dict[str, Any]:
    return {name: getattr(question, name) for name in type(question).model_fields}


def _note(caller: Principal, action: str, target: str, question: Asking) -> None:
    requests.note(caller, Act(action, target, question.model_dump(mode="json", exclude_unset=True)), clock.now())


def _answered(done: QuotaSet, response: Response) -> QuotaOut:
    response.status_code = 201 if done.is_new else 200
    quota: Quota = done.quota
    return QuotaOut.model_validate(quota)
