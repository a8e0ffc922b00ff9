"""What moves value: once per key, answered the same way ever after, and nothing twice."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest

from api import bodies
from centavo import Item
from config import clock
from config.settings import settings
from services.books.customers import NewCustomer, create_customers
from services.metering.usage import record_usage
from tests.api.asking import ADMIN, WRITE, Answered, Asker, as_, claims, new_key, token, told
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues
from tests.looking import entries, one, parked_reasons, rows, wallet

SECONDS = {"category": "stt", "provider": "openai", "model": "whisper-1", "unit": "second", "quantity": "60"}
TOKENS = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "1000"}
GRANTS = "/v1/customers/ana/grants"
GRANT = {"currency": "USD", "amount": "5", "source": "promo", "reason": "welcome_bonus"}
TOP_UPS = "/v1/customers/ana/top-ups"
TOP_UP = {"currency": "USD", "credit_amount": "20", "amount_minor": 10_000, "payment_currency": "BRL"}
USAGE = {"customer_id": "ana", "items": [SECONDS]}


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with a customer who has ten dollars."""
    catalogues()
    a_customer("ana", credit="10")
    create_customers([NewCustomer(TENANT, "bia", "tiers-8m", "America/Sao_Paulo", ("BRL",))], clock.now())
    return as_(api, ADMIN)


MOVES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (GRANTS, GRANT, GRANT | {"amount": "6"}),
    (TOP_UPS, TOP_UP, TOP_UP | {"amount_minor": 20_000}),
    ("/v1/usage", USAGE, USAGE | {"feature": "other"}),
    ("/v1/usage/known/void", {"reason": "sent by mistake"}, {"reason": "another"}),
]


@pytest.mark.parametrize(("path", "body", "other"), MOVES)
def test_the_same_request_is_answered_as_the_first_time_and_another_is_refused(
    root: Asker, path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    root.post("/v1/usage", USAGE, "known")
    first = root.post(path, body, "k1")
    moved = (wallet("ana"), one("SELECT count(*) FROM payments"), one("SELECT count(*) FROM usage_events"))

    again = [root.post(path, said, "k1") for said in (body, dict(reversed(body.items())))]
    refused = root.post(path, other, "k1")

    assert first.status in {200, 201}
    assert "Idempotency-Replayed" not in first.headers
    assert [(one_.status, one_.body) for one_ in again] == [(first.status, first.body)] * 2
    assert {one_.headers["Idempotency-Replayed"] for one_ in again} == {"true"}
    assert told(refused) == (409, "idempotency_conflict")
    assert refused.body["idempotency_key"] == "k1"
    assert moved == (wallet("ana"), one("SELECT count(*) FROM payments"), one("SELECT count(*) FROM usage_events"))


@pytest.mark.parametrize(("path", "body", "other"), MOVES)
def test_without_a_key_nothing_moves(root: Asker, path: str, body: dict[str, Any], other: dict[str, Any]) -> None:
    before = rows("SELECT seq FROM ledger_entries"), rows("SELECT payment_id FROM payments")

    bare = root.post(path, body)
    wrong = [root.ask("POST", path, json=body, headers={"Idempotency-Key": key}) for key in ("", "a b", "k" * 256)]

    assert [told(one_) for one_ in (bare, *wrong)] == [(400, "idempotency_key_missing")] * 4
    assert (rows("SELECT seq FROM ledger_entries"), rows("SELECT payment_id FROM payments")) == before


def test_a_key_belongs_to_one_path(root: Asker) -> None:
    root.post(GRANTS, GRANT, "k1")

    assert told(root.post("/v1/customers/bia/grants", GRANT, "k1")) == (409, "idempotency_conflict")
    assert told(root.post("/v1/usage", USAGE, "k1")) == (409, "idempotency_conflict")


@pytest.mark.parametrize("number", ["1e50", "1e5000", "1E+140000", "1e999999999999999999999", "9" * 41, "9" * 5000])
@pytest.mark.parametrize("more", ["", ',"deferred":true'])
def test_usage_with_a_number_that_is_long_when_written_out_is_refused(root: Asker, number: str, more: str) -> None:
    body = json.dumps(USAGE)[:-1] + f',"metadata":{{"a":[{number}]}}{more}}}'
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}

    answered = root.ask("POST", "/v1/usage", data=body, headers=headers)

    assert answered.status in {400, 422}
    assert rows("SELECT * FROM usage_events") == []


