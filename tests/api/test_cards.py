"""Cards over HTTP, against the double: attached, set up, chosen, detached; and a wallet's own threshold."""

from typing import Any

import pytest

from tests.api.asking import ADMIN, VIEW, WRITE, Asker, as_, new_key, told
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one, rows
from tests.services.collecting import GOOD

CARDS = "/v1/customers/ana/cards"
MASTERCARD = "pm_card_mastercard"


@pytest.fixture
def root(api: str) -> Asker:
    """An administrator of a tenant with a customer."""
    catalogues()
    a_customer("ana", credit="10")
    return as_(api, ADMIN)


def shown(answered: Any) -> list[tuple[str, bool, bool]]:
    """Brand, whether the customer pays with it, whether it is gone."""
    return [(card["brand"], card["is_default"], card["detached_at"] is not None) for card in answered.body["cards"]]


def attach(root: Asker, card: str) -> str:
    """Give ana a card; its id."""
    answered = root.post(CARDS, {"payment_method": card}, new_key())
    assert answered.status == 201
    (found,) = [one["payment_method_id"] for one in answered.body["cards"] if one["is_default"]]
    return str(found)


def test_a_card_is_attached_once_and_paid_with(root: Asker) -> None:
    key = new_key()
    first, again = (root.post(CARDS, {"payment_method": GOOD}, key) for _ in range(2))

    assert (first.status, again.status, again.body) == (201, 201, first.body)
    assert shown(first) == [("visa", True, False)] == shown(root.get(CARDS))
    assert first.body["cards"][0]["last4"] == "4242"
    assert rows("SELECT action, target FROM admin_acts") == [("card.attach", "ana")]


def test_another_card_is_chosen_and_one_is_taken_for_good(root: Asker) -> None:
    visa = attach(root, GOOD)
    mastercard = attach(root, MASTERCARD)

    chosen = root.put(f"{CARDS}/{visa}/default", None)
    gone = root.delete(f"{CARDS}/{visa}")
    after = root.get(CARDS)

    assert shown(chosen) == [("visa", True, False), ("mastercard", False, False)]
    assert gone.status == 204
    assert shown(after) == [("visa", False, True), ("mastercard", False, False)]
    assert told(root.put(f"{CARDS}/{visa}/default", None)) == (404, "unknown_card")
    assert root.put(f"{CARDS}/{mastercard}/default", None).status == 200
    assert one("SELECT default_payment_method_id FROM customers") == (mastercard,)


def test_a_card_that_is_not_tried_any_more_is_not_chosen(root: Asker) -> None:
    visa = attach(root, GOOD)
    attach(root, MASTERCARD)
    rows(
        "UPDATE payment_methods SET hold_reason = 'stolen_card', held_at = attached_at WHERE payment_method_id = %s"
        " RETURNING 1",
        visa,
    )

    assert told(root.put(f"{CARDS}/{visa}/default", None)) == (400, "rejected")


def test_a_browser_is_given_what_it_confirms(root: Asker) -> None:
    """It is nowhere in what is kept."""
    begun = root.post(f"{CARDS}/setup", None)

    assert begun.status == 201
    assert begun.body["setup_intent_id"].startswith("seti_")
    assert begun.body["client_secret"].startswith(begun.body["setup_intent_id"])
    assert one("SELECT count(*) FROM idempotent_requests") == (0,)
    assert rows("SELECT action, detail FROM admin_acts") == [("card.set_up", {})]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", CARDS, {"payment_method": "4242424242424242"}, (422, "invalid")),
        ("POST", CARDS, {"payment_method": "pm_nobodys"}, (400, "gateway_rejected")),
        ("POST", "/v1/customers/nobody/cards", {"payment_method": GOOD}, (404, "unknown_customer")),
        ("POST", "/v1/customers/nobody/cards/setup", None, (404, "unknown_customer")),
        ("GET", "/v1/customers/nobody/cards", None, (404, "unknown_customer")),
        ("PUT", f"{CARDS}/pm_nobodys/default", None, (404, "unknown_card")),
        ("DELETE", f"{CARDS}/pm_nobodys", None, (404, "unknown_card")),
        ("PUT", "/v1/customers/ana/wallets/EUR/low-balance", {"low_below": "5"}, (404, "unknown_wallet")),
        ("PUT", "/v1/customers/ana/wallets/USD/low-balance", {"low_below": "-5"}, (422, "invalid")),
        ("PUT", "/v1/customers/ana/wallets/USD/low-balance", {}, (422, "invalid")),
    ],
)
def test_what_can_not_be_is_refused(
    root: Asker, method: str, path: str, body: dict[str, Any] | None, expected: tuple[int, str]
) -> None:
    assert told(root.ask(method, path, json=body, headers={"Idempotency-Key": new_key()})) == expected


def test_who_may_do_what(api: str, root: Asker) -> None:
    """A member sees their own cards; only administrators change anything."""
    visa = attach(root, GOOD)
    ana, eve = as_(api, subject="ana", customer_id="ana"), as_(api, subject="eve", customer_id="eve")

    assert shown(ana.get(CARDS)) == [("visa", True, False)]
    assert told(eve.get(CARDS)) == (403, "forbidden")
    for asker in (ana, as_(api, VIEW), as_(api, WRITE)):
        assert told(asker.post(CARDS, {"payment_method": GOOD}, new_key())) == (403, "forbidden")
        assert told(asker.post(f"{CARDS}/setup", None)) == (403, "forbidden")
        assert told(asker.put(f"{CARDS}/{visa}/default", None)) == (403, "forbidden")
        assert told(asker.delete(f"{CARDS}/{visa}")) == (403, "forbidden")
        low = asker.put("/v1/customers/ana/wallets/USD/low-balance", {"low_below": "5"})
        assert told(low) == (403, "forbidden")
    stranger = as_(api, ADMIN, tenant_id="beta")
    assert told(stranger.delete(f"{CARDS}/{visa}"))[0] == 404
    assert shown(root.get(CARDS)) == [("visa", True, False)]


def test_a_wallet_has_its_own_threshold(root: Asker) -> None:
    path = "/v1/customers/ana/wallets/USD/low-balance"

    put = root.put(path, {"low_below": "25.5"})
    (low,) = root.get("/v1/customers/ana/wallet").body["wallets"]
    back = root.put(path, {"low_below": None})
    (wallet,) = root.get("/v1/customers/ana/wallet").body["wallets"]

    assert put.body == {"customer_id": "ana", "currency": "USD", "low_below": "25.5"}
    assert (low["low_below"], low["is_low"]) == ("25.5", True)
    assert back.body["low_below"] is None
    assert (wallet["low_below"], wallet["is_low"]) == ("1", False)
    assert rows("SELECT tenant_id, action, target, detail FROM admin_acts ORDER BY act_id") == [
        (TENANT, "wallet.low_balance", "ana", {"currency": "USD", "low_below": "25.5"}),
        (TENANT, "wallet.low_balance", "ana", {"currency": "USD", "low_below": None}),
    ]
