"""What the counter answers: the wallet, may I, what would it cost, what happened, why."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest

from billing.prices import LadderSpan
from config import clock
from config.settings import settings
from db.prices import NewPrice
from services.books.customers import NewCustomer, create_customers
from services.desk import prices
from services.oversight.health import note_stripe, note_tick
from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_, new_key, told
from tests.elsewhen import be_ahead
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import rows
from tests.services.monthly import everything

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

#: The quote of a voice call.
CALL = [
    {"category": "stt", "provider": "openai", "model": "whisper-1", "unit": "second", "quantity": 60},
    {"category": "llm", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": 500},
    {"category": "tts", "provider": "openai", "model": "tts-1", "unit": "character", "quantity": 200},
    {"category": "telephony", "provider": "twilio", "model": "voice", "unit": "minute", "quantity": 1},
]
TOKENS = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "1000"}


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with a customer who has ten dollars."""
    catalogues()
    a_customer("ana", credit="10")
    return as_(api, ADMIN)


def a_price(product: Sequence[str], unit_price: str, currency: str = "USD", since: datetime = LONG_AGO) -> NewPrice:
    category, provider, model, unit = product
    facts: Any = (currency, Decimal(unit_price), Decimal(1), (), LadderSpan.EVENT, False, False, since, 0, None)
    return NewPrice(TENANT, category, provider, model, unit, *facts)


def test_a_wallet_says_all_that_is_known_of_it(root: Asker) -> None:
    root.post("/v1/usage", {"customer_id": "ana", "items": [CALL[0] | {"unit": "second"}]}, "stt")

    answered = root.get("/v1/customers/ana/wallet")

    assert answered.status == 200
    (found,) = answered.body["wallets"]
    assert {name: answered.body[name] for name in ("customer_id", "status", "plan")} == {
        "customer_id": "ana",
        "status": "active",
        "plan": {"plan_id": "prepaid", "version": 1, "name": answered.body["plan"]["name"]},
    }
    assert (found["currency"], found["balance"], found["available"], found["reserved"]) == (
        "USD",
        "9.994",
        "9.994",
        "0",
    )
    assert (found["used_total"], found["received_total"], found["purchased_total"]) == ("0.006", "10", "0")
    assert found["sources"] == [
        {"source": "promo", "remaining": "9.994", "expires_at": None, "expiring_soon": "0"},
    ]
    assert found["worth"] == {"usd": "9.994", "rate": "1", "rate_from": None}
    assert (found["last_refill"]["amount"], found["last_refill"]["source"]) == ("10", "promo")
    assert found["is_low"] is False


def test_a_wallet_in_a_currency_that_is_not_there(root: Asker) -> None:
    assert told(root.get("/v1/customers/ana/wallet", currency="EUR")) == (404, "unknown_wallet")
    assert told(root.get("/v1/customers/nobody/wallet")) == (404, "unknown_customer")


@pytest.mark.parametrize(("cost", "is_affordable"), [("8.33", True), ("8.34", False)])
def test_what_can_be_afforded_has_a_buffer_of_a_fifth(root: Asker, cost: str, is_affordable: bool) -> None:
    body = root.post("/v1/customers/ana/affordability", {"cost": cost, "currency": "USD"}).body

    assert (body["is_affordable"], body["available"], body["unit"]) == (is_affordable, "10", "USD")
    assert Decimal(body["required"]) == Decimal(cost) * Decimal("1.2")
    assert body["reason"] == (None if is_affordable else "insufficient")


def test_items_can_be_asked_about_as_well(root: Asker) -> None:
    body = root.post("/v1/customers/ana/affordability", {"items": [TOKENS], "buffer": "1"}).body

    assert body["is_affordable"]
    assert len(body["checks"]) == 1


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({}, (400, "rejected")),
        ({"cost": "1", "items": [TOKENS]}, (400, "rejected")),
        ({"cost": "1", "buffer": "0.5"}, (400, "rejected")),
        ({"cost": "-1"}, (400, "rejected")),
        ({"cost": "much"}, (422, "invalid")),
        ({"cost": "NaN"}, (422, "invalid")),
        ({"cost": "1e3"}, (422, "invalid")),
        ({"cost": True}, (422, "invalid")),
        ({"cost": "0.0000000000001"}, (422, "invalid")),
        ({"cost": "1", "currency": "dollars"}, (422, "invalid")),
        ({"cost": "1", "tenant_id": "acme"}, (422, "invalid")),
        ({"items": []}, (422, "invalid")),
        ({"items": [TOKENS | {"model": "unheard-of", "unit": "page"}]}, (404, "unknown_price")),
    ],
)
def test_questions_that_can_not_be_answered(root: Asker, question: dict[str, Any], expected: tuple[int, str]) -> None:
    assert told(root.post("/v1/customers/ana/affordability", question)) == expected