def test_many_at_once_under_one_key_are_one(root: Asker) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: root.post(GRANTS, GRANT, "k1"), range(16)))

    assert {answered.status for answered in answers} == {201}
    assert len({json.dumps(answered.body) for answered in answers}) == 1
    assert wallet("ana") == 15


def test_many_at_once_are_each_charged_once(root: Asker) -> None:
    """Threads share connections, prices and what is kept of customers; questions come in between; each comes twice."""
    a_customer("bob", credit="10")
    asked = [(customer, number) for number in range(30) for customer in ("ana", "bob")] * 2

    def ask(one_: tuple[str, int]) -> tuple[int, int]:
        customer, number = one_
        recorded = root.post("/v1/usage", USAGE | {"customer_id": customer}, f"{customer}-{number}")
        afforded = root.post(f"/v1/customers/{customer}/affordability", {"cost": "1", "currency": "USD"})
        return recorded.status, afforded.status

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, asked))

    # Two of the same at once: either may be the one that finds the event recorded.
    assert {recorded for recorded, _ in answers} <= {200, 201}
    assert {afforded for _, afforded in answers} == {200}
    assert (wallet("ana"), wallet("bob")) == (Decimal("9.82"), Decimal("9.82"))
    assert one("SELECT count(*) FROM usage_events WHERE status = 'charged'") == (60,)
    assert parked_reasons() == {}


def test_whoever_died_before_the_answer_finds_it_done(root: Asker) -> None:
    """The key was bound and the credits given, but nobody was told: asked again, nothing is given twice."""
    root.post(GRANTS, GRANT, "k1")
    _forget_the_answer("k1")

    again = root.post(GRANTS, GRANT, "k1")

    assert (again.status, again.body["balance_after"], wallet("ana")) == (201, "15", Decimal(15))
    assert told(root.post(GRANTS, GRANT | {"amount": "6"}, "k1")) == (409, "idempotency_conflict")


def test_usage_without_a_time_is_of_when_it_was_asked_for_first(root: Asker) -> None:
    """Also when the first one died before the answer: the second says the same, and is no conflict."""
    first = root.post("/v1/usage", USAGE, "k1")
    _forget_the_answer("k1")

    again = root.post("/v1/usage", USAGE, "k1")

    assert (first.status, again.status) == (201, 200)
    assert again.body == first.body | {"is_new": False}
    assert parked_reasons() == {}
    assert wallet("ana") == Decimal("9.994")


def _forget_the_answer(key: str) -> None:
    import psycopg

    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute(
            "UPDATE idempotent_requests SET answered_at = NULL, status = NULL, answer = NULL"
            " WHERE idempotency_key = %s",
            (key,),
        )


def test_what_was_refused_may_be_asked_for_again(root: Asker) -> None:
    """Nothing was moved, so nothing is kept but what the key means."""
    body = GRANT | {"currency": "EUR"}
    before = root.post(GRANTS, body, "k1")
    create_customers([NewCustomer(TENANT, "ana", "prepaid", "America/Sao_Paulo", ("EUR",))], clock.now())

    after = root.post(GRANTS, body, "k1")

    assert told(before) == (404, "unknown_wallet")
    assert (after.status, after.body["balance_after"]) == (201, "5")


