"""`tenants settings`, `credits adjust`, `cards default`, as people write them."""

import pytest

from services.collecting import cards
from services.collecting.gateways import gateway
from tests.cli.conftest import Command
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one, wallet
from tests.services.collecting import GOOD
from tests.services.test_cards import MASTERCARD, now


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    """Ten dollars."""
    assert billing_database
    catalogues()
    a_customer("ana", credit="10")


def test_settings_are_shown_changed_and_given_back(centavo: Command) -> None:
    changed = centavo("tenants", "settings", TENANT, "affordability_buffer=1.5", "low_balance=5, CREDIT=200", "--json")
    low = centavo("tenants", "settings", TENANT, "low_requests_per_minute=6", "affordability_buffer=")
    none = centavo("tenants", "settings", TENANT, "low_balance=", "--json")
    back = centavo("tenants", "settings", TENANT, "low_balance=default", "--json")

    assert changed.json["own"]["affordability_buffer"] == "1.5"
    assert changed.json["in_force"]["low_balance"] == {"": "5", "CREDIT": "200"}
    cells = {line.split()[0]: line.split()[1:] for line in low.out.splitlines() if line[:1].isalpha()}
    assert cells["affordability_buffer"] == ["–", "1.2"]
    assert cells["low_requests_per_minute"] == ["6", "6"]
    assert (none.json["own"]["low_balance"], none.json["in_force"]["low_balance"]) == ({}, {})
    assert back.json["own"]["low_balance"] is None
    assert one("SELECT count(*) FROM admin_acts WHERE through = 'command_line'") == (4,)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("colour=red", "is no change; write NAME=VALUE"),
        ("affordability_buffer", "is no change; write NAME=VALUE"),
        ("affordability_buffer=much", "'much' is not an amount"),
        ("affordability_buffer=0.5", "a buffer lies between 1 and 100"),
        ("low_requests_per_minute=often", "is a whole number, not 'often'"),
        ("low_balance=some", "numbers by currency"),
    ],
)
def test_what_can_not_be_set_is_a_sentence(centavo: Command, said: str, expected: str) -> None:
    answered = centavo("tenants", "settings", TENANT, said)

    assert (answered.status, answered.out) == (1, "")
    assert expected in answered.err
    assert one("SELECT count(*) FROM admin_acts") == (0,)


def test_a_wallet_is_put_right_once_per_key(centavo: Command) -> None:
    adjust = ("credits", "adjust", TENANT, "ana", "--key", "k")
    first, again = (centavo(*adjust, "--by=-2.5") for _ in range(2))
    other, too_much = centavo(*adjust, "--by", "-3"), centavo(*adjust[:-1], "other", "--by", "-8")

    assert first.out == "USD -2.5 adjusted; balance after it 7.5\n"
    assert again.out == "USD -2.5 had been adjusted under this key before; balance after it 7.5\n"
    assert (other.status, too_much.status) == (1, 1)
    assert "available='7.5'" in too_much.err
    assert wallet("ana") == 7.5


def test_another_card_is_chosen(centavo: Command) -> None:
    visa = cards.attach(TENANT, "ana", GOOD, gateway(), now())
    cards.attach(TENANT, "ana", MASTERCARD, gateway(), now())

    chosen = centavo("cards", "default", TENANT, "ana", visa)
    unknown = centavo("cards", "default", TENANT, "ana", "pm_nobodys")

    assert (chosen.status, chosen.err) == (0, "")
    assert one("SELECT default_payment_method_id FROM customers") == (visa,)
    assert unknown.status == 1