def test_the_quote_of_a_voice_call_totals_0_037(root: Asker) -> None:
    """The example of the price list to the digit."""
    body = root.post("/v1/quotes", {"items": CALL}).body

    assert (body["total_cost"], body["currency"]) == ("0.037", "USD")
    assert [(line["category"], line["unit_price"], line["cost"]) for line in body["items"]] == [
        ("stt", "0.0001", "0.006"),
        ("llm", "0.00003", "0.015"),
        ("tts", "0.000015", "0.003"),
        ("telephony", "0.013", "0.013"),
    ]


def test_a_thousand_at_0_002_are_2_credits(root: Asker) -> None:
    product = ("model_inference", "platform", "gpt-4", "token")
    prices.load_prices([a_price(product, "0.002", "CREDIT")], clock.now())
    create_customers([NewCustomer(TENANT, "user123", "prepaid", "UTC", ("CREDIT",))], clock.now())
    item = dict(zip(("category", "provider", "model", "unit"), product, strict=True), quantity="1000")

    body = root.post("/v1/quotes", {"customer_id": "user123", "items": [item]}).body

    assert (body["total_cost"], body["currency"], body["items"][0]["unit_price"]) == ("2", "CREDIT", "0.002")
    assert (body["is_free"], body["is_included"]) == (False, False)
    assert body["suggested_method"] == "wallet_deduction"


def test_a_price_is_the_tenants_before_everybodys(root: Asker) -> None:
    product = {"category": "stt", "provider": "openai", "model": "whisper-1", "unit": "second"}
    everybodys = root.get("/v1/prices/lookup", **product).body
    soon = datetime.now(UTC) + timedelta(minutes=5)
    prices.load_prices([a_price([*product.values()], "0.0002", since=soon)], clock.now())

    own = root.get("/v1/prices/lookup", at=soon.isoformat(), **product).body

    assert (everybodys["price"]["unit_price"], everybodys["price"]["is_own"]) == ("0.0001", False)
    assert (own["price"]["unit_price"], own["price"]["is_own"]) == ("0.0002", True)
    assert told(root.get("/v1/prices/lookup", **product | {"model": "\x7f"})) == (404, "unknown_price")


def test_prices_come_in_pages_each_once(root: Asker) -> None:
    seen, cursor = [], None
    while True:
        page = root.get("/v1/prices", limit=7, **({"cursor": cursor} if cursor else {})).body
        seen += [price["price_id"] for price in page["prices"]]
        if (cursor := page["next"]) is None:
            break

    assert seen == [price_id for (price_id,) in rows("SELECT price_id FROM prices ORDER BY price_id")]
    assert len(root.get("/v1/prices", provider="twilio", limit=200).body["prices"]) >= 1


