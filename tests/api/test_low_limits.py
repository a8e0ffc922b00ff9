"""How often a customer whose balance is low may ask for what costs something: where the tenant says so alone."""

from decimal import Decimal
from typing import Any

import pytest

from api.access import Buckets
from api.low_limits import KEPT_SECONDS, LowLimits
from billing.access import Through
from billing.errors import LowBalanceLimited
from config import clock
from services.books.credits import Grant, grant
from services.desk import tenant_settings, wallets
from services.desk.access import Actor
from tests.api.asking import ADMIN, Answered, Asker, as_, new_key, told
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one

ITEM = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "10"}
AFFORDABILITY = "/v1/customers/ana/affordability"


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant of whose customers ana is low, and bob is not."""
    catalogues()
    a_customer("ana", credit="0.5")
    a_customer("bob", credit="5")
    return as_(api, ADMIN)


def limit(per_minute: int | None) -> None:
    by = Actor("root", Through.COMMAND_LINE)
    tenant_settings.change(TENANT, {"low_requests_per_minute": per_minute}, by, clock.now())


def ask(root: Asker, what: str, customer_id: str = "ana") -> Answered:
    """One of the questions that cost something."""
    asked: dict[str, tuple[str, dict[str, Any], str | None]] = {
        "affordability": (f"/v1/customers/{customer_id}/affordability", {"cost": "0.01"}, None),
        "quote": ("/v1/quotes", {"customer_id": customer_id, "items": [ITEM]}, None),
        "usage": ("/v1/usage", {"customer_id": customer_id, "items": [ITEM]}, new_key()),
        "hold": (f"/v1/customers/{customer_id}/holds", {"amount": "0.01"}, new_key()),
    }
    return root.post(*asked[what])


def test_nothing_is_limited_until_a_tenant_says_so(root: Asker) -> None:
    assert [ask(root, "affordability").status for _ in range(20)] == [200] * 20


@pytest.mark.parametrize("what", ["affordability", "quote", "usage", "hold"])
def test_whoever_is_low_asks_less_often(root: Asker, what: str) -> None:
    """Whatever costs something counts together; nothing is recorded of what is refused; others are not held up."""
    limit(1)
    assert ask(root, "affordability").status == 200
    before = one("SELECT (SELECT count(*) FROM usage_events), (SELECT count(*) FROM credit_holds)")

    refused = ask(root, what)

    assert told(refused) == (429, "low_balance_limited")
    assert refused.body["per_minute"] == 1
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert one("SELECT (SELECT count(*) FROM usage_events), (SELECT count(*) FROM credit_holds)") == before
    assert [ask(root, what, "bob").status for _ in range(3)] in ([200] * 3, [201] * 3)
    assert root.get("/v1/customers/ana/wallet").status == 200
    assert told(ask(root, what, "nobody")) == (404, "unknown_customer")


def test_what_was_answered_is_answered_again(root: Asker) -> None:
    """A repeated request moves nothing, and so is not counted."""
    limit(1)
    key, body = new_key(), {"customer_id": "ana", "items": [ITEM]}

    first, again = root.post("/v1/usage", body, key), root.post("/v1/usage", body, key)

    assert (first.status, again.status, again.body) == (201, 201, first.body)


def test_credit_ends_it(root: Asker) -> None:
    limit(1)
    assert [ask(root, "quote").status for _ in range(2)] == [200, 429]

    grant(Grant(TENANT, "ana", "USD", Decimal(5), "promo", "test", "more"), clock.now())

    assert ask(root, "quote").status == 200


def test_a_limit_that_is_changed_holds_after_some_seconds(billing_database: str) -> None:
    """And those who were not held up before pay nothing for the question."""
    assert billing_database
    catalogues()
    a_customer("ana", credit="0.5")
    moment = [0.0]
    limits = LowLimits(1, lambda: moment[0])
    limits.take(TENANT, "ana")
    limit(6)

    for _ in range(5):
        limits.take(TENANT, "ana")
    moment[0] = KEPT_SECONDS
    limits.take(TENANT, "ana")
    with pytest.raises(LowBalanceLimited) as refused:
        limits.take(TENANT, "ana")
    moment[0] += 10
    limits.take(TENANT, "ana")

    assert refused.value.fields == {"retry_after_seconds": 10, "per_minute": 6}


@pytest.mark.parametrize(
    ("credit", "low_below", "expected"),
    [("0.5", None, True), ("1", None, False), ("5", "6", True), (None, None, False)],
)
def test_low_is_what_the_balance_says(
    billing_database: str, credit: str | None, low_below: str | None, expected: bool
) -> None:
    """But for a wallet into which nothing ever came: it is not in use."""
    assert billing_database
    catalogues()
    a_customer("ana", credit=credit)
    if low_below is not None:
        wallets.set_low_balance(TENANT, "ana", "USD", Decimal(low_below))

    assert wallets.is_low(TENANT, "ana", clock.now()) is expected
    (wallet,) = wallets.balance(TENANT, "ana", clock.now()).wallets
    assert wallet.is_low is (expected or credit is None)


def test_a_bucket_lets_through_at_its_pace() -> None:
    """Never more than what fits, and one as soon as it says."""
    moment = [0.0]
    buckets = Buckets(10.0, lambda: moment[0])

    first = [buckets.take(("t", "c"), 0.5) for _ in range(7)]
    moment[0] += first[-1]
    then = [buckets.take(("t", "c"), 0.5), buckets.take(("t", "c"), 0.5)]

    assert first == [0, 0, 0, 0, 0, 2.0, 2.0]
    assert then == [0, 2.0]
    assert buckets.take(("t", "another"), 0.5) == 0
