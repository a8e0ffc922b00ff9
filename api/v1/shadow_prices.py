"""Price lists that are tried beside the live one: what usage has cost, and would have cost by them."""

from datetime import date, datetime
from typing import Annotated

from fastapi import Path, Query
from pydantic import Field

from api.access import Viewer
from api.fields import PAGE_ROWS, Answer, Cursor, Limit, Number
from api.routes import problems, router
from centavo.events import Identifier, Name
from db.shadowing import DaySum
from services.metering import shadowing

routes = router("prices")

ListName = Annotated[Name, Path(description="The list's name.", examples=["next-year"])]


class ShadowOut(Answer):
    """A list: what was charged from its start on, and before its stop, is rated by it."""

    name: str
    prices: int = Field(description="How many; they come before the book's.")
    started_at: datetime
    stopped_at: datetime | None


class ShadowList(Answer):
    """The tenant's lists, stopped ones too."""

    lists: list[ShadowOut]


class ComparedOut(Answer):
    """What usage came to in a currency; without one, what the list can't rate and cost nothing."""

    currency: str | None
    events: int
    unrated: int = Field(description="Of these, which the list can't rate: they count as they were charged.")
    live: Number
    shadow: Number
    difference: Number

    @classmethod
    def of(cls, found: DaySum) -> "ComparedOut":
        return cls(**_said(found))


class ComparedDayOut(ComparedOut):
    """The same of a customer and a day, in UTC, on which it occurred."""

    customer_id: str
    day: date

    @classmethod
    def of(cls, found: DaySum) -> "ComparedDayOut":
        return cls(customer_id=found.customer_id, day=found.day, **_said(found))


class ShadowAnswer(Answer):
    """A list, what all of it came to as far as it was rated, and a page by customer and day."""

    shadow: ShadowOut
    totals: list[ComparedOut]
    days: list[ComparedDayOut]
    next: str | None


@routes.get(
    "/shadow-prices",
    operation_id="list_shadow_prices",
    summary="Price lists that are tried beside the live one",
    responses=problems(404),
)
def list_shadow_prices(caller: Viewer) -> ShadowList:
    """By name. They are started and stopped on the command line."""
    return ShadowList(lists=[_shadow(one) for one in shadowing.lists_of(caller.tenant_id)])


@routes.get(
    "/shadow-prices/{name}",
    operation_id="compare_shadow_prices",
    summary="What usage costs by a list that is tried",
    responses=problems(404),
)
def compare_shadow_prices(
    caller: Viewer,
    name: ListName,
    customer_id: Annotated[Identifier | None, Query(description="Of this customer alone.")] = None,
    limit: Limit = PAGE_ROWS,
    cursor: Cursor = None,
) -> ShadowAnswer:
    """Some minutes behind what is charged; more, where a period has very many events."""
    found = shadowing.show(caller.tenant_id, name, customer_id, limit=limit, at=cursor)
    return ShadowAnswer(
        shadow=_shadow(found.shadow),
        totals=[ComparedOut.of(one) for one in found.totals],
        days=[ComparedDayOut.of(one) for one in found.page.rows],
        next=found.page.next,
    )


def _shadow(found: shadowing.Shadow) -> ShadowOut:
    return ShadowOut(**{name: getattr(found, name) for name in ShadowOut.model_fields})


def _said(found: DaySum) -> dict[str, object]:
    same = {name: getattr(found, name) for name in ("events", "unrated", "live", "shadow", "difference")}
    return {"currency": found.currency or None, **same}
