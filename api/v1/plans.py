"""What customers can agree to."""

from typing import Annotated

from fastapi import Path
from pydantic import Field

from api.access import Caller
from api.fields import Answer, Number
from api.routes import problems, router
from billing.errors import PlanNotFound
from billing.plans import Anchor, LateEvents, Plan, Proration, UnowedTiers
from centavo.events import Identifier
from services.books import tenants

routes = router("plans")

PlanName = Annotated[Identifier, Path(description="The plan.", examples=["tiers-8m"])]


class PlanVersion(Answer):
    """One version of a plan, as customers agreed to it; it never changes."""

    plan_id: str
    version: int
    name: str
    payment_currency: str
    fixed_fee_minor: int
    included_tokens: int
    tier_size: int | None = Field(description="Null: every unit is paid from the wallet.")
    tier_fee_minor: int
    dunning_days: list[int] = Field(description="After so many days a declined payment is tried again.")
    dunning_hour: int
    open_tiers_max: int = Field(description="With so many tier payments unpaid, nothing more is affordable.")
    free_credits: Number | None = Field(description="For each period; null: as the installation has it.")
    free_credits_currency: str
    anchor: Anchor
    proration: Proration
    late_events: LateEvents
    grace_hours: int
    unowed_tiers: UnowedTiers
    day_payments_max: int | None
    day_minor_max: int | None


class Plans(Answer):
    """Versions of plans, by plan and version."""

    plans: list[PlanVersion]

    @classmethod
    def of(cls, found: list[Plan]) -> "Plans":
        return cls(plans=[PlanVersion.model_validate(one) for one in found])


@routes.get("/plans", operation_id="list_plans", summary="The tenant's plans", responses=problems())
def list_plans(caller: Caller) -> Plans:
    """Every version of every plan: customers may be on an older one."""
    return Plans.of(tenants.plans_of(caller.tenant_id))


@routes.get("/plans/{plan_id:path}", operation_id="get_plan", summary="One plan", responses=problems(404))
def get_plan(caller: Caller, plan_id: PlanName) -> Plans:
    """All its versions; the last one is what a customer gets who agrees to it now."""
    found = [one for one in tenants.plans_of(caller.tenant_id) if one.plan_id == plan_id]
    if not found:
        raise PlanNotFound(plan_id=plan_id)
    return Plans.of(found)
