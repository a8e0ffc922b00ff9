"""`wallets show`, `quote` and `usage history`, as a person uses them."""

from datetime import UTC, datetime, timedelta

from services.usage import record_usage
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
    span = ("--since", f"{now - timedelta(days=2):%Y-%m-%d}", "--until", f"{now.year + 1}-01-01")

    first = centavo("usage", "history", "acme", ana, *span, "--limit", "1", "--json").json
    second = centavo("usage", "history", "acme", ana, *span, "--limit", "1", "--cursor", first["next"], "--json").json
    shown = centavo("usage", "history", "acme", ana)

    assert {first["events"][0]["key"], second["events"][0]["key"]} == {"k1", "k2"}
    assert second["next"] is None
    assert shown.out.count("USD 0.03") == 2
