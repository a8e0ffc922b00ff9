"""Customers and what they agreed to: making them, their plan, pauses, ends. Each act stands in the trail."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import Path, Request, Response
from pydantic import Field

from api.access import Admin, CustomerId, Seen
from api.fields import Amount, Answer, Asking, Currency, Nothing
from api.idempotency import IdempotencyKey, answered_once
from api.routes import Responses, problems, router
from billing.access import Principal
from centavo.events import Identifier, Name
from config import clock
from services import requests
from services.books import customers
from services.books.customers import NewCustomer
from services.cycle import subscriptions
from services.cycle.subscriptions import At
from services.desk import wallets
from services.requests import Act

routes = router("subscriptions")

PlanId = Annotated[Identifier, Field(description="A plan; its newest version.", examples=["tiers-8m"])]
Zone = Annotated[Name, Field(description="Where the customer's months begin.", examples=["America/Sao_Paulo"])]
When = Annotated[At, Field(description="At once, or when the period ends.")]
WalletCurrency = Annotated[str, Path(pattern=r"^([A-Z]{3}|CREDIT)$", description="Of the wallet.", examples=["USD"])]
WALLETS_MAX = 20


class CustomerQuestion(Asking):
    """Whom to bill, on which plan; without currencies, one wallet in the plan's payment currency."""

    customer_id: Identifier
    plan_id: PlanId
    time_zone: Zone = "America/Sao_Paulo"
    currencies: Annotated[tuple[Currency, ...], Field(max_length=WALLETS_MAX)] = ()

    model_config = Asking.model_config | {
        "json_schema_extra": {"examples": [{"customer_id": "ana", "plan_id": "tiers-8m", "currencies": ["BRL"]}]},
    }


class WalletQuestion(Asking):
    """A wallet to have. What is reserved already stays so."""

    overdraft: Amount | None = Field(default=None, description="How far below zero holds and checks may go.")

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"overdraft": "5"}]}}


class ZoneQuestion(Asking):
    """In which zone months are counted, from the next period on."""

    time_zone: Zone

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"time_zone": "Asia/Tokyo"}]}}


class BeginQuestion(Asking):
    """On which plan to begin again."""

    plan_id: PlanId

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"plan_id": "tiers-8m"}]}}


class PlanQuestion(Asking):
    """Which plan to be on, and from when."""

    plan_id: PlanId
    at: When = At.PERIOD_END

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"plan_id": "prepaid", "at": "now"}]}}


class EndQuestion(Asking):
    """When to end."""

    at: When = At.PERIOD_END

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"at": "period_end"}]}}


class ChangeOut(Answer):
    """One thing that a subscription went through."""

    at: datetime
    move: str = Field(examples=["plan_changed"])
    effective_at: datetime
    detail: dict[str, Any]


class PeriodOut(Answer):
    """A period of a customer."""

    starts_at: datetime
    ends_at: datetime
    plan_id: str
    plan_version: int
    time_zone: str
    tokens: int
    events: int
    tiers_reached: int
    opened_at: datetime | None
    closed_at: datetime | None
    statement_number: int | None


class SubscriptionAnswer(Answer):
    """A subscription as it stands, with its periods and what it went through, in order."""

    customer_id: str
    plan_id: str
    plan_version: int
    next_plan_id: str | None
    next_plan_version: int | None
    next_plan_at: datetime | None
    time_zone: str
    anchor_day: int = Field(description="The day on which months begin.")
    billed_from: datetime
    paused_at: datetime | None
    ended_at: datetime | None = Field(description="When it ends, or has ended.")
    periods: list[PeriodOut]
    history: list[ChangeOut]

    @classmethod
    def of(cls, tenant_id: str, customer_id: str) -> "SubscriptionAnswer":
        found = subscriptions.find(tenant_id, customer_id)
        periods = subscriptions.periods_of(tenant_id, customer_id)
        history = subscriptions.history(tenant_id, customer_id)
        names = cls.model_fields.keys() - {"periods", "history"}
        return cls(
            **{name: getattr(found, name) for name in names},
            periods=[PeriodOut.model_validate(one) for one in periods],
            history=[ChangeOut.model_validate(one) for one in history],
        )


