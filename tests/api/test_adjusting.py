"""Adjustments over HTTP: more or less, once per key, with a trail."""

from typing import Any

import pytest

from billing.reasons import Reason
from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_, new_key, told
from tests.factories import a_customer, catalogues
from tests.looking import rows, wallet

PATH = "/v1/customers/ana/adjustments"
LESS = {"currency": "USD", "amount": "-2.50", "reason": "goodwill_withdrawn"}


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with a customer who has ten dollars."""
    catalogues()
    a_customer("ana", credit="10")
    return as_(api, ADMIN)


def test_a_wallet_is_put_right_once_per_key(root: Asker) -> None:
    key = new_key()
    first, again = root.post(PATH, LESS, key), root.post(PATH, LESS, key)
    other = root.post(PATH, LESS | {"amount": "-3"}, key)
    more = root.post(PATH, {"currency": "USD", "amount": "1"}, new_key())

    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert first.body == {"customer_id": "ana", "currency": "USD", "amount": "-2.5", "balance_after": "7.5"}
    assert told(other) == (409, "idempotency_conflict")
    assert more.body["balance_after"] == "8.5"
    acts = rows("SELECT action, target, detail->>'amount', detail->>'reason' FROM admin_acts ORDER BY act_id")
    assert acts == [
        ("credits.adjust", "ana", "-2.5", "goodwill_withdrawn"),
        ("credits.adjust", "ana", "1", "manual_adjustment"),
    ]
    entries = root.get("/v1/customers/ana/ledger", kind="adjustment").body["entries"]
    assert sorted(entry["amount"] for entry in entries) == ["-2.5", "1"]


def test_more_than_is_available_is_taken_as_debt_alone(root: Asker) -> None:
    refused = root.post(PATH, LESS | {"amount": "-10.5"}, new_key())
    taken = root.post(PATH, LESS | {"amount": "-10.5", "into_debt": True}, new_key())

    assert told(refused) == (402, "insufficient_credits")
    assert (refused.body["available"], refused.body["required"]) == ("10", "10.5")
    assert taken.body["balance_after"] == "-0.5"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (PATH, {"amount": "0"}, (400, "rejected")),
        (PATH, {"amount": "some"}, (422, "invalid")),
        (PATH, {"reason": ""}, (422, "invalid")),
        (PATH, {"currency": "EUR"}, (404, "unknown_wallet")),
        ("/v1/customers/nobody/adjustments", {}, (404, "unknown_wallet")),
    ],
)
def test_what_can_not_be_is_refused(root: Asker, path: str, body: dict[str, Any], expected: tuple[int, str]) -> None:
    assert told(root.post(path, LESS | body, new_key())) == expected
    assert wallet("ana") == 10


def test_only_administrators_may(api: str, root: Asker) -> None:
    for asker in (as_(api, VIEW), as_(api, WRITE), as_(api, subject="ana", customer_id="ana")):
        assert told(asker.post(PATH, LESS, new_key())) == (403, "forbidden")
    assert told(root.post(PATH, LESS)) == (400, "idempotency_key_missing")


def test_the_usual_reasons_are_told(root: Asker) -> None:
    assert root.get("/v1/info").body["reasons"] == [reason.value for reason in Reason]
