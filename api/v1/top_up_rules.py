"""When a wallet tops itself up: a rule a wallet, set anew as a whole."""

from datetime import datetime

from fastapi import Response
from pydantic import Field

from api.access import Admin, CustomerId, Seen
from api.fields import Amount, Answer, Asking, Number, PaymentCurrency
from api.routes import problems, router
from api.v1.moving import Minor
from api.v1.subscriptions import WalletCurrency
from config import clock
from db.topups import RuleRow
from services import requests
from services.collecting import topups
from services.collecting.topups import Offer
from services.requests import Act

routes = router("credits")

PATH = "/customers/{customer_id:path}/wallets/{currency}/top-up-rule"


class RuleQuestion(Asking):
    """Below the threshold, so much is bought for that price, up to a cap in a UTC month."""

    threshold: Amount
    credit_amount: Amount
    amount_minor: Minor
    payment_currency: PaymentCurrency
    monthly_cap_minor: Minor
    is_active: bool = Field(default=True, description="Else it is kept, and not followed.")

    model_config = Asking.model_config | {
        "json_schema_extra": {
            "examples": [
                {
                    "threshold": "5",
                    "credit_amount": "20",
                    "amount_minor": 10_000,
                    "payment_currency": "BRL",
                    "monthly_cap_minor": 50_000,
                }
            ]
        },
    }


class RuleAnswer(Answer):
    """The rule of a wallet."""

    customer_id: str
    currency: str
    threshold: Number
    credit_amount: Number
    amount_minor: int
    payment_currency: str
    monthly_cap_minor: int
    is_active: bool
    updated_at: datetime

    @classmethod
    def of(cls, customer_id: str, currency: str, rule: RuleRow) -> "RuleAnswer":
        same = ("threshold", "credit_amount", "amount_minor", "monthly_cap_minor", "is_active", "updated_at")
        said = {name: getattr(rule, name) for name in same}
        return cls(customer_id=customer_id, currency=currency, payment_currency=rule.currency, **said)


@routes.get(PATH, operation_id="get_top_up_rule", summary="How a wallet tops itself up", responses=problems(404))
def get_top_up_rule(seen: Seen, currency: WalletCurrency) -> RuleAnswer:
    """A rule rests after one of its top-ups was given back or disputed, until it is set again."""
    return RuleAnswer.of(seen[1], currency, topups.rule_of(*seen, currency))


@routes.put(
    PATH,
    operation_id="put_top_up_rule",
    summary="Let a wallet top itself up",
    responses=problems(404, has_body=True),
)
def put_top_up_rule(
    caller: Admin, customer_id: CustomerId, currency: WalletCurrency, question: RuleQuestion
) -> RuleAnswer:
    """In the place of the rule that it had."""
    said = question.model_dump(mode="json")
    requests.note(caller, Act("top_up_rule.put", customer_id, {"currency": currency} | said), clock.now())
    offer = Offer(question.credit_amount, question.amount_minor, question.payment_currency)
    bounds = (question.threshold, offer, question.monthly_cap_minor)
    topups.set_rule(caller.tenant_id, customer_id, currency, *bounds, clock.now(), is_active=question.is_active)
    return RuleAnswer.of(customer_id, currency, topups.rule_of(caller.tenant_id, customer_id, currency))


@routes.delete(
    PATH,
    operation_id="delete_top_up_rule",
    summary="Let a wallet top itself up no more",
    status_code=204,
    response_class=Response,
    responses=problems(404),
)
def delete_top_up_rule(caller: Admin, customer_id: CustomerId, currency: WalletCurrency) -> None:
    """What fell due by it is collected all the same."""
    requests.note(caller, Act("top_up_rule.delete", customer_id, {"currency": currency}), clock.now())
    topups.remove_rule(caller.tenant_id, customer_id, currency)