def test_usage_comes_in_pages_that_remember_their_span(root: Asker) -> None:
    """The first page names no span; the others go on in its own, whatever is recorded meanwhile."""
    for number in range(5):
        moment = (clock.now() - timedelta(hours=number + 1)).isoformat()
        body = {"customer_id": "ana", "items": [TOKENS], "occurred_at": moment, "feature": "chat"}
        root.post("/v1/usage", body, f"event-{number}")

    first = root.get("/v1/usage", limit=2, feature="chat").body
    root.post("/v1/usage", {"customer_id": "ana", "items": [TOKENS], "feature": "chat"}, "later")
    second = root.get("/v1/usage", limit=2, feature="chat", cursor=first["next"]).body
    third = root.get("/v1/usage", limit=2, feature="chat", cursor=second["next"]).body

    pages = [[event["key"] for event in page["events"]] for page in (first, second, third)]
    assert pages == [["event-0", "event-1"], ["event-2", "event-3"], ["event-4"]]
    assert third["next"] is None
    assert told(root.get("/v1/usage", limit=2, feature="other", cursor=first["next"])) == (400, "cursor_malformed")
    assert told(root.get("/v1/usage", cursor="0~1~nonsense")) == (400, "cursor_malformed")
    assert told(root.get("/v1/usage", cursor="nonsense")) == (400, "cursor_malformed")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"limit": 0}, (422, "invalid")),
        ({"limit": 201}, (422, "invalid")),
        ({"status": "lost"}, (422, "invalid")),
        ({"since": "2026-11-01T00:00:00"}, (400, "rejected")),
        ({"since": "0001-01-01T00:00:00+14:00"}, (400, "rejected")),
        ({"until": "9999-12-31T23:59:59-14:00"}, (400, "rejected")),
        ({"since": "2026-01-01T00:00:00Z", "until": "2026-11-01T00:00:00Z"}, (400, "rejected")),
        ({"customer_id": ""}, (422, "invalid")),
        ({"customer_id": "a\0b"}, (422, "invalid")),
    ],
)
def test_spans_and_pages_have_bounds(root: Asker, query: dict[str, Any], expected: tuple[int, str]) -> None:
    assert told(root.get("/v1/usage", **query)) == expected


def test_statistics_and_aggregations_sum_what_usage_lists(root: Asker) -> None:
    for number, feature in enumerate(("chat", "chat", "voice")):
        body = {"customer_id": "ana", "items": [CALL[0]], "feature": feature, "service_type": "model_inference"}
        root.post("/v1/usage", body, f"event-{number}")

    found = root.get("/v1/statistics").body
    buckets = root.get("/v1/usage/aggregations", unit="month", time_zone="America/Sao_Paulo").body["buckets"]

    assert (found["events"], found["revenue"], found["active"]["customers"]) == (3, {"USD": "0.018"}, 1)
    by_feature = {
        group["name"]: (group["events"], group["cost"]) for group in found["groups"] if group["of"] == "feature"
    }
    assert by_feature == {"chat": (2, "0.012"), "voice": (1, "0.006")}
    assert sum(Decimal(bucket["cost"]) for bucket in buckets) == Decimal("0.018")
    assert told(root.get("/v1/usage/aggregations", time_zone="Mars/Base")) == (400, "rejected")


def test_the_ledger_leads_from_balance_to_balance(root: Asker) -> None:
    root.post("/v1/usage", {"customer_id": "ana", "items": [CALL[0]]}, "stt")

    found = root.get("/v1/customers/ana/ledger", order="oldest").body["entries"]

    assert [(entry["kind"], entry["amount"], entry["balance_after"]) for entry in found] == [
        ("grant", "10", "10"),
        ("usage", "-0.006", "9.994"),
    ]
    grants = root.get("/v1/customers/ana/ledger", kind="grant", currency="USD").body["entries"]
    assert [entry["seq"] for entry in grants] == [1]


def test_an_event_is_explained_down_to_price_and_grant(root: Asker) -> None:
    root.post("/v1/usage", {"customer_id": "ana", "items": [CALL[0]]}, "stt")

    found = root.get("/v1/usage/stt/explain").body

    (line,) = found["event"]["items"]
    (price,) = found["prices"]
    (entry,) = found["entries"]
    (given,) = found["grants"]
    assert (line["quantity"], line["cost"], line["price_id"]) == ("60", "0.006", price["price_id"])
    assert (price["unit_price"], price["currency"]) == ("0.0001", "USD")
    assert (entry["amount"], entry["balance_after"], entry["grant_id"]) == ("-0.006", "9.994", given["grant_id"])
    assert (given["source"], given["reason"]) == ("promo", "new_user_bonus")
    root.post("/v1/usage/stt/void", {"reason": "sent by mistake"}, new_key())
    voided = root.get("/v1/usage/stt/explain").body
    assert [entry["kind"] for entry in voided["entries"]] == ["usage", "void"]
    assert [(one["kind"], one["cost"]) for one in voided["corrections"]] == [("void", "-0.006")]


