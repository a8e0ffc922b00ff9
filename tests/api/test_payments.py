"""Payments over HTTP: lists, and what people do about one; and waiting for what becomes of them."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.waiting import WAITERS_MAX, Waiting
from billing.errors import DatabaseUnavailable
from billing.payments import PaymentState
from config import clock
from db.recorded import Outcome
from db.scope import as_tenant
from sandbox.processes import await_condition
from services.books.customers import NewCustomer, create_customers
from services.collecting import retrying
from services.desk import overview
from tests.api.asking import ADMIN, VIEW, WRITE, Answered, Asker, as_, told
from tests.factories import TENANT, catalogues
from tests.looking import one, rows
from tests.services.collecting import DECLINES, GOOD, captured, owing, payment, pays_with, taken

EIGHT_MILLION = {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token"} | {
    "quantity": "8000001"
}


@pytest.fixture
def root(api: str) -> Asker:
    return as_(api, ADMIN)


@pytest.fixture
def owed(root: Asker) -> list[UUID]:
    """Ana owes two tiers, and has a good card."""
    assert root
    return owing(tiers=2)


@pytest.fixture
def bia(root: Asker) -> str:
    """A customer on tiers who has used nothing."""
    assert root
    catalogues()
    create_customers([NewCustomer(TENANT, "bia", "tiers-8m", "America/Sao_Paulo", ("BRL",))], clock.now())
    return "bia"


def used(asker: Asker, wait: str, key: str = "k1") -> Answered:
    """A tier begins, and its payment is waited for."""
    body = {"customer_id": "bia", "items": [EIGHT_MILLION]}
    return asker.post(f"/v1/usage?wait={wait}", body, key)


def test_payments_are_listed_page_by_page_and_by_filter(api: str, root: Asker, owed: list[UUID]) -> None:
    owing(customer="bob")
    everything = root.get("/v1/payments").body

    pages: list[dict[str, Any]] = []
    cursor = None
    while not pages or cursor:
        page = root.get("/v1/payments", limit=1, **({"cursor": cursor} if cursor else {})).body
        pages += page["payments"]
        cursor = page["next"]

    assert pages == everything["payments"]
    assert [payment_["customer_id"] for payment_ in pages] == ["bob", "ana", "ana"]
    assert {payment_["payment_id"] for payment_ in pages[1:]} == set(map(str, owed))
    of_ana = root.get("/v1/payments", customer_id="ana", kind="tier", state="due").body["payments"]
    assert of_ana == pages[1:]
    assert root.get("/v1/payments", state="succeeded").body["payments"] == []
    assert as_(api, subject="ana").get("/v1/payments").body["payments"] == of_ana
    assert as_(api, VIEW, tenant_id="other").get("/v1/payments").status == 404
    assert told(root.get("/v1/payments", customer_id="ana", cursor=_cursor(root))) == (400, "cursor_malformed")


def _cursor(asker: Asker) -> str:
    return str(asker.get("/v1/payments", limit=1).body["next"])


def test_one_payment(root: Asker, owed: list[UUID]) -> None:
    found = root.get(f"/v1/payments/{owed[0]}").body

    assert (found["tier"], found["amount_minor"], found["state"], found["attempts_made"]) == (1, 10_000, "due", 0)
    assert told(root.get(f"/v1/payments/{uuid4()}")) == (404, "unknown_payment")
    assert told(root.get("/v1/payments/none")) == (422, "invalid")


def test_a_declined_payment_is_tried_again_at_once_and_once_per_key(root: Asker) -> None:
    (payment_id,) = owing(DECLINES)
    assert taken(payment_id) is PaymentState.RETRY_SCHEDULED
    pays_with(GOOD)
    one("UPDATE payments SET due_at = now() + interval '3 days' RETURNING 1")

    asked = [root.post(f"/v1/payments/{payment_id}/retry", {}, key) for key in ("k1", "k1", "k2")]

    assert [(one_.status, one_.body["state"]) for one_ in asked] == [(200, "retry_scheduled")] * 3
    assert taken(payment_id) is PaymentState.SUCCEEDED
    assert captured() == {payment_id: (10_000, 1)}
    assert told(root.post(f"/v1/payments/{payment_id}/retry", {}, "k3")) == (400, "rejected")
    told_why = rows("SELECT why FROM payment_log WHERE source = 'person'")
    assert told_why == [("it was asked for to be tried again",)] * 2


def test_a_retry_whose_answer_was_lost_is_no_second_one(root: Asker) -> None:
    """Declined again in between: the key has had its attempt."""
    (payment_id,) = owing(DECLINES)
    taken(payment_id)

    retrying.retry(TENANT, payment_id, "k1", clock.now())
    before = payment(payment_id)
    one("UPDATE payments SET due_at = now() + interval '3 days' RETURNING 1")
    resting = payment(payment_id)
    answered = root.post(f"/v1/payments/{payment_id}/retry", {}, "k1")

    assert (answered.status, answered.body["state"]) == (200, "retry_scheduled")
    assert before != resting == payment(payment_id)


def test_a_payment_is_voided_and_one_that_is_paid_given_back(root: Asker, owed: list[UUID]) -> None:
    voided = root.post(f"/v1/payments/{owed[0]}/void", {"reason": "a mistake"}, "k1")
    taken(owed[1])
    refused = root.post(f"/v1/payments/{owed[1]}/void", {"reason": "a mistake"}, "k2")
    part = root.post(f"/v1/payments/{owed[1]}/refunds", {"amount_minor": 4_000}, "k3")
    again = root.post(f"/v1/payments/{owed[1]}/refunds", {"amount_minor": 4_000}, "k3")
    rest = root.post(f"/v1/payments/{owed[1]}/refunds", {}, "k4")
    more = root.post(f"/v1/payments/{owed[1]}/refunds", {"amount_minor": 1}, "k5")

    assert (voided.status, voided.body["state"]) == (200, "voided")
    assert told(refused) == told(more) == (400, "rejected")
    assert (part.status, part.body["amount_minor"], part.body["state"]) == (201, 4_000, "submitting")
    assert again.body == part.body
    assert rest.body["amount_minor"] == 6_000
    assert rows("SELECT amount_minor FROM refunds ORDER BY amount_minor") == [(4_000,), (6_000,)]
    acts = [said for (said,) in rows("SELECT action FROM admin_acts ORDER BY act_id")]
    assert acts == ["payment.void", "payment.void", "payment.refund", "payment.refund", "payment.refund"]


def test_what_is_above_a_cap_is_approved(root: Asker, owed: list[UUID]) -> None:
    one("UPDATE payments SET state = 'awaiting_approval', due_at = NULL WHERE tier = 1 RETURNING 1")

    retried = root.post(f"/v1/payments/{owed[0]}/retry", {}, "k1")
    approved = root.post(f"/v1/payments/{owed[0]}/approve", {}, "k2")
    other = root.post(f"/v1/payments/{owed[1]}/approve", {}, "k3")

    assert told(retried) == told(other) == (400, "rejected")
    assert (approved.status, approved.body["state"]) == (200, "due")
    assert taken(owed[0]) is PaymentState.SUCCEEDED


def test_another_tenants_payment_is_none_and_members_move_nothing(api: str, root: Asker, owed: list[UUID]) -> None:
    one("INSERT INTO tenants (tenant_id, name, created_at) VALUES ('other', 'Other', now()) RETURNING 1")
    path = f"/v1/payments/{owed[0]}"
    stranger = as_(api, ADMIN, tenant_id="other")
    asked: list[tuple[str, dict[str, Any]]] = [
        ("retry", {}),
        ("approve", {}),
        ("void", {"reason": "why"}),
        ("refunds", {}),
    ]

    assert told(stranger.get(path)) == (404, "unknown_payment")
    for what, body in asked:
        assert told(stranger.post(f"{path}/{what}", body, what)) == (404, "unknown_payment")
        for asker in (as_(api, VIEW), as_(api, WRITE), as_(api, subject="ana")):
            assert told(asker.post(f"{path}/{what}", body, what)) == (403, "forbidden")
    assert payment(owed[0])[0] == "due"


def test_payments_are_moved_in_a_tenants_scope(root: Asker, owed: list[UUID]) -> None:
    with as_tenant(TENANT):
        assert [one_.payment_id for one_ in overview.payment_page(TENANT).rows]
        assert retrying.retry(TENANT, owed[0], "k1", clock.now()) is PaymentState.DUE


def test_usage_waits_for_the_outcome_of_the_payments_it_caused(root: Asker, bia: str) -> None:
    """Collected while it waits; the answer comes as soon as it is known, and long before the time is over."""
    pays_with(GOOD, bia)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(used, root, "20s")
        await_condition(lambda: bool(rows("SELECT FROM payments")), 15, "a payment is due")
        begun = time.monotonic()
        (payment_id,) = one("SELECT payment_id FROM payments")
        assert taken(payment_id) is PaymentState.SUCCEEDED
        answered = asked.result(timeout=20)

    assert time.monotonic() - begun < 15
    (due,) = answered.body["due"]
    assert (answered.status, due["state"], due["is_pending"], due["due_at"]) == (201, "succeeded", False, None)
    assert int(answered.headers["Content-Length"]) > 0
    again = used(root, "1s")
    assert (again.status, again.headers["Idempotency-Replayed"], again.body) == (201, "true", answered.body)


def test_a_decline_is_an_outcome(root: Asker, bia: str) -> None:
    pays_with(DECLINES, bia)
    body = {"customer_id": "bia", "items": [EIGHT_MILLION]}
    first = root.post("/v1/usage", body, "k1").body["due"][0]
    taken(UUID(first["payment_id"]))

    (due,) = used(root, "5s").body["due"]

    assert (first["state"], first["is_pending"], first["decline_code"]) == ("due", True, None)
    assert (due["state"], due["is_pending"]) == ("retry_scheduled", False)
    assert due["decline_code"]
    assert due["due_at"] > first["due_at"]


def test_what_is_not_known_in_time_is_said_to_be_pending(root: Asker, bia: str) -> None:
    begun = time.monotonic()

    answered = used(root, "1s")

    assert 1 <= time.monotonic() - begun < 10
    assert [(due["state"], due["is_pending"]) for due in answered.body["due"]] == [("due", True)]
    assert [told(used(root, wait, "k2")) for wait in ("0s", "31s", "5", "-1s", "x")] == [(422, "invalid")] * 5


def test_what_causes_no_payment_is_not_waited_for(root: Asker, bia: str) -> None:
    body = {"customer_id": bia, "items": [EIGHT_MILLION | {"quantity": "5"}]}
    begun = time.monotonic()

    answered = root.post("/v1/usage?wait=30s", body, "k1")

    assert (answered.status, answered.body["due"]) == (201, [])
    assert time.monotonic() - begun < 10


def _outcome(payment_id: UUID, state: str) -> Outcome:
    return Outcome(payment_id, state, None, None)


def test_all_who_wait_are_looked_for_at_once_and_nobody_looks_for_nobody() -> None:
    """However many wait, one look; as many as there is room for; and one that fails is not the last."""
    looks: list[int] = []
    decided: set[UUID] = set()
    loop, third = asyncio.new_event_loop(), asyncio.Event()

    def look(wanted: Sequence[UUID]) -> Mapping[UUID, Outcome]:
        looks.append(len(wanted))
        if len(looks) == 1:
            raise DatabaseUnavailable
        if len(looks) == 3:
            loop.call_soon_threadsafe(third.set)
        return {one_: _outcome(one_, "succeeded" if one_ in decided else "due") for one_ in wanted}

    async def run() -> None:
        waiting = Waiting(look)
        ids = [uuid4() for _ in range(WAITERS_MAX)]
        asked = [asyncio.create_task(waiting.outcomes([one_], 10)) for one_ in ids]
        await third.wait()
        assert set(looks) == {WAITERS_MAX}
        assert await waiting.outcomes([uuid4()], 10) == {}

        decided.update(ids)
        found = await asyncio.gather(*asked)
        assert [one_[payment_id].state for one_, payment_id in zip(found, ids, strict=True)] == ["succeeded"] * len(ids)

        late = await waiting.outcomes([uuid4()], 0.2)
        assert [one_.is_pending for one_ in late.values()] == [True]
        last = asyncio.create_task(waiting.outcomes([uuid4()], 60))
        await asyncio.sleep(0)
        await waiting.close()
        await last
        assert await waiting.outcomes([uuid4()], 60) == {}

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
