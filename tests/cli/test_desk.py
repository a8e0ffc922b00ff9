"""`wallets`, `holds`, `quote` and `usage history`, as a person uses them."""

from datetime import UTC, datetime, timedelta

from services.metering.usage import record_usage
from tests.cli.conftest import Command
from tests.factories import an_envelope, an_event


def test_a_wallet_is_shown(centavo: Command, ana: str) -> None:
    shown, as_json = centavo("wallets", "show", "acme", ana), centavo("wallets", "show", "acme", ana, "--json").json

    assert shown.out.splitlines()[0] == "plan prepaid v1, active"
    assert shown.out.splitlines()[-1].split() == ["USD", "10", "0", "0", "0", "promo", "10"]
    assert as_json["wallets"][0]["balance"]["available"] == "10"
    assert "There is no such customer" in centavo("wallets", "show", "acme", "nobody").err


def test_a_quote_is_shown(centavo: Command, ana: str) -> None:
    item = "llm_prompt/openai/gpt-4/token=1000"

    shown, wrong = centavo("quote", "acme", item, "--customer", ana), centavo("quote", "acme", "gpt-4=1")

    assert shown.out.splitlines()[-1] == "USD 0.03, credit_consumption"
    assert centavo("quote", "acme", item, "--json").json["suggested"] == "wallet_deduction"
    assert wrong.status == 1
    assert "write it as category/provider/model/unit=quantity" in wrong.err


def test_usage_is_listed_page_by_page(centavo: Command, ana: str) -> None:
    now = datetime.now(UTC)
    record_usage(an_envelope(*(an_event(ana, key=key) for key in ("k1", "k2"))), now)
    span = ("--since", f"{now - timedelta(days=2):%Y-%m-%d}", "--until", f"{now + timedelta(days=2):%Y-%m-%d}")

    first = centavo("usage", "history", "acme", ana, *span, "--limit", "1", "--json").json
    second = centavo("usage", "history", "acme", ana, *span, "--limit", "1", "--cursor", first["next"], "--json").json
    shown = centavo("usage", "history", "acme", ana)

    assert {first["events"][0]["key"], second["events"][0]["key"]} == {"k1", "k2"}
    assert second["next"] is None
    assert shown.out.count("USD 0.03") == 2


def test_a_hold_is_opened_listed_and_released(centavo: Command, ana: str) -> None:
    opened = centavo("holds", "open", "acme", ana, "--amount", "6", "--key", "k", "--seconds", "60", "--json").json
    again = centavo("holds", "open", "acme", ana, "--amount", "6.0", "--key", "k", "--seconds", "60")
    refused = centavo("holds", "open", "acme", ana, "--item", "llm_prompt/openai/gpt-4/token=150000", "--key", "more")
    listed = centavo("holds", "list", "acme", ana)
    released = centavo("holds", "release", "acme", opened["hold_id"])

    assert (opened["amount"], opened["currency"], opened["is_new"]) == ("6", "USD", True)
    assert again.out.startswith(f"hold {opened['hold_id']}: USD 6 until ")
    assert "opened under this key before" in " ".join(again.out.split())
    assert refused.status == 1
    assert "available='4', required='5.4'" in refused.err
    assert listed.out.splitlines()[-1].split()[1:5] == ["open", "USD", "6", "0"]
    assert " ".join(released.out.split()) == f"hold {opened['hold_id']} is released, 0 were captured"
    assert "there are no such holds" in centavo("holds", "list", "acme", ana).out
    (closed,) = centavo("holds", "list", "acme", ana, "--all", "--json").json
    assert (closed["state"], closed["amount"]) == ("released", "6")
    assert "There is no such hold" in centavo("holds", "release", "acme", "never-was").err


def test_a_hold_is_shown_with_what_usage_took_of_it(centavo: Command, ana: str) -> None:
    held = centavo("holds", "open", "acme", ana, "--amount", "0.04", "--key", "k", "--json").json["hold_id"]
    for key in ("k1", "k2"):
        record_usage(an_envelope(an_event(ana, key=key, hold_id=held)), datetime.now(UTC))

    shown, as_json = centavo("holds", "show", "acme", held), centavo("holds", "show", "acme", held, "--json").json

    assert shown.out.startswith("used up, 0.04 of USD 0.04 captured, until ")
    assert [line.split()[2:] for line in shown.out.splitlines()[-2:]] == [
        ["k1", "0.03", "0.03", "–"],
        ["k2", "0.03", "0.01", "beyond"],
    ]
    assert [(one["event_key"], one["taken"], one["mark"]) for one in as_json["captures"]] == [
        ("k1", "0.03", None),
        ("k2", "0.01", "beyond"),
    ]


def test_a_wallet_may_be_asked_below_zero(centavo: Command, ana: str) -> None:
    said = centavo("wallets", "overdraft", "acme", ana, "5")

    assert said.out == "USD of ana may be asked 5 below zero\n"
    assert centavo("holds", "open", "acme", ana, "--amount", "15", "--key", "k").status == 0
    assert centavo("wallets", "overdraft", "acme", ana, "five").status == 1


def test_a_wallet_may_be_low_below_an_amount_of_its_own(centavo: Command, ana: str) -> None:
    said = centavo("wallets", "low-balance", "acme", ana, "50")
    shown = centavo("wallets", "show", "acme", ana).out
    unsaid = centavo("wallets", "low-balance", "acme", ana)

    assert said.out == "USD of ana is low below 50\n"
    assert "USD (low)" in shown
    assert unsaid.out == "USD of ana is low as the setting low_balance says\n"
    assert "USD (low)" not in centavo("wallets", "show", "acme", ana).out
    assert centavo("wallets", "low-balance", "acme", ana, "five").status == 1
