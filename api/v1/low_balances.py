"""Below how much a wallet is low: its own threshold, in the place of the tenant's."""

from typing import Annotated

from pydantic import Field

from api.access import Admin, CustomerId
from api.fields import Amount, Answer, Asking, Number
from api.routes import problems, router
from api.v1.subscriptions import WalletCurrency
from billing.money import written
from config import clock
from services import requests
from services.desk import wallets
from services.requests import Act

routes = router("customers")


class LowBalanceQuestion(Asking):
    """Below how much the wallet is low; null: as is set for the tenant."""

    low_below: Annotated[Amount, Field(ge=0)] | None

    model_config = Asking.model_config | {"json_schema_extra": {"examples": [{"low_below": "5"}]}}


class LowBalanceAnswer(Answer):
    """The wallet's own threshold; null: it has none. What holds, the wallet tells (`low_below`)."""

    customer_id: str
    currency: str
    low_below: Number | None


@routes.put(
    "/customers/{customer_id:path}/wallets/{currency}/low-balance",
    operation_id="put_low_balance",
    summary="Say below how much a wallet is low",
    responses=problems(404, has_body=True),
)
def put_low_balance(
    caller: Admin, customer_id: CustomerId, currency: WalletCurrency, question: LowBalanceQuestion
) -> LowBalanceAnswer:
    """An alert tells of it, once each time that the wallet comes to be low."""
    below = question.low_below
    detail = {"currency": currency, "low_below": None if below is None else written(below)}
    requests.note(caller, Act("wallet.low_balance", customer_id, detail), clock.now())
    wallets.set_low_balance(caller.tenant_id, customer_id, currency, below)
    return LowBalanceAnswer(customer_id=customer_id, currency=currency, low_below=below)