def test_a_grant_is_given_as_it_was_asked_for(root: Asker) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)

    answered = root.post(GRANTS, GRANT | {"amount": "0.1", "expires_at": ends.isoformat(), "priority": 3}, "k1")

    assert answered == (
        201,
        {"customer_id": "ana", "currency": "USD", "amount": "0.1", "balance_after": "10.1"},
        answered.headers,
    )
    assert one("SELECT amount, priority, expires_at FROM credit_grants WHERE reason = 'welcome_bonus'") == (
        Decimal("0.1"),
        3,
        ends,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"amount": "0"}, (400, "rejected")),
        ({"amount": "-5"}, (400, "rejected")),
        ({"amount": "1e5"}, (422, "invalid")),
        ({"amount": "Infinity"}, (422, "invalid")),
        ({"amount": "1.0000000000001"}, (422, "invalid")),
        ({"amount": "9" * 39}, (422, "invalid")),
        ({"amount": None}, (422, "invalid")),
        ({"source": "theft"}, (422, "invalid")),
        ({"reason": "a\0b"}, (422, "invalid")),
        ({"reason": ""}, (422, "invalid")),
        ({"currency": "usd"}, (422, "invalid")),
        ({"priority": -1}, (422, "invalid")),
        ({"expires_at": "2020-01-01T00:00:00Z"}, (400, "rejected")),
        ({"expires_at": "soon"}, (422, "invalid")),
        ({"tenant_id": "other"}, (422, "invalid")),
    ],
)
def test_a_grant_that_can_not_be(root: Asker, changes: dict[str, Any], expected: tuple[int, str]) -> None:
    assert told(root.post(GRANTS, GRANT | changes, new_key())) == expected
    assert wallet("ana") == 10


def test_a_number_keeps_its_digits(root: Asker) -> None:
    """A JSON number is read by its digits, and not by way of a float: the eighteenth counts."""
    raw = b'{"currency": "USD", "amount": 123456789012.123456789012}'
    headers = {"Idempotency-Key": "k1", "Content-Type": "application/json"}

    answered = root.ask("POST", GRANTS, data=raw, headers=headers)

    assert (answered.status, answered.body["amount"]) == (201, "123456789012.123456789012")
    event = (
        b'{"customer_id": "ana", "items": [{"category": "stt", "provider": "openai", "model": "whisper-1",'
        b' "unit": "second", "quantity": 1234567.123456789012}]}'
    )
    recorded = root.ask("POST", "/v1/usage", data=event, headers=headers | {"Idempotency-Key": "k2"})
    assert recorded.body["cost"] == "123.456712345679"


def test_a_top_up_falls_due_once(root: Asker) -> None:
    answered = root.post(TOP_UPS, TOP_UP, "topup_202512_abc123")

    assert answered.status == 201
    assert answered.body["state"] == "due"
    assert rows("SELECT kind, state, amount_minor, credit_amount FROM payments") == [
        ("top_up", "due", 10_000, Decimal(20)),
    ]
    assert wallet("ana") == 10


def test_usage_is_charged_by_the_way_of_workers(root: Asker) -> None:
    """Six components of a call: what comes through the broker under the same key afterwards is a duplicate."""
    occurred = (clock.now() - timedelta(minutes=5)).isoformat()
    items = [
        SECONDS | {"quantity": "45.5"},
        TOKENS | {"quantity": "350"},
        TOKENS | {"category": "llm_completion", "quantity": "150"},
        {"category": "tts", "provider": "openai", "model": "tts-1", "unit": "character", "quantity": "180"},
        {"category": "telephony", "provider": "twilio", "model": "voice", "unit": "minute", "quantity": "0.75"},
        {"category": "vm_infrastructure", "provider": "runpod", "model": "gpu-t4", "unit": "second", "quantity": "60"},
    ]
    body = {"customer_id": "ana", "items": items, "occurred_at": occurred, "feature": "voice-agent"}

    answered = root.post("/v1/usage", body, "charge_call_abc123").body

    expected = Decimal("0.04310")
    assert (answered["status"], answered["key"], answered["is_new"]) == ("charged", "charge_call_abc123", True)
    assert (Decimal(answered["cost"]), answered["currency"], answered["due"]) == (expected, "USD", [])
    assert wallet("ana") == 10 - expected
    event = an_event(
        "ana",
        [Item.model_validate(item) for item in items],
        key="charge_call_abc123",
        occurred_at=datetime.fromisoformat(occurred),
    )
    outcome = record_usage(an_envelope(event.model_copy(update={"feature": "voice-agent"})), datetime.now(UTC))
    assert (outcome.duplicates, outcome.conflicts, wallet("ana")) == (1, 0, 10 - expected)


