"""Quotas, budgets, caps and top-up rules over HTTP."""

from decimal import Decimal
from typing import Any

import pytest

from billing.errors import QuotaNotFound, TopUpRuleNotFound
from config import clock
from db.scope import as_tenant
from services.collecting import topups
from services.collecting.topups import Offer
from services.desk import quotas
from services.desk.quotas import Wanted
from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_, told
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one, rows

RULE_PATH = "/v1/customers/ana/wallets/USD/top-up-rule"
RULE = {
    "threshold": "5",
    "credit_amount": "20",
    "amount_minor": 10_000,
    "payment_currency": "BRL",
    "monthly_cap_minor": 50_000,
}
#: Where, what, and what it is then called.
LIMITS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (
        "/v1/quotas/tokens of users",
        {"limit": "1000", "scope": "user", "per": "day", "is_hard": True},
        {"name": "tokens of users", "kind": "quota", "limit": "1000", "subject": "", "time_zone": "UTC"},
    ),
    (
        "/v1/features/voice-agent/budget",
        {"limit": "250.5", "currency": "USD"},
        {"name": "budget:voice-agent:USD:month", "kind": "budget", "limit": "250.5", "feature": "voice-agent"},
    ),
    (
        "/v1/customers/ana/cap",
        {"limit": "25", "currency": "USD"},
        {"name": "cap:USD:month:ana", "kind": "cap", "subject": "ana", "time_zone": "America/Sao_Paulo"},
    ),
]


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with a customer."""
    catalogues()
    a_customer("ana")
    return as_(api, ADMIN)


@pytest.mark.parametrize(("path", "body", "expected"), LIMITS)
def test_a_limit_is_set_changed_listed_and_ended(
    root: Asker, path: str, body: dict[str, Any], expected: dict[str, str]
) -> None:
    made = root.put(path, body)
    changed = root.put(path, body | {"limit": "7"})
    listed = root.get("/v1/quotas").body
    ended = root.delete(f"/v1/quotas/{expected['name']}")
    again = root.delete(f"/v1/quotas/{expected['name']}")

    assert (made.status, changed.status, ended.status) == (201, 200, 204)
    assert made.body | expected == made.body
    assert listed == {"quotas": [made.body | {"limit": "7"}], "next": None} == listed | {"quotas": [changed.body]}
    assert told(again) == (404, "unknown_quota")
    assert root.get("/v1/quotas").body["quotas"] == []
    action = f"{expected['kind']}.put"
    found = [said for (said,) in rows("SELECT action FROM admin_acts ORDER BY act_id")]
    assert found == [action, action, "quota.end", "quota.end"]


def test_another_quota_of_the_same_name_is_refused(root: Asker) -> None:
    root.put("/v1/quotas/q", {"limit": "10"})

    assert told(root.put("/v1/quotas/q", {"limit": "10", "scope": "user"})) == (409, "already_exists")
    assert told(root.put("/v1/quotas/p", {"limit": "10", "measure": "cost"})) == (400, "rejected")
    assert told(root.put("/v1/quotas/p", {"limit": "-1"})) == (422, "invalid")
    assert told(root.put("/v1/customers/nobody/cap", {"limit": "1", "currency": "USD"})) == (404, "unknown_customer")


def test_limits_are_listed_page_by_page_and_by_whom_they_are_for(root: Asker) -> None:
    for name in ("a", "b", "c"):
        root.put(f"/v1/quotas/{name}", {"limit": "10", "scope": "user", "subject": f"u-{name}"})

    first = root.get("/v1/quotas", limit=2).body
    second = root.get("/v1/quotas", limit=2, cursor=first["next"]).body
    mine = root.get("/v1/quotas", subject="u-b").body

    assert [quota["name"] for page in (first, second) for quota in page["quotas"]] == ["a", "b", "c"]
    assert [quota["name"] for quota in mine["quotas"]] == ["b"]
    assert told(root.get("/v1/quotas", subject="u-b", cursor=first["next"])) == (400, "cursor_malformed")


def test_a_rule_is_set_shown_and_removed(root: Asker) -> None:
    none = root.get(RULE_PATH)
    put = root.put(RULE_PATH, RULE)
    shown = root.get(RULE_PATH)
    again = root.put(RULE_PATH, RULE | {"threshold": "7.25", "is_active": False})
    removed, nothing = root.delete(RULE_PATH), root.delete(RULE_PATH)

    assert told(none) == told(nothing) == (404, "unknown_top_up_rule")
    assert (put.status, put.body["threshold"], put.body["is_active"]) == (200, "5", True)
    assert shown.body == put.body
    assert (again.body["threshold"], again.body["is_active"]) == ("7.25", False)
    assert (removed.status, removed.body) == (204, b"")
    assert one("SELECT count(*) FROM top_up_rules") == (0,)
    acts = [said for (said,) in rows("SELECT action FROM admin_acts ORDER BY act_id")]
    assert acts == ["top_up_rule.put", "top_up_rule.put", "top_up_rule.delete", "top_up_rule.delete"]


@pytest.mark.parametrize(
    ("path", "changes", "expected"),
    [
        (RULE_PATH, {"monthly_cap_minor": 9_999}, (400, "rejected")),
        (RULE_PATH, {"credit_amount": "0"}, (400, "rejected")),
        (RULE_PATH, {"amount_minor": 0}, (422, "invalid")),
        ("/v1/customers/ana/wallets/EUR/top-up-rule", {}, (404, "unknown_wallet")),
        ("/v1/customers/bob/wallets/USD/top-up-rule", {}, (404, "unknown_wallet")),
    ],
)
def test_what_is_no_rule(root: Asker, path: str, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    assert told(root.put(path, RULE | changes)) == expected
    assert one("SELECT count(*) FROM top_up_rules") == (0,)


def test_limits_are_set_by_administrators_alone(api: str, root: Asker) -> None:
    """A member sees the own rule."""
    root.put(RULE_PATH, RULE)
    for asker in (as_(api, VIEW), as_(api, WRITE), as_(api, subject="ana")):
        for path, body, _ in LIMITS:
            assert told(asker.put(path, body)) == (403, "forbidden")
        assert told(asker.put(RULE_PATH, RULE)) == told(asker.delete(RULE_PATH)) == (403, "forbidden")
        assert told(asker.delete("/v1/quotas/q")) == (403, "forbidden")

    assert as_(api, subject="ana").get(RULE_PATH).status == 200
    assert told(as_(api, subject="bob").get(RULE_PATH)) == (403, "forbidden")
    assert one("SELECT count(*) FROM quotas") == (0,)


@pytest.mark.usefixtures("billing_database")
def test_limits_are_set_and_ended_in_a_tenants_scope() -> None:
    catalogues()
    a_customer("ana")
    offer = Offer(Decimal(20), 10_000, "BRL")
    with as_tenant(TENANT):
        quotas.set_quota(Wanted(TENANT, "q", Decimal(10)), clock.now())
        assert [one_.name for one_ in quotas.page(TENANT).rows] == ["q"]
        quotas.end_quota(TENANT, "q", clock.now())
        with pytest.raises(QuotaNotFound):
            quotas.end_quota(TENANT, "q", clock.now())
        topups.set_rule(TENANT, "ana", "USD", Decimal(5), offer, 50_000, clock.now())
        assert topups.rule_of(TENANT, "ana", "USD").threshold == 5
        topups.remove_rule(TENANT, "ana", "USD")
        with pytest.raises(TopUpRuleNotFound):
            topups.remove_rule(TENANT, "ana", "USD")
