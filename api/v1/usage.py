"""Usage that is recorded while the caller waits; what it cost and why; and its void."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from api.access import Admin, Writer
from api.fields import Answer, Asking, Number, Why
from api.idempotency import IdempotencyKey, answered_once
from api.low_limits import LowLimits
from api.routes import Responses, problems, router
from api.v1.history import EventStatus
from api.waiting import Waiting
from billing.payments import PaymentState
from billing.quotes import BillingMethod
from centavo import Item, UsageEvent
from centavo.events import ITEMS_MAX, Identifier, Key, Metadata, Moment, Name, Text
from config import clock
from services.metering import voiding_usage
from services.metering.recording import Recorded, record_one
from services.requests import Act

routes = router("usage")

EventKey = Annotated[Key, Path(description="The key of a usage event.", examples=["charge_call_abc123"])]


#: What is said of the charge, not of what was used.
_OF_THE_CALL = frozenset({"require_cover", "billing_method", "deferred"})


class UsageQuestion(Asking):
    """What was used, by whom and when. Its tenant is the caller's."""

    customer_id: Identifier
    items: Annotated[tuple[Item, ...], Field(min_length=1, max_length=ITEMS_MAX)]
    key: Key | None = Field(default=None, description="It is charged once for its key; left out, the Idempotency-Key.")
    occurred_at: Moment | None = Field(default=None, description="Left out: when it was asked for first.")
    user_id: Identifier | None = None
    organization_id: Identifier | None = None
    client_id: Identifier | None = None
    session_id: Identifier | None = None
    message_id: Identifier | None = None
    feature: Identifier | None = None
    service_type: Name | None = None
    operation: Identifier | None = None
    reference: Text | None = None
    reason: Text | None = None
    hold_id: Identifier | None = Field(default=None, description="What it costs, this hold gives back first.")
    metadata: Metadata = None
    require_cover: bool = Field(
        default=False, description="Refuse with 402 what would end in debt, with 429 what a hard quota has no room for."
    )
    billing_method: BillingMethod | None = Field(
        default=None, description="Refuse with 409 what would not be paid for like this, all of it."
    )
    deferred: bool = Field(default=False, description="Record and price it; charge it when it is settled.")

    model_config = Asking.model_config | {
        "json_schema_extra": {
            "examples": [
                {
                    "customer_id": "ana",
                    "feature": "voice-agent",
                    "items": [
                        {
                            "category": "llm_prompt",
                            "provider": "openai",
                            "model": "gpt-4",
                            "unit": "token",
                            "quantity": "350",
                        }
                    ],
                }
            ]
        }
    }

    def event(self, tenant_id: str, idempotency_key: str, first_at: datetime) -> UsageEvent:
        """The event that this says, the same each time it is said."""
        said = {name: getattr(self, name) for name in type(self).model_fields if name not in _OF_THE_CALL}
        said["key"] = self.key or idempotency_key
        said["occurred_at"] = self.occurred_at or first_at
        return UsageEvent(tenant_id=tenant_id, **said)


class DuePayment(Answer):
    """A payment of a tier that this event began."""

    payment_id: UUID
    kind: str
    tier: int
    amount_minor: int
    currency: str
    state: PaymentState
    due_at: datetime | None
    decline_code: str | None = None
    is_pending: bool = Field(default=True, description="Nobody knows yet whether the money moves.")


class UsageAnswer(Answer):
    """An event as it stands: charged, deferred, or parked with a reason. Not new when that was so before."""

    key: str
    customer_id: str
    status: EventStatus
    is_new: bool
    occurred_at: datetime
    recorded_at: datetime
    period_start: datetime | None
    is_late: bool
    tokens: int
    cost: Number
    currency: str | None
    park_reason: str | None
    park_detail: str | None
    due: list[DuePayment] = Field(description="Payments of tiers that this event began.")

    @classmethod
    def of(cls, found: Recorded) -> "UsageAnswer":
        plain = {name: getattr(found, name) for name in cls.model_fields if name != "due"}
        return cls(**plain, due=[DuePayment.model_validate(one) for one in found.due])


