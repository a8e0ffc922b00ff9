"""Usage over HTTP that is deferred, settled or cancelled; how it is to be paid for; what happened to it."""

from decimal import Decimal

import pytest

from billing.quotas import Measure
from config import clock
from services.books.tenants import create_tenant
from services.desk import quotas
from services.desk.quotas import Wanted
from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_, told
from tests.api.test_writes import SECONDS, USAGE
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one, wallet

DEFERRED = USAGE | {"deferred": True, "items": [SECONDS | {"quantity": "60000"}]}


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with a customer who has ten dollars."""
    catalogues()
    a_customer("ana", credit="10")
    return as_(api, ADMIN)


def test_deferred_usage_is_settled_once(root: Asker) -> None:
    waits = root.post("/v1/usage", DEFERRED, "k1")
    before = wallet("ana")
    settled = root.post("/v1/usage/k1/settle", {}, "s1")
    again = root.post("/v1/usage/k1/settle", {}, "s2")

    assert (waits.status, waits.body["status"], waits.body["cost"], before) == (202, "pending", "6", Decimal(10))
    assert (settled.status, settled.body["status"], settled.body["is_new"]) == (200, "charged", True)
    assert (again.status, again.body["is_new"]) == (200, False)
    assert wallet("ana") == 4
    assert [step["step"] for step in root.get("/v1/usage/k1/trail").body["steps"]] == [
        "received",
        "deferred",
        "settled",
        "charged",
    ]


def test_without_cover_it_is_402_until_it_is_forced(root: Asker) -> None:
    for key in ("k1", "k2"):
        root.post("/v1/usage", DEFERRED, key)
    root.post("/v1/usage/k1/settle", {}, "s1")

    refused = root.post("/v1/usage/k2/settle", {}, "s2")
    listed = root.get("/v1/usage", status="pending").body["events"]
    forced = root.post("/v1/usage/k2/settle", {"force": True}, "s3")

    assert told(refused) == (402, "insufficient_credits")
    assert (refused.body["available"], refused.body["required"]) == ("4", "6")
    assert [(event["key"], event["cost"]) for event in listed] == [("k2", "6")]
    assert (forced.body["status"], wallet("ana")) == ("charged", Decimal(-2))


def test_refused_under_a_key_it_may_be_settled_under_it_later(root: Asker) -> None:
    """A refusal owns no key."""
    root.post("/v1/usage", DEFERRED | {"items": [SECONDS | {"quantity": "120000"}]}, "k1")
    refused = root.post("/v1/usage/k1/settle", {}, "s1")
    root.post("/v1/customers/ana/grants", {"currency": "USD", "amount": "2"}, "g1")

    assert told(refused) == (402, "insufficient_credits")
    assert root.post("/v1/usage/k1/settle", {}, "s1").body["status"] == "charged"


def test_a_cancelled_one_is_never_settled(root: Asker) -> None:
    root.post("/v1/usage", DEFERRED, "k1")

    cancelled = root.post("/v1/usage/k1/cancel", {"reason": "the call failed"}, "c1")
    refused = root.post("/v1/usage/k1/settle", {"force": True}, "s1")

    assert (cancelled.status, cancelled.body["status"], wallet("ana")) == (200, "voided", Decimal(10))
    assert told(refused) == (409, "event_not_pending")
    assert one("SELECT action, target FROM admin_acts WHERE action = 'usage.cancel'") == ("usage.cancel", "k1")
    assert told(root.post("/v1/usage/none/settle", {}, "s2")) == (404, "unknown_event")


def test_who_may_write_settles_and_does_not_cancel(api: str, root: Asker) -> None:
    root.post("/v1/usage", DEFERRED, "k1")
    writer, viewer = as_(api, WRITE), as_(api, VIEW)

    assert told(writer.post("/v1/usage/k1/cancel", {"reason": "no"}, "c1")) == (403, "forbidden")
    assert told(viewer.post("/v1/usage/k1/settle", {}, "s1")) == (403, "forbidden")
    assert writer.post("/v1/usage/k1/settle", {}, "s2").status == 200
    assert viewer.get("/v1/usage/k1/trail").status == 200


def test_another_tenants_event_is_not_there(api: str, root: Asker) -> None:
    root.post("/v1/usage", DEFERRED, "k1")
    create_tenant("other", "Other", clock.now())
    stranger = as_(api, ADMIN, tenant_id="other")

    for path, body in (("settle", {}), ("cancel", {"reason": "mine"})):
        assert told(stranger.post(f"/v1/usage/k1/{path}", body, path)) == (404, "unknown_event")
    assert told(stranger.get("/v1/usage/k1/trail")) == (404, "unknown_event")
    assert one("SELECT status FROM usage_events") == ("pending",)


def test_a_method_that_the_plan_does_not_serve_is_refused(root: Asker) -> None:
    refused = root.post("/v1/usage", USAGE | {"billing_method": "subscription_included"}, "k1")
    taken = root.post("/v1/usage", USAGE | {"billing_method": "credit_consumption"}, "k2")
    both = root.post("/v1/usage", DEFERRED | {"billing_method": "credit_consumption"}, "k3")

    assert told(refused) == (409, "billing_method_refused")
    assert (refused.body["asked"], refused.body["would_be"]) == ("subscription_included", "credit_consumption")
    assert (taken.status, told(both)) == (201, (400, "rejected"))
    assert root.get("/v1/usage/k2/explain").body["event"]["items"][0]["method"] == "credit_consumption"
    methods = root.get("/v1/statistics/methods").body["methods"]
    assert [(found["method"], found["amount"]) for found in methods] == [("credit_consumption", "0.006")]
    by_user = root.get("/v1/statistics/by/user_id").body["groups"]
    assert [(found["name"], found["events"]) for found in by_user] == [(None, 1)]
    assert told(root.get("/v1/statistics/by/weather")) == (422, "invalid")


def test_a_full_quota_says_no_and_which(root: Asker) -> None:
    quotas.set_quota(Wanted(TENANT, "few", Decimal(1), is_hard=True, measure=Measure.EVENTS), clock.now())
    path = "/v1/customers/ana/affordability"
    before = root.post(path, {"cost": "1", "feature": "chat", "user_id": "u1"})
    root.post("/v1/usage", USAGE, "k1")

    after = root.post(path, {"cost": "1"})
    refused = root.post("/v1/usage", USAGE | {"require_cover": True}, "k2")

    assert before.body["is_affordable"]
    assert (after.body["is_affordable"], after.body["reason"], after.body["unit"]) == (False, "quota_exceeded", "event")
    assert [(check["quota"], check["is_affordable"]) for check in after.body["checks"]] == [
        (None, True),
        ("few", False),
    ]
    assert told(refused) == (429, "quota_exceeded")
    assert root.post("/v1/usage", USAGE, "k3").status == 201
