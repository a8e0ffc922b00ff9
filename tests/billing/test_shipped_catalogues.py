"""The price lists and plans that come with Centavo, value by value, and the sums their sources give."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.plans import Plan
from billing.prices import Price, PriceBook
from billing.rating import Rated, rate
from centavo import Item
from db.prices import NewPrice
from services.books.catalogue_files import read_plans, read_prices, shipped
from tests.billing.made import PREPAID, TIERS, an_event, an_item

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def as_price(number: int, new: NewPrice) -> Price:
    facts = new._asdict()
    del facts["description"]
    return Price(price_id=number, **facts)


def shipped_book() -> PriceBook:
    prices = [price for name in shipped("prices") for price in read_prices(name)]
    return PriceBook.of(1, [as_price(number, price) for number, price in enumerate(prices)])


def messages(model: str, provider: str) -> Item:
    return an_item(1, category="llm", provider=provider, model=model, unit="message")


@pytest.mark.parametrize(
    ("provider", "model", "price", "is_default"),
    [
        ("openai", "gpt-4", "30", False),
        ("openai", "gpt-4-turbo", "10", True),
        ("openai", "gpt-3.5-turbo", "1", False),
        ("anthropic", "claude-3-opus", "60", False),
        ("anthropic", "claude-3-sonnet", "15", True),
        ("anthropic", "claude-3-haiku", "1", False),
        ("google", "gemini-pro", "5", True),
        ("google", "gemini-pro-vision", "10", False),
        ("groq", "mixtral-8x7b", "1", True),
        ("groq", "llama-2-70b", "1", False),
    ],
)
def test_a_message_costs_the_credits_of_the_list(provider: str, model: str, price: str, is_default: bool) -> None:
    found = shipped_book().find("acme", ("llm", provider, model, "message"), NOW)

    assert found is not None
    assert (found.unit_price, found.currency, found.is_provider_default) == (Decimal(price), "CREDIT", is_default)


@pytest.mark.parametrize(
    ("provider", "price"), [("openai", 10), ("anthropic", 15), ("google", 5), ("groq", 1), ("ollama", 1)]
)
def test_a_model_that_is_not_listed_costs_its_providers_default(provider: str, price: int) -> None:
    rated = rate(an_event(messages("of-tomorrow", provider)), PREPAID, ["CREDIT"], shipped_book())

    assert isinstance(rated, Rated)
    assert rated.cost == price


def test_defaults_are_for_messages_and_price_no_token_of_an_unknown_model() -> None:
    assert shipped_book().find("acme", ("llm", "openai", "of-tomorrow", "token"), NOW) is None
    assert shipped_book().find("acme", ("llm", "nobody", "gpt-4", "message"), NOW) is None


def test_no_two_defaults_of_a_list_compete() -> None:
    """Which of them served an unknown model would be an accident."""
    prices = [price for name in shipped("prices") for price in read_prices(name)]
    defaults = [(p.scope, p.category, p.provider, p.unit) for p in prices if p.is_provider_default]

    assert sorted(defaults) == sorted(set(defaults))


QUOTE = [
    (an_item(60, category="stt", provider="openai", model="whisper-1", unit="second"), "0.006"),
    (an_item(500, category="llm", provider="openai", model="gpt-4"), "0.015"),
    (an_item(200, category="tts", provider="openai", model="tts-1", unit="character"), "0.003"),
    (an_item(1, category="telephony", provider="twilio", model="voice", unit="minute"), "0.013"),
]


def test_the_quote_of_the_price_list_adds_up() -> None:
    rated = rate(an_event(*[item for item, _ in QUOTE]), PREPAID, ["USD"], shipped_book())

    assert isinstance(rated, Rated)
    assert [line.cost for line in rated.lines] == [Decimal(cost) for _, cost in QUOTE]
    assert (rated.cost, rated.currency) == (Decimal("0.037"), "USD")


CHARGED = [
    (an_item("45.5", category="stt", provider="openai", model="whisper-1", unit="second"), "0.00455"),
    (an_item(350, category="llm_prompt", provider="openai", model="gpt-4"), "0.0105"),
    (an_item(150, category="llm_completion", provider="openai", model="gpt-4"), "0.009"),
    (an_item(180, category="tts", provider="openai", model="tts-1", unit="character"), "0.0027"),
    (an_item("0.75", category="telephony", provider="twilio", model="voice", unit="minute"), "0.00975"),
    (an_item(60, category="vm_infrastructure", provider="runpod", model="gpu-t4", unit="second"), "0.0066"),
]


def test_every_component_of_a_call_has_a_price() -> None:
    """Speech, prompt, completion, voice, telephone and machine: one event, six lines."""
    rated = rate(an_event(*[item for item, _ in CHARGED]), PREPAID, ["USD"], shipped_book())

    assert isinstance(rated, Rated)
    assert [line.cost for line in rated.lines] == [Decimal(cost) for _, cost in CHARGED]
    assert rated.cost == Decimal("0.0431")


def test_the_shipped_plans_are_tiers_prepaid_and_free() -> None:
    tiers, prepaid, free = read_plans("default")

    assert tiers == Plan(
        tenant_id="",
        plan_id="tiers-8m",
        version=0,
        name=tiers.name,
        payment_currency="BRL",
        fixed_fee_minor=40_000,
        included_tokens=8_000_000,
        tier_size=8_000_000,
        tier_fee_minor=10_000,
    )
    assert (prepaid.plan_id, prepaid.payment_currency, prepaid.tier_size) == ("prepaid", "BRL", None)
    assert (free.plan_id, free.free_credits, free.free_credits_currency) == ("free", None, "CREDIT")
    assert (TIERS.tier_size, TIERS.tier_fee_minor) == (tiers.tier_size, tiers.tier_fee_minor)
