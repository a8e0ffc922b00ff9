"""What has happened: usage, ledger, statistics, usage by hour, day or month."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import Field

from api.access import Caller, Seen, in_sight
from api.fields import PAGE_ROWS, Answer, Currency, Cursor, Limit, Number, Since, Until
from api.paging import remembering, span
from api.routes import problems, router
from billing.quotes import BillingMethod
from centavo.events import Identifier, Name
from config import clock
from services.desk import history
from services.desk.history import Asked, AskedEntries, By, Order, Unit

routes = router("history")


class EventStatus(StrEnum):
    """Where an event stands."""

    CHARGED = "charged"
    PARKED = "parked"
    PENDING = "pending"
    VOIDED = "voided"


class EventOut(Answer):
    """A usage event; cost and tokens are as they are now, after corrections."""

    key: str
    customer_id: str
    status: EventStatus
    occurred_at: datetime
    recorded_at: datetime
    charged_at: datetime | None
    period_start: datetime | None
    is_late: bool
    tokens: int
    cost: Number
    currency: str | None
    user_id: str | None
    organization_id: str | None
    feature: str | None
    service_type: str | None
    operation: str | None
    reference: str | None
    reason: str | None
    park_reason: str | None
    is_archived: bool


class UsagePage(Answer):
    """A page of events, by when they occurred."""

    since: datetime
    until: datetime
    events: list[EventOut]
    next: str | None


class EntryOut(Answer):
    """A ledger entry: one movement between a wallet and a contra account."""

    customer_id: str
    currency: str
    seq: int
    kind: str = Field(examples=["usage"])
    amount: Number
    balance_after: Number
    contra: str
    reason: str | None
    event_key: str | None
    payment_id: str | None
    occurred_at: datetime
    recorded_at: datetime


class LedgerPage(Answer):
    """A page of a wallet's entries, in the order of its balances."""

    since: datetime
    until: datetime
    entries: list[EntryOut]
    next: str | None


class GroupOut(Answer):
    """Events that have one thing in common: `of` says which, `name` is null where they have none of it."""

    of: str = Field(examples=["status"])
    name: str | None
    currency: str | None
    events: int
    tokens: int
    cost: Number


class ActiveOut(Answer):
    """Who has used anything."""

    customers: int
    organizations: int
    users: int


class CollectedOut(Answer):
    """Payments of a kind that succeeded, less what was given back of them."""

    kind: str
    currency: str
    payments: int
    amount_minor: int


class StatisticsAnswer(Answer):
    """A span of usage summed up."""

    since: datetime
    until: datetime
    events: int
    tokens: int
    revenue: dict[str, Number] = Field(description="What usage of the span has cost by now, by currency.")
    groups: list[GroupOut]
    active: ActiveOut
    collected: list[CollectedOut]


class MethodOut(Answer):
    """Charged events of a type of service that were paid for in one way (null: that is archived)."""

    service_type: str | None
    method: BillingMethod | None
    currency: str | None
    events: int
    amount: Number


class Methods(Answer):
    """How usage of a span was paid for, as it was charged; an event that was paid for in two ways counts in both."""

    since: datetime
    until: datetime
    methods: list[MethodOut]


class Largest(Answer):
    """Who, or what, used most in a span, the largest cost first."""

    since: datetime
    until: datetime
    by: By
    groups: list[GroupOut]


class BucketOut(Answer):
    """An hour, day or month of charged usage in one currency (null: what cost nothing)."""

    starts_at: datetime
    currency: str | None
    events: int
    tokens: int
    cost: Number


class Aggregations(Answer):
    """Charged usage by hour, day or month; what is empty is left out."""

    since: datetime
    until: datetime
    unit: Unit
    time_zone: str
    buckets: list[BucketOut]


async def _filters(
    customer_id: Annotated[Identifier | None, Query(description="Of this customer alone.")] = None,
    status: Annotated[EventStatus | None, Query()] = None,
    feature: Annotated[Identifier | None, Query()] = None,
    service_type: Annotated[Name | None, Query(examples=["model_inference"])] = None,
    operation: Annotated[Identifier | None, Query()] = None,
    user_id: Annotated[Identifier | None, Query()] = None,
    organization_id: Annotated[Identifier | None, Query()] = None,
) -> dict[str, Any]:
    return {
        "customer_id": customer_id,
        "status": status.value if status else None,
        "feature": feature,
        "service_type": service_type,
        "operation": operation,
        "user_id": user_id,
        "organization_id": organization_id,
    }


async def _sighted(caller: Caller, filters: Annotated[dict[str, Any], Depends(_filters)]) -> dict[str, Any]:
    """The filters, of those alone whom the caller may see."""
    return filters | {"tenant_id": caller.tenant_id, "customer_id": in_sight(caller, filters["customer_id"])}