def test_usage_answers_with_the_tier_payments_it_caused(root: Asker) -> None:
    """Five million tokens are within the fee; five more begin a tier of R$ 100; eighteen more begin two at once."""

    def used(quantity: int, key: str) -> dict[str, Any]:
        item = TOKENS | {"quantity": str(quantity)}
        body: dict[str, Any] = root.post("/v1/usage", {"customer_id": "bia", "items": [item]}, key).body
        return body

    due = [used(5_000_000, "m1")["due"], used(5_000_000, "m2")["due"], used(18_000_000, "m3")["due"]]

    assert [
        [(one_["tier"], one_["amount_minor"], one_["currency"], one_["state"]) for one_ in some] for some in due
    ] == [
        [],
        [(1, 10_000, "BRL", "due")],
        [(2, 10_000, "BRL", "due"), (3, 10_000, "BRL", "due")],
    ]
    again = root.post("/v1/usage", {"customer_id": "bia", "items": [TOKENS | {"quantity": "5000000"}]}, "m2")
    assert again.body["due"] == due[1]
    assert one("SELECT count(*) FROM payments WHERE kind = 'tier'") == (3,)


def test_one_event_under_two_requests_is_charged_once(root: Asker) -> None:
    """The event's own key is what it is charged for; the request's is for the request."""
    body = USAGE | {"key": "call-1", "occurred_at": (clock.now() - timedelta(minutes=1)).isoformat()}

    first, second = root.post("/v1/usage", body, "r1"), root.post("/v1/usage", body, "r2")
    other = root.post("/v1/usage", body | {"items": [TOKENS]}, "r3")

    assert (first.status, second.status) == (201, 200)
    assert second.body == first.body | {"is_new": False}
    assert told(other) == (409, "idempotency_conflict")
    assert other.body["key"] == "call-1"
    assert wallet("ana") == Decimal("9.994")
    # Who sent it wrong is told, and it is kept for whoever looks after what is parked.
    assert parked_reasons() == {"key_conflict": 1}


def test_usage_that_has_no_price_is_accepted_and_waits(root: Asker) -> None:
    answered = root.post("/v1/usage", {"customer_id": "ana", "items": [SECONDS | {"model": "new"}]}, "k1")

    assert (answered.status, answered.body["status"], answered.body["park_reason"]) == (202, "parked", "unpriced")
    assert wallet("ana") == 10


def test_usage_goes_into_debt_unless_cover_is_required(root: Asker) -> None:
    """402 says how far: and nothing is recorded."""
    dear = USAGE | {"items": [SECONDS | {"quantity": "200000"}]}

    refused = root.post("/v1/usage", dear | {"require_cover": True}, "k1")
    count = one("SELECT count(*) FROM usage_events")
    taken = root.post("/v1/usage", dear, "k2")
    covered = root.post("/v1/usage", USAGE | {"require_cover": True}, "k3")

    assert told(refused) == (402, "insufficient_credits")
    assert {name: refused.body[name] for name in ("available", "required", "unit", "customer_id")} == {
        "available": "10",
        "required": "20",
        "unit": "USD",
        "customer_id": "ana",
    }
    assert count == (0,)
    assert (taken.status, wallet("ana")) == (201, Decimal(-10))
    assert told(covered) == (402, "insufficient_credits")


