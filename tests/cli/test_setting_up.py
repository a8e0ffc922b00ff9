"""Setting up by hand: the database, a tenant, plans, prices, customers with cards and credits."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.looking import entries, one, rows, wallet

NEXT_YEAR = "2126-01-01T00:00:00Z"


def test_an_empty_database_is_migrated_and_again_does_no_harm(nowhere: Command, empty_database: str) -> None:
    """The second time there is nothing to do, and it says the same."""
    first = nowhere("migrate", CENTAVO_DATABASE_URL=empty_database)
    again = nowhere("migrate", CENTAVO_DATABASE_URL=empty_database)

    assert (first.status, again.status) == (0, 0)
    assert first.out.startswith("the database is at revision ")
    assert again == first
    assert nowhere("tenants", "create", "acme", CENTAVO_DATABASE_URL=empty_database).status == 0


def test_a_tenant_with_plans_prices_a_customer_a_card_and_credits(centavo: Command) -> None:
    """Each command may be repeated; the second time it says that there was nothing to do."""
    commands = {
        ("tenants", "create", "acme"): ("tenant acme created", "tenant acme was there already"),
        ("plans", "load", "acme"): (
            "3 plan versions added\n  tiers-8m v1\n  prepaid v1\n  free v1",
            "0 plan versions added",
        ),
        ("prices", "load", "usd-per-unit"): ("7 prices added", "0 prices added"),
        ("customers", "create", "acme", "ana", "--plan", "prepaid", "--currency", "USD", "--currency", "CREDIT"): (
            "customer ana created",
            "customer ana was there already",
        ),
        ("customers", "create", "acme", "rui", "--plan", "tiers-8m", "--card", "pm_card_visa"): (
            "customer rui created",
            "customer rui was there already",
        ),
        ("credits", "grant", "acme", "ana", "25.50", "--key", "welcome:ana"): (
            "USD 25.5 granted; balance after it 25.5",
            "USD 25.5 had been granted under this key before; balance after it 25.5",
        ),
    }
    for command, (first, again) in commands.items():
        for said in (first, again):
            assert centavo(*command) == (0, f"{said}\n", "")

    assert [entry.amount for entry in entries("ana")] == [wallet("ana")]
    assert sorted(rows("SELECT customer_id, currency FROM wallets")) == [
        ("ana", "CREDIT"),
        ("ana", "USD"),
        ("rui", "BRL"),
    ]
    card = one("SELECT default_payment_method_id FROM customers WHERE customer_id = 'rui'")[0]
    assert card.startswith("pm_")


def test_a_plan_that_changed_becomes_the_next_version(centavo: Command, tmp_path: Path) -> None:
    """From a file; the list shows both, for people and for programs."""
    centavo("tenants", "create", "acme")
    file = tmp_path / "plans.json"
    for fee in (1000, 2000):
        plan = {"plan_id": "pro", "name": "Pro", "payment_currency": "BRL", "fixed_fee_minor": fee}
        file.write_text(json.dumps({"plans": [plan]}))
        loaded = centavo("plans", "load", "acme", str(file))
        assert loaded.status == 0

    assert loaded.out == "1 plan versions added\n  pro v2\n"
    listed = centavo("plans", "list", "acme", "--json")
    assert [(plan["version"], plan["fixed_fee_minor"]) for plan in listed.json] == [(1, 1000), (2, 2000)]
    table = centavo("plans", "list", "acme").out
    assert "BRL 10.00" in table
    assert "BRL 20.00" in table


def test_prices_are_listed_with_all_that_makes_them(centavo: Command, tmp_path: Path) -> None:
    """Ladders, defaults and a price for many units; the table fits into 80 columns and nothing is cut off."""
    product = {"category": "llm_prompt", "provider": "a-provider-with-a-long-name", "unit": "token"}
    ladder = [{"up_to": "1000", "unit_price": "0.02"}, {"unit_price": "0.01"}]
    prices = [
        {**product, "model": "a-model-with-a-long-name-2026", "unit_price": "2.50", "per": "1000000"},
        {**product, "model": "by-the-rung", "ladder": ladder, "ladder_span": "period"},
        {**product, "model": "usual", "unit_price": "0.000000000000000001", "provider_default": True},
    ]
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"currency": "USD", "effective_from": NEXT_YEAR, "prices": prices}))

    assert centavo("prices", "load", str(file)) == (0, "3 prices added\n", "")

    listed = centavo("prices", "list", "--provider", product["provider"], "--json").json
    assert [(price["model"], price["unit_price"], price["per"]) for price in listed] == [
        ("a-model-with-a-long-name-2026", "2.5", "1000000"),
        ("by-the-rung", "0", "1"),
        ("usual", "0.000000000000000001", "1"),
    ]
    lines = centavo("prices", "list").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    for said in ("USD 2.5 per 1000000 tokens", "to 1000: 0.02", "above: 0.01", "(adds up over the month)"):
        assert any(said in line for line in lines), said


def test_nothing_to_list_is_said(centavo: Command) -> None:
    """An empty table would leave open whether it was looked for in the right place."""
    assert "`centavo prices load` adds some" in centavo("prices", "list").out
    assert "'acme' offers no plans" in centavo("plans", "list", "acme").err
    assert centavo("parked", "list").out == "nothing is parked\n"


MISTAKES: dict[str, tuple[list[str], str]] = {
    "unknown tenant": (["plans", "load", "acne"], "There is no such tenant; create it with `centavo tenants create`."),
    "unknown plan": (["customers", "create", "acme", "eva", "--plan", "gold"], "plan_id='gold'"),
    "unknown zone": (["customers", "create", "acme", "eva", "--plan", "prepaid", "--time-zone", "Mars"], "'Mars'"),
    "unknown wallet": (["credits", "grant", "acme", "ana", "5", "--key", "k", "--currency", "EUR"], "currency='EUR'"),
    "unknown catalogue": (["prices", "load", "nope"], "'nope' is neither a file nor one of the shipped catalogues"),
    "no catalogue": (["prices", "load", "README.md"], "README.md is not JSON"),
    "no amount": (["credits", "grant", "acme", "ana", "ten", "--key", "k"], "'ten' is not an amount"),
    "no number": (["credits", "grant", "acme", "ana", "NaN", "--key", "k"], "a grant is an amount above zero"),
    "an amount of 400 digits": (["credits", "grant", "acme", "ana", "1e400", "--key", "k"], "at most 12 decimal"),
    "a key for another amount": (["credits", "grant", "acme", "ana", "7", "--key", "first:ana"], "granted='10'"),
    "unknown card": (["customers", "create", "acme", "ana", "--plan", "prepaid", "--card", "pm_no"], "'pm_no'"),
}


@pytest.mark.parametrize(("command", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said_in_a_sentence(command: list[str], said: str, centavo: Command, ana: str) -> None:
    """On standard error, with the value that was wrong, exit status 1, and nothing changed."""
    result = centavo(*command)

    assert result.status == 1
    assert result.out == ""
    assert said in result.err
    assert result.err.startswith("centavo: ")
    assert result.err.count("\n") == 1
    assert wallet(ana) == 10


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["tenants", "create", ""], "a name has 1 to 64 characters, not 0"),
        (["tenants", "create", "x" * 65], "a name has 1 to 64 characters, not 65"),
        (["customers", "create", "acme", "", "--plan", "prepaid"], "a name has 1 to 128 characters, not 0"),
        (["credits", "grant", "acme", "ana", "5", "--key", ""], "a name has 1 to 255 characters, not 0"),
        (["prices", "load", "usd-per-unit", "--effective-from", "soon"], "--effective-from"),
        (["parked", "list", "--reason", "whim"], "'whim' is not one of"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_no_command_understands_is_a_matter_of_usage(command: list[str], said: str, nowhere: Command) -> None:
    """Exit status 2, before anything is reached."""
    result = nowhere(*command)

    assert result.status == 2
    assert said in " ".join(result.err.replace("│", " ").split())