Filters = Annotated[dict[str, Any], Depends(_sighted)]


@routes.get("/usage", operation_id="list_usage", summary="Usage events", responses=problems(404))
def list_usage(
    filters: Filters,
    since: Since = None,
    until: Until = None,
    order: Annotated[Order, Query()] = Order.NEWEST,
    limit: Limit = PAGE_ROWS,
    cursor: Cursor = None,
) -> UsagePage:
    """Of a customer, at most 366 days at once; of a whole tenant, 32. A page goes on where the last one ended."""
    begin, end, at = span(since, until, cursor, clock.now())
    page = history.usage(Asked(since=begin, until=end, **filters), limit=limit, at=at, order=order)
    return UsagePage(
        since=begin,
        until=end,
        events=[EventOut.model_validate(one) for one in page.rows],
        next=remembering(begin, end, page.next),
    )


@routes.get("/usage/aggregations", operation_id="aggregate_usage", summary="Usage by time", responses=problems(404))
def aggregate_usage(
    filters: Filters,
    since: Since = None,
    until: Until = None,
    unit: Annotated[Unit, Query(description="Hours of at most 32 days.")] = Unit.DAY,
    time_zone: Annotated[Name, Query(description="In which days and months begin.")] = "UTC",
) -> Aggregations:
    """Charged usage by hour, day or month of a time zone."""
    begin, end, _ = span(since, until, None, clock.now())
    found = history.aggregated(Asked(since=begin, until=end, **filters), unit, time_zone)
    buckets = [BucketOut.model_validate(one) for one in found]
    return Aggregations(since=begin, until=end, unit=unit, time_zone=time_zone, buckets=buckets)


@routes.get("/statistics", operation_id="get_statistics", summary="Usage summed up", responses=problems(404))
def get_statistics(filters: Filters, since: Since = None, until: Until = None) -> StatisticsAnswer:
    """In groups by status, service type and feature; who was active; what payments brought in."""
    begin, end, _ = span(since, until, None, clock.now())
    found = history.statistics(Asked(since=begin, until=end, **filters))
    return StatisticsAnswer(
        since=begin,
        until=end,
        events=found.events,
        tokens=found.tokens,
        revenue=found.revenue(),
        groups=[GroupOut.model_validate(one) for one in found.groups],
        active=ActiveOut.model_validate(found.active),
        collected=[CollectedOut.model_validate(one) for one in found.collected],
    )


@routes.get(
    "/statistics/methods", operation_id="get_methods", summary="How usage was paid for", responses=problems(404)
)
def get_methods(filters: Filters, since: Since = None, until: Until = None) -> Methods:
    """Charged usage by type of service, method and currency. What payments brought in stands in the statistics."""
    begin, end, _ = span(since, until, None, clock.now())
    found = history.by_method(Asked(since=begin, until=end, **filters))
    return Methods(since=begin, until=end, methods=[MethodOut.model_validate(one) for one in found])


@routes.get("/statistics/by/{by}", operation_id="get_largest", summary="Who used most", responses=problems(404))
def get_largest(
    filters: Filters, by: By, since: Since = None, until: Until = None, limit: Limit = PAGE_ROWS
) -> Largest:
    """Charged usage by customer, user, organisation, operation, feature or type of service."""
    begin, end, _ = span(since, until, None, clock.now())
    found = history.largest(Asked(since=begin, until=end, **filters), by, limit)
    return Largest(since=begin, until=end, by=by, groups=[GroupOut.model_validate(one) for one in found])


@routes.get(
    "/customers/{customer_id:path}/ledger",
    operation_id="list_ledger",
    summary="A wallet's entries",
    responses=problems(404),
)
def list_ledger(
    seen: Seen,
    since: Since = None,
    until: Until = None,
    currency: Annotated[Currency | None, Query(description="Of which wallet; left out, the only one.")] = None,
    kind: Annotated[Name | None, Query(description="Of this kind alone.", examples=["grant"])] = None,
    order: Annotated[Order, Query()] = Order.NEWEST,
    limit: Limit = PAGE_ROWS,
    cursor: Cursor = None,
) -> LedgerPage:
    """What was recorded in a span of at most 366 days: each movement with the balance after it."""
    begin, end, at = span(since, until, cursor, clock.now())
    asked = AskedEntries(*seen, begin, end, currency, kind)
    page = history.ledger(asked, limit=limit, at=at, order=order)
    entries = [
        EntryOut(
            **{name: getattr(one, name) for name in EntryOut.model_fields if name != "payment_id"},
            payment_id=str(one.payment_id) if one.payment_id else None,
        )
        for one in page.rows
    ]
    return LedgerPage(since=begin, until=end, entries=entries, next=remembering(begin, end, page.next))
