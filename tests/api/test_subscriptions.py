"""Customers and their subscriptions over HTTP: once per key, with the trail of who asked for it."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from billing.errors import DatabaseUnavailable
from config import clock
from db.scope import as_tenant
from services.books import tenants
from services.books.customers import NewCustomer, create_customers, open_wallet
from services.cycle import subscriptions
from services.cycle.subscriptions import At
from services.metering.usage import record_usage
from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_, new_key, told
from tests.factories import TENANT, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows

ANA = {"customer_id": "ana", "plan_id": "tiers-8m", "currencies": ["BRL", "USD"]}
SUBSCRIPTION = "/v1/customers/ana/subscription"


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with plans."""
    catalogues()
    return as_(api, ADMIN)


@pytest.fixture
def ana(root: Asker) -> Asker:
    """The same, and a customer."""
    assert root.post("/v1/customers", ANA, "made").status == 201
    return root


def moves() -> list[str]:
    return [move for (move,) in rows("SELECT move FROM subscription_log ORDER BY entry_id")]


def acts() -> list[tuple[str, str]]:
    return [(action, target) for action, target in rows("SELECT action, target FROM admin_acts ORDER BY act_id")]


def test_a_customer_is_made_once_with_wallets_and_a_period(root: Asker) -> None:
    made = root.post("/v1/customers", ANA, "k1")
    again = [root.post("/v1/customers", ANA, key) for key in ("k1", "k2")]
    other = root.post("/v1/customers", ANA | {"plan_id": "prepaid"}, "k3")

    subscription = made.body["subscription"]
    assert (made.status, made.body["is_new"]) == (201, True)
    assert (subscription["plan_id"], subscription["time_zone"]) == ("tiers-8m", "America/Sao_Paulo")
    assert [period["tokens"] for period in subscription["periods"]] == [0]
    assert [(one_.status, one_.body["is_new"]) for one_ in again] == [(201, True), (200, False)]
    assert told(other) == (409, "already_exists")
    assert rows("SELECT currency FROM wallets ORDER BY currency") == [("BRL",), ("USD",)]
    assert acts() == [("customer.create", "ana")] * 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"plan_id": "none"}, (404, "unknown_plan")),
        ({"time_zone": "Mars/Olympus"}, (400, "rejected")),
        ({"currencies": ["usd"]}, (422, "invalid")),
        ({"customer_id": ""}, (422, "invalid")),
        ({"tenant_id": "other"}, (422, "invalid")),
    ],
)
def test_what_is_no_customer(root: Asker, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    assert told(root.post("/v1/customers", ANA | changes, new_key())) == expected
    assert one("SELECT count(*) FROM customers") == (0,)


def test_a_wallet_is_added_and_its_overdraft_set(ana: Asker) -> None:
    added = ana.put("/v1/customers/ana/wallets/EUR", {})
    drawn = ana.put("/v1/customers/ana/wallets/USD", {"overdraft": "2.5"})
    unknown = ana.put("/v1/customers/bob/wallets/USD", {})

    assert (added.status, drawn.status) == (200, 200)
    assert rows("SELECT currency, overdraft FROM wallets ORDER BY currency") == [
        ("BRL", 0),
        ("EUR", 0),
        ("USD", Decimal("2.5")),
    ]
    assert told(unknown) == (404, "unknown_customer")
    assert told(ana.put("/v1/customers/ana/wallets/usd", {})) == (422, "invalid")
    assert acts()[1:] == [("wallet.put", "ana")] * 2 + [("wallet.put", "bob")]


def test_the_plan_changes_when_the_period_ends_or_now(ana: Asker) -> None:
    later = ana.post(f"{SUBSCRIPTION}/plan", {"plan_id": "prepaid"}, "k1")
    now = ana.post(f"{SUBSCRIPTION}/plan", {"plan_id": "prepaid", "at": "now"}, "k2")

    (period,) = later.body["subscription"]["periods"]
    assert later.body["effective_at"] == period["ends_at"] == later.body["subscription"]["next_plan_at"]
    assert [one_["plan_id"] for one_ in now.body["subscription"]["periods"]] == ["tiers-8m", "prepaid"]
    assert (now.body["subscription"]["plan_id"], now.body["subscription"]["next_plan_id"]) == ("prepaid", None)
    assert moves() == ["plan_changed", "plan_changed"]
    assert told(ana.post(f"{SUBSCRIPTION}/plan", {"plan_id": "none"}, "k3")) == (404, "unknown_plan")


def test_a_change_whose_answer_was_lost_is_not_made_a_second_time(ana: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Done, and not kept: the same key would end a second period, and owe a second fee."""
    body = {"plan_id": "prepaid", "at": "now"}
    with monkeypatch.context() as patched:
        patched.setattr("services.requests._keep", _fails)
        lost = ana.post(f"{SUBSCRIPTION}/plan", body, "k1")
    again = ana.post(f"{SUBSCRIPTION}/plan", body, "k1")

    assert told(lost) == (503, "unavailable")
    assert again.status == 200
    assert moves() == ["plan_changed"]
    assert len(again.body["subscription"]["periods"]) == 2
    assert again.body["effective_at"] == again.body["subscription"]["periods"][1]["starts_at"]
    assert again.body == ana.post(f"{SUBSCRIPTION}/plan", body, "k1").body


def _fails(*_: object) -> None:
    raise DatabaseUnavailable


def test_pause_resume_end_and_begin_again(ana: Asker) -> None:
    paused = ana.post(f"{SUBSCRIPTION}/pause", {}, "k1")
    again = ana.post(f"{SUBSCRIPTION}/pause", {}, "k2")
    resumed = ana.post(f"{SUBSCRIPTION}/resume", {}, "k3")
    ended = ana.post(f"{SUBSCRIPTION}/end", {"at": "now"}, "k4")
    refused = ana.post(f"{SUBSCRIPTION}/pause", {}, "k5")
    begun = ana.post(SUBSCRIPTION, {"plan_id": "prepaid"}, "k6")
    twice = ana.post(SUBSCRIPTION, {"plan_id": "prepaid"}, "k7")

    assert paused.body["subscription"]["paused_at"] == paused.body["effective_at"] == again.body["effective_at"]
    assert resumed.body["subscription"]["paused_at"] is None
    assert ended.body["subscription"]["ended_at"] == ended.body["effective_at"]
    assert told(refused) == told(twice) == (400, "rejected")
    assert begun.body["subscription"]["plan_id"] == "prepaid"
    assert moves() == ["paused", "resumed", "ended", "subscribed"]
    assert [change["move"] for change in ana.get(SUBSCRIPTION).body["history"]] == moves()
    assert [action for action, _ in acts()][1:] == [
        f"subscription.{name}" for name in ("pause", "pause", "resume", "end", "pause", "begin", "begin")
    ]


def test_months_are_counted_in_another_zone(ana: Asker) -> None:
    changed = ana.put("/v1/customers/ana/time-zone", {"time_zone": "Asia/Tokyo"})

    assert changed.body["subscription"]["time_zone"] == "Asia/Tokyo"
    assert changed.body["effective_at"] == changed.body["subscription"]["periods"][0]["ends_at"]
    assert told(ana.put("/v1/customers/ana/time-zone", {"time_zone": "nowhere"})) == (400, "rejected")


def test_who_is_unknown_is_not_found(root: Asker) -> None:
    asked = [
        root.get(SUBSCRIPTION),
        root.post(f"{SUBSCRIPTION}/end", {}, "k1"),
        root.put("/v1/customers/ana/time-zone", {"time_zone": "UTC"}),
    ]

    assert [told(one_) for one_ in asked] == [(404, "unknown_customer")] * 3


def test_every_customer_at_a_glance(api: str, root: Asker) -> None:
    """Tokens, tiers and what is due, a page at a time; nobody else's."""
    new = [NewCustomer(TENANT, name, "tiers-8m", "UTC", ("BRL",)) for name in ("ana", "bob", "cid")]
    create_customers(new, clock.now())
    record_usage(an_envelope(an_event("bob", [tokens(8_000_001)], occurred_at=clock.now())), clock.now())
    tenants.create_tenant("other", "Other", clock.now())
    viewer = as_(api, VIEW)

    first = viewer.get("/v1/customers", limit=2)
    second = viewer.get("/v1/customers", limit=2, cursor=first.body["next"])

    glance = [*first.body["customers"], *second.body["customers"]]
    assert [(one_["customer_id"], one_["tokens"], one_["tier"], one_["due_minor"]) for one_ in glance] == [
        ("ana", 0, 0, 0),
        ("bob", 8_000_001, 1, 10_000),
        ("cid", 0, 0, 0),
    ]
    assert second.body["next"] is None
    assert told(as_(api, VIEW, tenant_id="other").get("/v1/customers", cursor=first.body["next"])) == (
        400,
        "cursor_malformed",
    )
    assert as_(api, VIEW, tenant_id="other").get("/v1/customers").body == {"customers": [], "next": None}
    assert viewer.get("/v1/customers/bob/summary").body["due_minor"] == 10_000


def test_plans_and_their_versions(root: Asker) -> None:
    everything = root.get("/v1/plans").body["plans"]
    (tiers,) = root.get("/v1/plans/tiers-8m").body["plans"]

    assert {plan["plan_id"] for plan in everything} == {plan.plan_id for plan in tenants.plans_of(TENANT)}
    assert (tiers["fixed_fee_minor"], tiers["included_tokens"], tiers["tier_fee_minor"]) == (40_000, 8_000_000, 10_000)
    assert told(root.get("/v1/plans/none")) == (404, "unknown_plan")


def test_subscriptions_are_changed_by_administrators_alone(api: str, ana: Asker) -> None:
    """A member sees the own one; every plan, whoever is of the tenant."""
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/customers", ANA),
        ("POST", SUBSCRIPTION, {"plan_id": "prepaid"}),
        ("POST", f"{SUBSCRIPTION}/plan", {"plan_id": "prepaid"}),
        *(("POST", f"{SUBSCRIPTION}/{what}", {}) for what in ("end", "pause", "resume")),
        ("PUT", "/v1/customers/ana/time-zone", {"time_zone": "UTC"}),
        ("PUT", "/v1/customers/ana/wallets/EUR", {}),
    ]
    before = acts()

    for asker in (as_(api, VIEW), as_(api, WRITE), as_(api, subject="ana")):
        for method, path, body in asked:
            refused = asker.ask(method, path, json=body, headers={"Idempotency-Key": new_key()})
            assert told(refused) == (403, "forbidden"), path

    assert (moves(), acts()) == ([], before)
    assert as_(api, subject="ana").get(SUBSCRIPTION).status == 200
    assert told(as_(api, subject="bob").get(SUBSCRIPTION)) == (403, "forbidden")
    assert told(as_(api, subject="ana").get("/v1/customers")) == (403, "forbidden")
    assert as_(api, subject="bob").get("/v1/plans").status == 200


@pytest.mark.usefixtures("billing_database")
def test_all_of_it_goes_in_a_tenants_scope() -> None:
    """Under the role that sees one tenant alone: what these routes call needs no more."""
    catalogues()
    with as_tenant(TENANT):
        create_customers([NewCustomer(TENANT, "ana", "tiers-8m", "UTC", ("BRL",))], clock.now())
        open_wallet(TENANT, "ana", "USD", clock.now())
        subscriptions.change_plan(TENANT, "ana", "prepaid", datetime.now(UTC), At.NOW, "k1")
        subscriptions.pause(TENANT, "ana", datetime.now(UTC), "k2")
        subscriptions.resume(TENANT, "ana", datetime.now(UTC), "k3")
        subscriptions.end(TENANT, "ana", datetime.now(UTC), At.NOW, "k4")
        subscriptions.subscribe(TENANT, "ana", "tiers-8m", datetime.now(UTC), "k5")

    assert moves() == ["plan_changed", "paused", "resumed", "ended", "subscribed"]
