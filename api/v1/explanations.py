"""Why: an event and a payment, down to what they were made of."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Path
from pydantic import Field

from api.access import Viewer
from api.fields import Answer
from api.routes import problems, router
from api.v1.usage import EventKey
from billing.events import EventStep
from billing.money import written
from services.desk import explain, trail

routes = router("explanations")

Facts = dict[str, Any]
PaymentName = Annotated[
    str, Path(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_-]+$", description="Its id, or its PaymentIntent's.")
]


class StepOut(Answer):
    """Something that happened to an event, and why or how."""

    step: EventStep
    at: datetime
    detail: str


class Trail(Answer):
    """What happened to an event, the oldest first."""

    key: str
    steps: list[StepOut]


class EventExplained(Answer):
    """An event: what was used, by which prices it was rated, which entries and grants paid, what was corrected."""

    event: Facts = Field(description="The event with its lines: quantity, price, cost, and method of paying for each.")
    prices: list[Facts] = Field(description="Each price as it stands in the book.")
    entries: list[Facts] = Field(description="What moved in wallets, and which grants or debt by how much.")
    grants: list[Facts] = Field(description="The grants that those entries moved.")
    corrections: list[Facts]
    period: Facts | None
    payments: list[Facts] = Field(description="Payments of tiers that this event began.")
    trail: list[StepOut]


class PaymentExplained(Answer):
    """A payment: why it fell due, each attempt with its answer, each move with its reason, what Stripe told."""

    payment: Facts
    customer_may_be_told: str | None
    customer: Facts | None
    period: Facts | None
    attempts: list[Facts]
    log: list[Facts]
    refunds: list[Facts]
    disputes: list[Facts]
    entries: list[Facts]
    webhooks: list[Facts]


@routes.get(
    "/usage/{key:path}/explain",
    operation_id="explain_usage",
    summary="Why an event cost what it did",
    responses=problems(404),
)
def explain_usage(caller: Viewer, key: EventKey) -> EventExplained:
    """Down to price versions, ledger entries and grants. Decimals are texts."""
    return EventExplained(**_plain(explain.explain_event(caller.tenant_id, key)))


@routes.get(
    "/usage/{key:path}/trail",
    operation_id="trail_usage",
    summary="What happened to an event",
    responses=problems(404),
)
def trail_usage(caller: Viewer, key: EventKey) -> Trail:
    """Received, parked, replayed, deferred, settled, charged, rated again, cancelled, voided: when, and why."""
    found = trail.trail(caller.tenant_id, key)
    return Trail(key=key, steps=[StepOut.model_validate(one) for one in found])


@routes.get(
    "/payments/{payment_id}/explain",
    operation_id="explain_payment",
    summary="Why a payment is where it is",
    responses=problems(404),
)
def explain_payment(caller: Viewer, payment_id: PaymentName) -> PaymentExplained:
    """Down to the event that made it fall due, attempts, webhooks, refunds. Decimals are texts."""
    return PaymentExplained(**_plain(explain.explain_payment(payment_id, caller.tenant_id)))


def _plain(value: Any) -> Any:
    """As JSON has it: decimals as texts, moments in UTC."""
    match value:
        case Decimal():
            return written(value)
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case dict():
            return {str(name): _plain(one) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case None | bool() | int() | str():
            return value
    return str(value)