def test_a_payment_is_explained_to_its_tenant(root: Asker) -> None:
    body = {"currency": "USD", "credit_amount": "20", "amount_minor": 10_000, "payment_currency": "BRL"}
    payment_id = root.post("/v1/customers/ana/top-ups", body, "t1").body["payment_id"]

    found = root.get(f"/v1/payments/{payment_id}/explain").body

    assert (found["payment"]["kind"], found["payment"]["credit_amount"]) == ("top_up", "20")
    assert [move["why"] for move in found["log"]] == ["a top-up was asked for"]
    assert told(root.get("/v1/payments/pi_none/explain")) == (404, "unknown_payment")


def test_statements_come_as_json_page_and_paper(root: Asker) -> None:
    create_customers([NewCustomer(TENANT, "old", "prepaid", "UTC", ("USD",))], clock.now() - timedelta(days=40))
    everything(clock.now())

    listed = root.get("/v1/customers/old/statements").body["statements"][0]
    number = listed["number"]
    as_json = root.get(f"/v1/customers/old/statements/{number}")
    as_html = root.get(f"/v1/customers/old/statements/{number}", format="html", language="en")
    as_pdf = root.get(f"/v1/customers/old/statements/{number}", format="pdf")

    assert as_json.body == listed
    assert as_html.headers["Content-Type"].startswith("text/html")
    assert b"<html" in as_html.body
    assert as_pdf.body.startswith(b"%PDF")
    assert as_pdf.headers["Content-Type"] == "application/pdf"
    assert told(root.get(f"/v1/customers/ana/statements/{number}")) == (404, "unknown_statement")
    assert told(root.get("/v1/customers/old/statements/999")) == (404, "unknown_statement")
    assert told(root.get("/v1/customers/nobody/statements")) == (404, "unknown_customer")


def test_a_summary_says_which_tier_and_what_it_came_to(root: Asker) -> None:
    """Five million tokens on a plan that covers eight: nothing more than the fee. Ten: one tier of R$ 100."""
    create_customers([NewCustomer(TENANT, "bia", "tiers-8m", "America/Sao_Paulo", ("BRL",))], clock.now())
    item = TOKENS | {"quantity": "5000000"}
    root.post("/v1/usage", {"customer_id": "bia", "items": [item]}, "m1")
    within = root.get("/v1/customers/bia/summary").body
    root.post("/v1/usage", {"customer_id": "bia", "items": [item]}, "m2")

    beyond = root.get("/v1/customers/bia/summary").body

    assert (within["tokens"], within["tier"], within["tier_from"], within["tier_to"]) == (5_000_000, 0, 0, 8_000_000)
    assert (within["tier_payments"], within["tier_payments_minor"]) == (0, 0)
    assert (beyond["tokens"], beyond["tier"], beyond["tier_from"], beyond["tier_to"]) == (
        10_000_000,
        1,
        8_000_000,
        16_000_000,
    )
    assert (beyond["tier_payments"], beyond["tier_payments_minor"]) == (1, 10_000)


def test_the_audits_findings_are_told_of_the_own_tenant(root: Asker) -> None:
    clean = root.get("/v1/reconciliation").body

    assert (clean["is_consistent"], clean["differences"]) == (True, [])


def test_the_service_says_what_it_is_to_everybody(api: str) -> None:
    found = Asker(api, None).get("/v1/info")

    assert found.status == 200
    assert found.body["billing_methods"] == [
        "wallet_deduction",
        "payment_charge",
        "credit_consumption",
        "subscription_included",
    ]


def test_health_in_detail_says_what_is_there(root: Asker) -> None:
    note_tick(datetime.now(UTC))

    found = root.get("/health/detailed")

    parts = {name: found.body[name]["status"] for name in ("database", "broker", "stripe", "beat", "clock")}
    assert (found.status, found.body["status"]) == (200, "ok")
    assert parts == dict.fromkeys(parts, "ok")
    assert found.body["broker"]["detail"] == {
        "waiting": {"usage": 0, "payments": 0, "ticks": 0},
        "usage_late_seconds": 0,
    }
    late = {name: seconds for name, seconds in found.body["database"]["detail"].items() if name.endswith("seconds")}
    assert late == {"payments_late_seconds": 0, "inbox_late_seconds": 0, "webhooks_late_seconds": 0}
    assert found.body["database"]["detail"]["unsafe_settings"] == ["fsync", "full_page_writes"]
    assert found.body["beat"]["detail"]["seconds"] < 30
    assert found.body["clock"]["detail"]["ahead_seconds"] == 0


