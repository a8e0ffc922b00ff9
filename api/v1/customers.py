"""What customers have used, and what that came to: one of them, and all at a glance."""

from datetime import datetime

from pydantic import Field

from api.access import Seen, Viewer
from api.fields import PAGE_ROWS, Answer, Cursor, Limit
from api.routes import problems, router
from billing.payments import PaymentKind
from config import clock
from services.desk import summaries

routes = router("customers")


class PaymentSumOut(Answer):
    """Payments of a kind that fell due in the period and were not voided."""

    kind: PaymentKind
    currency: str
    payments: int
    amount_minor: int
    paid: int
    paid_minor: int = Field(description="What came in, less what was given back.")
    due_minor: int = Field(description="What is still to be collected.")


class Summary(Answer):
    """What a customer has used in the period around now, and what that came to."""

    customer_id: str
    plan_id: str
    plan_version: int
    period_starts_at: datetime
    period_ends_at: datetime
    tokens: int
    included_tokens: int
    tier_size: int | None
    tier: int = Field(description="How many tiers have begun; 0: all is within the fee.")
    tier_from: int
    tier_to: int | None
    payment_currency: str
    fixed_fee_minor: int = Field(description="Of the fees of this period, in minor units.")
    tier_payments: int
    tier_payments_minor: int
    total_minor: int = Field(description="Fees and tiers together.")
    due_minor: int = Field(description="What of these is still to be collected.")
    payments: list[PaymentSumOut]


class CustomerSummary(Answer):
    """A customer's period around now; without a row of its own, nothing was used in it yet."""

    customer_id: str
    plan_id: str
    plan_version: int
    period_starts_at: datetime | None
    period_ends_at: datetime | None
    tokens: int
    included_tokens: int
    tier: int
    payment_currency: str
    due_minor: int = Field(description="What of fees and tiers is still to be collected.")
    paid_minor: int = Field(description="What came in, less what was given back.")


class CustomerPage(Answer):
    """A page of customers, by name."""

    customers: list[CustomerSummary]
    next: str | None


@routes.get("/customers", operation_id="list_customers", summary="Every customer at a glance", responses=problems(404))
def list_customers(caller: Viewer, limit: Limit = PAGE_ROWS, cursor: Cursor = None) -> CustomerPage:
    """Tokens, tiers and what is due of each, in one answer."""
    page = summaries.customers(caller.tenant_id, clock.now(), limit=limit, at=cursor)
    return CustomerPage(customers=[CustomerSummary.model_validate(one) for one in page.rows], next=page.next)


@routes.get(
    "/customers/{customer_id:path}/summary",
    operation_id="get_summary",
    summary="A customer's period at a glance",
    responses=problems(404),
)
def get_summary(seen: Seen) -> Summary:
    """Tokens, the tier that they are in, and what fees and tiers have come to."""
    found = summaries.summary(*seen, clock.now())
    _, fee = found.of(PaymentKind.SUBSCRIPTION)
    tiers, tiers_minor = found.of(PaymentKind.TIER)
    return Summary(
        customer_id=found.customer_id,
        plan_id=found.plan_id,
        plan_version=found.plan_version,
        period_starts_at=found.period_starts_at,
        period_ends_at=found.period_ends_at,
        tokens=found.tokens,
        included_tokens=found.included_tokens,
        tier_size=found.tier_size,
        tier=found.tier,
        tier_from=found.tier_from,
        tier_to=found.tier_to,
        payment_currency=found.payment_currency,
        fixed_fee_minor=fee,
        tier_payments=tiers,
        tier_payments_minor=tiers_minor,
        total_minor=fee + tiers_minor,
        due_minor=found.due_minor,
        payments=[PaymentSumOut.model_validate(one) for one in found.payments],
    )