class TiersOut(Answer):
    """Payments of tiers that are owed no longer: not collected, given back, and kept."""

    voided: int
    refunded: int
    kept: int


class VoidAnswer(Answer):
    """What the void of an event took back."""

    key: str
    customer_id: str
    tokens: int
    cost: Number
    currency: str | None
    voided_at: datetime
    reason: str
    tiers: TiersOut


WAITING = frozenset({EventStatus.PARKED, EventStatus.PENDING})

_RECORDED: Responses = {
    200: {"description": "The event was recorded before.", "model": UsageAnswer},
    202: {
        "description": "It is recorded, and parked (charged once its reason is gone) or deferred (when it is settled). "
        "What is both is deferred once its reason is gone.",
        "model": UsageAnswer,
    },
}


WAIT_SECONDS_MAX = 30
Wait = Annotated[
    str | None,
    Query(
        pattern=r"^([1-9]|[12][0-9]|30)s$",
        description=f"So long at most, up to {WAIT_SECONDS_MAX}s, the answer waits for the outcome of `due`: "
        "what is not known by then says `is_pending`. It waits anew when the request is repeated.",
        examples=["5s"],
    ),
]


@routes.post(
    "/usage",
    operation_id="record_usage",
    summary="Record usage and charge it",
    status_code=201,
    response_model=UsageAnswer,
    responses=problems(402, 404, 409, has_body=True, but=_RECORDED),
)
async def record_usage(
    request: Request, caller: Writer, question: UsageQuestion, idempotency_key: IdempotencyKey, wait: Wait = None
) -> Response:
    """By the way that workers record envelopes: exactly once per event key, into debt if need be."""
    low_limits: LowLimits = request.app.state.low_limits

    def work(first_at: datetime) -> tuple[int, UsageAnswer]:
        low_limits.take(caller.tenant_id, question.customer_id)
        event = question.event(caller.tenant_id, idempotency_key, first_at)
        found = record_one(
            event,
            clock.now(),
            require_cover=question.require_cover,
            method=question.billing_method,
            is_deferred=question.deferred,
        )
        status = 202 if found.status in WAITING else 201 if found.is_new else 200
        return status, UsageAnswer.of(found)

    response = await run_in_threadpool(answered_once, request, caller, idempotency_key, question, work)
    if wait is not None:
        waiting: Waiting = request.app.state.waiting
        await _with_outcomes(response, waiting, int(wait.removesuffix("s")))
    return response


async def _with_outcomes(response: Response, waiting: Waiting, seconds: int) -> None:
    """Put into an answer what has become of the payments that are due in it."""
    answer = UsageAnswer.model_validate_json(bytes(response.body))
    if not answer.due:
        return
    seen = await waiting.outcomes([one.payment_id for one in answer.due], seconds)
    for one in answer.due:
        if (outcome := seen.get(one.payment_id)) is not None:
            one.state, one.due_at = PaymentState(outcome.state), outcome.due_at
            one.decline_code, one.is_pending = outcome.decline_code, outcome.is_pending
    response.body = answer.model_dump_json().encode()
    response.headers["Content-Length"] = str(len(response.body))


@routes.post(
    "/usage/{key:path}/void",
    operation_id="void_usage",
    summary="Void an event",
    response_model=VoidAnswer,
    responses=problems(404, 409, has_body=True),
)
def void_usage(
    request: Request, caller: Admin, key: EventKey, question: Why, idempotency_key: IdempotencyKey
) -> Response:
    """As if it had never been: its wallet gets back what it took, into the same grants; tiers are owed no longer."""

    def work(_first_at: datetime) -> tuple[int, VoidAnswer]:
        voided = voiding_usage.void(caller.tenant_id, key, question.reason, clock.now())
        plain = {name: getattr(voided, name) for name in VoidAnswer.model_fields if name != "tiers"}
        return 200, VoidAnswer(**plain, tiers=TiersOut.model_validate(voided.tiers))

    act = Act("usage.void", key, {"reason": question.reason})
    return answered_once(request, caller, idempotency_key, question, work, act=act)