@pytest.mark.parametrize(("seconds", "status"), [(-400, "differs"), (200, "ok"), (86_400, "differs")])
def test_health_in_detail_says_how_this_hosts_clock_stands_to_the_databases(
    root: Asker, monkeypatch: pytest.MonkeyPatch, seconds: int, status: str
) -> None:
    note_tick(datetime.now(UTC) + timedelta(seconds=seconds))
    be_ahead(monkeypatch, timedelta(seconds=seconds))

    found = root.get("/health/detailed")

    said = found.body["clock"]
    assert (found.status, found.body["status"]) == (200, "ok" if status == "ok" else "degraded")
    assert said["status"] == status
    assert said["detail"]["ahead_seconds"] == pytest.approx(seconds, abs=3)
    assert said["detail"]["database_at"][:10] == f"{datetime.now(UTC):%Y-%m-%d}"


def test_without_a_key_of_stripes_its_health_is_told_as_workers_found_it(
    root: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is less than the state of what this process needs: whatever it is, the status is 200."""
    monkeypatch.delenv("CENTAVO_STRIPE_SECRET_KEY")
    settings.cache_clear()
    note_tick(datetime.now(UTC) - timedelta(seconds=31))
    seen = [root.get("/health/detailed")]
    for ago in (300, 0):
        note_stripe(datetime.now(UTC) - timedelta(seconds=ago))
        seen.append(root.get("/health/detailed"))

    assert [found.body["stripe"]["status"] for found in seen] == ["unknown", "away", "ok"]
    assert {(found.status, found.body["status"], found.body["beat"]["status"]) for found in seen} == {
        (200, "degraded", "away")
    }


@pytest.mark.parametrize("name", ["o'Brien; DROP TABLE wallets --", "100%", "a/b", "ünïcödé", "{}", "$1", "%(x)s"])
def test_text_is_text_wherever_it_stands(root: Asker, name: str) -> None:
    """SQL in every text field: of the path, the query and the body; it names a customer like any other."""
    create_customers([NewCustomer(TENANT, name, "prepaid", "UTC", ("USD",))], clock.now())
    path = quote(name, safe="")
    fields = ("user_id", "organization_id", "client_id", "session_id", "message_id", "feature", "service_type")
    said = dict.fromkeys((*fields, "operation", "reference", "reason"), name)

    recorded = root.post("/v1/usage", said | {"customer_id": name, "key": name, "items": [CALL[0]]}, new_key())
    given = root.post(f"/v1/customers/{path}/grants", {"currency": "USD", "amount": "1", "reason": name}, new_key())
    found = root.get("/v1/usage", customer_id=name, feature=name, user_id=name, operation=name).body["events"]

    assert (recorded.status, given.status) == (201, 201)
    assert [(event["key"], event["customer_id"], event["feature"]) for event in found] == [(name, name, name)]
    assert root.get(f"/v1/customers/{path}/wallet").body["wallets"][0]["balance"] == "0.994"
    assert root.get(f"/v1/usage/{path}/explain").body["event"]["user_id"] == name
    assert root.get("/v1/usage/aggregations", customer_id=name).status == 200
    assert told(root.get("/v1/usage/aggregations", time_zone=name)) == (400, "rejected")
    assert told(root.get("/v1/prices/lookup", category=name, provider=name, model=name, unit=name)) == (
        404,
        "unknown_price",
    )
    assert root.get("/v1/prices", provider=name).body["prices"] == []


def test_capabilities_are_needed_to_see_more_than_oneself(api: str, root: Asker) -> None:
    assert as_(api, VIEW).get("/v1/usage").status == 200
    assert told(as_(api, WRITE).get("/v1/usage")) == (403, "forbidden")