def test_a_stranger_is_told_and_not_parked(root: Asker) -> None:
    assert told(root.post("/v1/usage", USAGE | {"customer_id": "nobody"}, "k1")) == (404, "unknown_customer")
    assert parked_reasons() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"items": []},
        {"items": [SECONDS] * 65},
        {"items": [SECONDS | {"quantity": "-1"}]},
        {"items": [SECONDS | {"quantity": "NaN"}]},
        {"items": [SECONDS | {"price": "0"}]},
        {"occurred_at": "yesterday"},
        {"occurred_at": 1_700_000_000},
        {"metadata": {"a": "x" * 20_000}},
        {"metadata": {"a": "\0"}},
        {"user_id": "a\0b"},
        {"cost": "0"},
        {"hold": "h"},
    ],
)
def test_usage_that_is_none(root: Asker, changes: dict[str, Any]) -> None:
    assert told(root.post("/v1/usage", USAGE | changes, new_key())) == (422, "invalid")
    assert wallet("ana") == 10


def test_a_void_gives_back_into_the_same_grant_once(root: Asker) -> None:
    root.post("/v1/usage", USAGE, "call")

    voided = root.post("/v1/usage/call/void", {"reason": "sent by mistake"}, "v1")
    again = root.post("/v1/usage/call/void", {"reason": "sent by mistake"}, "v2")

    assert (voided.status, voided.body["cost"], voided.body["tiers"]["voided"]) == (200, "0.006", 0)
    assert again.body["voided_at"] == voided.body["voided_at"]
    assert (wallet("ana"), [entry.kind for entry in entries("ana")]) == (Decimal(10), ["grant", "usage", "void"])
    assert told(root.post("/v1/usage/none/void", {"reason": "why"}, "v3")) == (404, "unknown_event")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (422, "invalid")),
        (b"[]", (422, "invalid")),
        (b"", (422, "invalid")),
        (b'{"currency": "USD", "amount": NaN}', (400, "bad_request")),
        (b'{"currency": "USD", "amount": ' + b"9" * 5000 + b"}", (400, "bad_request")),
        (b"[" * 100_000, (400, "bad_request")),
        (b"\xff", (400, "bad_request")),
        (b'{"currency": "USD", "amount": "1", "reason": "\\ud800"}', (422, "invalid")),
    ],
)
def test_bodies_that_are_no_json_of_ours(root: Asker, body: bytes, expected: tuple[int, str]) -> None:
    headers = {"Idempotency-Key": "k1", "Content-Type": "application/json"}

    assert told(root.ask("POST", GRANTS, data=body, headers=headers)) == expected


def test_a_body_that_is_too_large_is_refused(root: Asker) -> None:
    """By what it says of itself, and by what comes if it says nothing."""
    headers = {"Idempotency-Key": "k1", "Content-Type": "application/json"}
    large = b"x" * (settings().api_bytes_max + 1)

    announced = root.ask("POST", GRANTS, data=large, headers=headers)
    in_pieces = root.ask("POST", GRANTS, data=iter([large[:100_000]] * 4), headers=headers)

    assert [told(one_) for one_ in (announced, in_pieces)] == [(413, "body_too_large")] * 2


def test_a_body_that_comes_too_slowly_is_refused(api: str, root: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SECONDS_MAX", 0.5)
    where = urlsplit(api)
    bearer = token(claims("root", ADMIN))
    head = (
        f"POST {GRANTS} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {bearer}\r\nIdempotency-Key: k1\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    begun = time.monotonic()

    with socket.create_connection((where.hostname, where.port), timeout=15) as connection:
        connection.sendall(head.encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_too_slow"' in answer
    assert bearer.encode() not in answer
    assert time.monotonic() - begun < 10


def test_a_writer_records_and_gives_nothing_away(api: str, root: Asker) -> None:
    writer = as_(api, WRITE)

    assert writer.post("/v1/usage", USAGE, "k1").status == 201
    refused: list[Answered] = [writer.post(GRANTS, GRANT, "k2"), writer.post(TOP_UPS, TOP_UP, "k3")]
    assert [told(answered) for answered in refused] == [(403, "forbidden")] * 2
    assert wallet("ana") == Decimal("9.994")
