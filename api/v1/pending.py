"""Usage that was deferred: settled or cancelled, each once."""

from fastapi import Request, Response
from pydantic import Field

from api.access import Admin, Writer
from api.fields import Asking
from api.idempotency import IdempotencyKey, answered_once
from api.routes import problems, router
from api.v1.usage import EventKey, UsageAnswer
from billing.quotes import BillingMethod
from centavo.events import Text
from config import clock
from services.metering import pending
from services.requests import Act

routes = router("usage")


class SettleQuestion(Asking):
    """How it is to be charged."""

    force: bool = Field(default=False, description="Into debt, where nothing covers it.")
    billing_method: BillingMethod | None = Field(
        default=None, description="Refuse with 409 what would not be paid for like this, all of it."
    )

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"force": False}]}}


class CancelQuestion(Asking):
    """Why it is not to be charged."""

    reason: Text

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"reason": "the call failed"}]}}


@routes.post(
    "/usage/{key:path}/settle",
    operation_id="settle_usage",
    summary="Charge an event that was deferred",
    response_model=UsageAnswer,
    responses=problems(402, 404, 409, has_body=True),
)
def settle_usage(
    request: Request, caller: Writer, key: EventKey, question: SettleQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """Once; 402 where nothing covers it, and then it goes on waiting, unless it is forced."""

    def work(_now: object) -> tuple[int, UsageAnswer]:
        found = pending.settle(
            caller.tenant_id, key, clock.now(), is_forced=question.force, method=question.billing_method
        )
        return 200, UsageAnswer.of(found)

    return answered_once(request, caller, idempotency_key, question, work)


@routes.post(
    "/usage/{key:path}/cancel",
    operation_id="cancel_usage",
    summary="Never charge an event that was deferred",
    response_model=UsageAnswer,
    responses=problems(404, 409, has_body=True),
)
def cancel_usage(
    request: Request, caller: Admin, key: EventKey, question: CancelQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """Its key stays its own. What is charged already is voided instead."""

    def work(_now: object) -> tuple[int, UsageAnswer]:
        return 200, UsageAnswer.of(pending.cancel(caller.tenant_id, key, question.reason, clock.now()))

    act = Act("usage.cancel", key, {"reason": question.reason})
    return answered_once(request, caller, idempotency_key, question, work, act=act)