class CustomerMade(Answer):
    """A customer; not new when they were there already, just like this."""

    is_new: bool
    subscription: SubscriptionAnswer


class SubscriptionChanged(Answer):
    """When a change takes effect, and the subscription as it stood then."""

    effective_at: datetime
    subscription: SubscriptionAnswer


class WalletMade(Answer):
    """A wallet that is there now."""

    customer_id: str
    currency: str


_MADE: Responses = {200: {"description": "They were there already.", "model": CustomerMade}}


@routes.post(
    "/customers",
    operation_id="create_customer",
    summary="Make a customer",
    status_code=201,
    response_model=CustomerMade,
    responses=problems(404, 409, has_body=True, but=_MADE),
)
def create_customer(
    request: Request, caller: Admin, question: CustomerQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """With wallets, on the newest version of a plan, whose fee is due for the period that begins. Again: harmless."""
    new = NewCustomer(caller.tenant_id, question.customer_id, question.plan_id, question.time_zone, question.currencies)

    def work(_first_at: datetime) -> tuple[int, CustomerMade]:
        is_new = customers.create_customers([new], clock.now()) > 0
        made = SubscriptionAnswer.of(caller.tenant_id, question.customer_id)
        return 201 if is_new else 200, CustomerMade(is_new=is_new, subscription=made)

    act = Act("customer.create", question.customer_id, {"plan_id": question.plan_id})
    return answered_once(request, caller, idempotency_key, question, work, act=act)


@routes.put(
    "/customers/{customer_id:path}/wallets/{currency}",
    operation_id="put_wallet",
    summary="Give a customer a wallet",
    responses=problems(404, has_body=True),
)
def put_wallet(
    caller: Admin, customer_id: CustomerId, currency: WalletCurrency, question: WalletQuestion
) -> WalletMade:
    """One more, if there is none in that currency; and how far it may be overdrawn, if told."""
    said = question.model_dump(mode="json", exclude_unset=True)
    requests.note(caller, Act("wallet.put", customer_id, {"currency": currency} | said), clock.now())
    customers.open_wallet(caller.tenant_id, customer_id, currency, clock.now())
    if question.overdraft is not None:
        wallets.set_overdraft(caller.tenant_id, customer_id, currency, question.overdraft)
    return WalletMade(customer_id=customer_id, currency=currency)


@routes.put(
    "/customers/{customer_id:path}/time-zone",
    operation_id="put_time_zone",
    summary="Count a customer's months in another zone",
    responses=problems(404, has_body=True),
)
def put_time_zone(caller: Admin, customer_id: CustomerId, question: ZoneQuestion) -> SubscriptionChanged:
    """From the next period on."""
    requests.note(caller, Act("subscription.zone", customer_id, {"time_zone": question.time_zone}), clock.now())
    since = subscriptions.change_zone(caller.tenant_id, customer_id, question.time_zone, clock.now())
    return SubscriptionChanged(effective_at=since, subscription=SubscriptionAnswer.of(caller.tenant_id, customer_id))


@routes.get(
    "/customers/{customer_id:path}/subscription",
    operation_id="get_subscription",
    summary="What a customer agreed to",
    responses=problems(404),
)
def get_subscription(seen: Seen) -> SubscriptionAnswer:
    """Plan, calendar, pauses, ends; all periods, and all changes."""
    return SubscriptionAnswer.of(*seen)


def _changed(
    request: Request,
    customer: tuple[Principal, str],
    question: Asking,
    key: str,
    change: tuple[str, Callable[[datetime], datetime]],
) -> Response:
    """Change a subscription of a customer once, and answer with how it stands; `change` is its name and itself."""
    caller, customer_id = customer
    name, do = change

    def work(_first_at: datetime) -> tuple[int, SubscriptionChanged]:
        since = do(clock.now())
        standing = SubscriptionAnswer.of(caller.tenant_id, customer_id)
        return 200, SubscriptionChanged(effective_at=since, subscription=standing)

    act = Act(f"subscription.{name}", customer_id, question.model_dump(mode="json"))
    return answered_once(request, caller, key, question, work, act=act)


@routes.post(
    "/customers/{customer_id:path}/subscription",
    operation_id="begin_subscription",
    summary="Begin again after an end",
    response_model=SubscriptionChanged,
    responses=problems(404, 409, has_body=True),
)
def begin_subscription(
    request: Request, caller: Admin, customer_id: CustomerId, question: BeginQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """A period begins now, with its fee. The first subscription comes with the customer."""

    def begin(now: datetime) -> datetime:
        return subscriptions.subscribe(caller.tenant_id, customer_id, question.plan_id, now, idempotency_key)

    return _changed(request, (caller, customer_id), question, idempotency_key, ("begin", begin))


@routes.post(
    "/customers/{customer_id:path}/subscription/plan",
    operation_id="change_plan",
    summary="Put a customer on another plan",
    response_model=SubscriptionChanged,
    responses=problems(404, 409, has_body=True),
)
def change_plan(
    request: Request, caller: Admin, customer_id: CustomerId, question: PlanQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """Now, the period ends here and another begins, with a fee of its own; else the next one is on that plan.

    Whoever is on the newest version of it already stays on it. Of what ends with its period, only now will do.
    """

    def change(now: datetime) -> datetime:
        plan = (question.plan_id, now, question.at)
        return subscriptions.change_plan(caller.tenant_id, customer_id, *plan, idempotency_key)

    return _changed(request, (caller, customer_id), question, idempotency_key, ("plan", change))


@routes.post(
    "/customers/{customer_id:path}/subscription/end",
    operation_id="end_subscription",
    summary="End a subscription",
    response_model=SubscriptionChanged,
    responses=problems(404, 409, has_body=True),
)
def end_subscription(
    request: Request, caller: Admin, customer_id: CustomerId, question: EndQuestion, idempotency_key: IdempotencyKey
) -> Response:
    """The period runs to its end, and no other follows. Ended already, nothing changes."""

    def end(now: datetime) -> datetime:
        return subscriptions.end(caller.tenant_id, customer_id, now, question.at, idempotency_key)

    return _changed(request, (caller, customer_id), question, idempotency_key, ("end", end))


@routes.post(
    "/customers/{customer_id:path}/subscription/pause",
    operation_id="pause_subscription",
    summary="Pause a subscription",
    response_model=SubscriptionChanged,
    responses=problems(404, 409, has_body=True),
)
def pause_subscription(
    request: Request, caller: Admin, customer_id: CustomerId, question: Nothing, idempotency_key: IdempotencyKey
) -> Response:
    """Periods that begin from now on owe no fee and get no free credits. What is used is charged as ever."""

    def pause(now: datetime) -> datetime:
        return subscriptions.pause(caller.tenant_id, customer_id, now, idempotency_key)

    return _changed(request, (caller, customer_id), question, idempotency_key, ("pause", pause))


@routes.post(
    "/customers/{customer_id:path}/subscription/resume",
    operation_id="resume_subscription",
    summary="Go on after a pause",
    response_model=SubscriptionChanged,
    responses=problems(404, 409, has_body=True),
)
def resume_subscription(
    request: Request, caller: Admin, customer_id: CustomerId, question: Nothing, idempotency_key: IdempotencyKey
) -> Response:
    """The current period owes its fee if it has none, prorated where the plan says so."""

    def resume(now: datetime) -> datetime:
        return subscriptions.resume(caller.tenant_id, customer_id, now, idempotency_key)

    return _changed(request, (caller, customer_id), question, idempotency_key, ("resume", resume))
