"""Holds and quotas over HTTP: what is kept back is there for the usage that names it, and told to nobody else."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.quotas import Measure, Scope
from config import clock
from services.desk.quotas import Wanted, set_quota
from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one

HOLDS = "/v1/customers/ana/holds"
THREE = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "100000"}
HALF = {"amount": "0.5", "currency": "USD"}


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with a customer who has ten dollars."""
    catalogues()
    a_customer("ana", credit="10")
    return as_(api, ADMIN)


def reserved() -> Decimal:
    """What the wallet keeps back."""
    (amount,) = one("SELECT reserved FROM wallets WHERE customer_id = 'ana'")
    return Decimal(amount)


def test_a_hold_is_opened_captured_by_usage_and_released(root: Asker) -> None:
    opened = root.post(HOLDS, {"items": [THREE], "buffer": "1.2"}, "k1")
    hold_id = opened.body["hold_id"]

    assert (opened.status, opened.body["amount"], reserved()) == (201, "3.6", Decimal("3.6"))
    used = root.post("/v1/usage", {"customer_id": "ana", "items": [THREE], "hold_id": hold_id}, "u1")
    assert (used.status, used.body["cost"], reserved()) == (201, "3", Decimal("0.6"))
    released = root.post(f"/v1/holds/{hold_id}/release", {}, "r1")
    assert (released.status, released.body["state"], released.body["captured"]) == (200, "released", "3")
    assert reserved() == 0
    assert root.get(f"/v1/holds/{hold_id}").body == released.body
    assert root.get(HOLDS).body == {"holds": []}
    assert root.get(HOLDS, with_closed=True).body == {"holds": [released.body]}
    assert root.get("/v1/customers/ana/wallet").body["wallets"][0]["available"] == "7"


@pytest.mark.parametrize(
    ("path", "body", "other"), [(HOLDS, HALF, HALF | {"amount": "0.6"}), (HOLDS, HALF, HALF | {"seconds": 7})]
)
def test_the_same_request_opens_one_hold_and_another_is_refused(
    root: Asker, path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    first, again, refused = root.post(path, body, "k"), root.post(path, body, "k"), root.post(path, other, "k")

    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert (refused.status, refused.body["code"]) == (409, "idempotency_conflict")
    assert reserved() == Decimal("0.5")


def test_more_than_is_available_is_refused_with_what_there_is(root: Asker) -> None:
    root.post(HOLDS, {"amount": "9"}, "k1")
    refused = root.post(HOLDS, {"amount": "1.5"}, "k2")

    assert (refused.status, refused.body["code"]) == (402, "insufficient_credits")
    assert (refused.body["available"], refused.body["required"]) == ("1", "1.5")
    assert reserved() == 9


def test_a_hard_quota_refuses_holds_and_says_so_when_asked(root: Asker) -> None:
    set_quota(
        Wanted(TENANT, "few", Decimal(10), scope=Scope.USER, measure=Measure.TOKENS, is_hard=True),
        clock.now() - timedelta(days=1),
    )
    question = {"customer_id": "ana", "user_id": "u1", "tokens": 11}

    told = root.post("/v1/quotas/check", question, None)
    fits = root.post("/v1/quotas/check", question | {"tokens": 10}, None)
    refused = root.post(HOLDS, {"items": [THREE], "user_id": "u1"}, "k")

    assert (told.status, told.body["is_allowed"], told.body["refused_by"]) == (200, False, "few")
    (allowance,) = told.body["allowances"]
    assert (allowance["limit"], allowance["used"], allowance["asked"], allowance["remaining"]) == (
        "10",
        "0",
        "11",
        "10",
    )
    assert (fits.body["is_allowed"], fits.body["refused_by"]) == (True, None)
    assert (refused.status, refused.body["code"], refused.body["quota"]) == (429, "quota_exceeded", "few")
    assert reserved() == 0


@pytest.mark.parametrize(
    "body",
    [{}, HALF | {"items": [THREE]}, {"amount": "-1"}, {"amount": "0"}, HALF | {"seconds": 10**9}, {"amount": "x"}],
)
def test_what_can_not_be_kept_back_is_refused(root: Asker, body: dict[str, Any]) -> None:
    refused = root.post(HOLDS, body, "k")

    assert refused.status in {400, 422}
    assert reserved() == 0


def test_nobody_sees_or_releases_what_is_not_theirs(root: Asker, api: str) -> None:
    """Another tenant's hold is not there; who may only see, can't open; who may only write, can't see."""
    hold_id = root.post(HOLDS, HALF, "k").body["hold_id"]
    stranger = as_(api, ADMIN, tenant_id="beta")
    viewer, writer, member = as_(api, VIEW), as_(api, WRITE), as_(api, subject="bob")

    assert stranger.get(f"/v1/holds/{hold_id}").status == 404
    assert stranger.post(f"/v1/holds/{hold_id}/release", {}, "r").status == 404
    assert viewer.post(HOLDS, HALF, "k2").status == 403
    assert (writer.get(HOLDS).status, writer.get(f"/v1/holds/{hold_id}").status) == (403, 403)
    assert (member.get(HOLDS).status, member.post(HOLDS, HALF, "k3").status) == (403, 403)
    assert member.post("/v1/quotas/check", {"customer_id": "ana"}, None).status == 403
    assert reserved() == Decimal("0.5")
