"""What a customer has, and whether it is enough: asked before each model call, so answered directly (`api.asked`)."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import Field

from api.access import Seen, SeenAmongAll, for_own_purpose
from api.asked import AskedRoute
from api.fields import Amount, Answer, Asking, Currency, Number
from api.low_limits import LowLimits
from api.routes import answered, problems, router
from billing.affordability import Affordability, Refusal
from billing.grants import Source
from centavo import Item
from centavo.events import Identifier, Name
from config import clock
from services.desk import wallets
from services.desk.wallets import CustomerBalance, Purpose, WalletBalance

routes = router("customers", route_class=AskedRoute)


class SourceOut(Answer):
    """What remains of all that came from one source; when the first of it ends, and how much soon."""

    source: Source
    remaining: Number
    expires_at: datetime | None
    expiring_soon: Number


class RefillOut(Answer):
    """The last grant that a wallet was given."""

    at: datetime
    amount: Number
    source: Source


class ResetOut(Answer):
    """When free credits come next, and how many."""

    at: datetime
    amount: Number


class WorthOut(Answer):
    """An estimate in US dollars, at a rate that holds since then (null: it always does)."""

    usd: Number
    rate: Number
    rate_from: datetime | None


class WalletOut(Answer):
    """A wallet in its currency: balance = available + reserved + upcoming + ended."""

    currency: str
    balance: Number
    available: Number = Field(description="What pays for something that occurs now; below zero is what is owed.")
    reserved: Number
    debt: Number
    upcoming: Number
    ended: Number
    expiring_soon: Number
    expires_at: datetime | None
    is_low: bool
    low_below: Number | None
    sources: list[SourceOut]
    used_total: Number
    purchased_total: Number
    received_total: Number
    last_refill: RefillOut | None
    next_reset: ResetOut | None
    worth: WorthOut | None

    @classmethod
    def of(cls, wallet: WalletBalance) -> "WalletOut":
        has = wallet.balance
        return cls(
            currency=wallet.currency,
            balance=has.balance,
            available=has.available,
            reserved=has.reserved,
            debt=has.debt,
            upcoming=has.upcoming,
            ended=has.ended,
            expiring_soon=has.expiring_soon,
            expires_at=has.expires_at,
            is_low=wallet.is_low,
            low_below=wallet.low_below,
            sources=[SourceOut.model_validate(one) for one in has.sources],
            used_total=wallet.used_total,
            purchased_total=wallet.purchased_total,
            received_total=wallet.received_total,
            last_refill=RefillOut.model_validate(wallet.last_refill) if wallet.last_refill else None,
            next_reset=ResetOut.model_validate(wallet.next_reset) if wallet.next_reset else None,
            worth=WorthOut.model_validate(wallet.worth) if wallet.worth else None,
        )


class PlanOut(Answer):
    """The plan of the period around now."""

    plan_id: str
    version: int
    name: str


class CustomerWallet(Answer):
    """A customer's wallets at a moment."""

    customer_id: str
    at: datetime
    status: str = Field(description="`active`, `paused` or `ended`: the subscription's.", examples=["active"])
    plan: PlanOut
    period_ends_at: datetime
    wallets: list[WalletOut]

    @classmethod
    def of(cls, found: CustomerBalance) -> "CustomerWallet":
        return cls(
            customer_id=found.customer_id,
            at=found.at,
            status=found.status,
            plan=PlanOut(plan_id=found.plan_id, version=found.plan_version, name=found.plan_name),
            period_ends_at=found.period_ends_at,
            wallets=[WalletOut.of(one) for one in found.wallets],
        )


class AffordabilityQuestion(Asking):
    """A cost, or items; and with which buffer, if not the installation's."""

    cost: Amount | None = None
    currency: Currency | None = Field(default=None, description="Of the cost; left out, the only wallet's.")
    items: Annotated[list[Item], Field(min_length=1, max_length=64)] | None = None
    buffer: Amount | None = Field(default=None, description="1 to 100; left out, 1.2 or as the setting says.")
    user_id: Identifier | None = Field(default=None, description="Whose usage it is to be: quotas of users.")
    organization_id: Identifier | None = None
    service_type: Name | None = None
    feature: Identifier | None = None

    model_config = Asking.model_config | {
        "json_schema_extra": {"examples": [{"cost": "0.25", "currency": "USD"}]},
    }


class CheckOut(Answer):
    """One thing that was measured: how much of a unit (a currency, `token` or `event`) is there, and is needed."""

    unit: str
    available: Number
    required: Number
    is_affordable: bool
    reason: Refusal | None
    quota: str | None = Field(description="The name of the quota, where it is one.")


class AffordabilityAnswer(Answer):
    """Whether it goes; `unit`, `available` and `required` are those of the check that decided."""

    is_affordable: bool
    unit: str
    available: Number
    required: Number
    reason: Refusal | None
    checks: list[CheckOut]

    @classmethod
    def of(cls, found: Affordability) -> "AffordabilityAnswer":
        return cls(
            is_affordable=found.is_affordable,
            unit=found.unit,
            available=found.available,
            required=found.required,
            reason=found.reason,
            checks=[
                CheckOut(
                    unit=one.unit,
                    available=one.available,
                    required=one.required,
                    is_affordable=one.is_affordable,
                    reason=one.refusal,
                    quota=one.quota,
                )
                for one in found.checks
            ],
        )


@routes.get(
    "/customers/{customer_id:path}/wallet",
    operation_id="get_wallet",
    summary="What a customer has",
    response_model=CustomerWallet,
    responses=problems(404),
)
def get_wallet(
    seen: Seen, currency: Annotated[str | None, Query(min_length=3, max_length=6, pattern="^[A-Z]+$")] = None
) -> Response:
    """All wallets, or the one in a currency: available, reserved, by source, what ends soon, totals, free credits."""
    return answered(CustomerWallet.of(wallets.balance(*seen, clock.now(), currency)))


@routes.post(
    "/customers/{customer_id:path}/affordability",
    operation_id="check_affordability",
    summary="Whether a customer may use that much",
    response_model=AffordabilityAnswer,
    responses=problems(404, has_body=True),
)
def check_affordability(request: Request, seen: SeenAmongAll, question: AffordabilityQuestion) -> Response:
    """Asked before each model call; with a buffer: nobody knows how long an answer becomes. Sets nothing aside."""
    for_own_purpose(request, question.user_id, question.organization_id)
    low_limits: LowLimits = request.app.state.low_limits
    low_limits.take(*seen)
    cost: Decimal | None = question.cost
    found = wallets.can_afford(
        *seen,
        clock.now(),
        cost=cost,
        currency=question.currency,
        items=question.items,
        buffer=question.buffer,
        purpose=Purpose(question.user_id, question.organization_id, question.service_type, question.feature),
    )
    return answered(AffordabilityAnswer.of(found))
