"""What usage would cost, before it happens: the figures of those whom Centavo follows, and what usage then costs."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from billing.errors import CustomerNotFound, ItemsMalformed, PriceNotFound, TenantNotFound, WalletNotFound
from billing.grants import Source
from billing.prices import EVERYBODY, LadderSpan, Rung
from billing.quotes import BillingMethod, Covered, Paid
from centavo import Item
from config.settings import settings
from db.prices import NewPrice
from services.books.credits import Grant, grant
from services.cycle.months import turn_due
from services.desk.prices import load_prices
from services.desk.quotes import price_for, quote
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
MILLION = 1_000_000


def an_item(quantity: str | int, category: str, provider: str, model: str, unit: str) -> Item:
    return Item(category=category, provider=provider, model=model, unit=unit, quantity=Decimal(quantity))


#: A call of 003: speech to text, language model, voice, telephone.
CALL = [
    an_item(60, "stt", "openai", "whisper-1", "second"),
    an_item(500, "llm", "openai", "gpt-4", "token"),
    an_item(200, "tts", "openai", "tts-1", "character"),
    an_item(1, "telephony", "twilio", "voice", "minute"),
]


def a_price(unit_price: str, *, scope: str = EVERYBODY, currency: str = "CREDIT", **more: object) -> NewPrice:
    facts: dict[str, object] = {"per": Decimal(1), "ladder": (), "ladder_span": LadderSpan.EVENT}
    facts |= {"is_provider_default": False, "is_ended": False, "effective_from": BEGAN, "revision": 0}
    named = {"category": "llm", "provider": "maker", "model": "m", "unit": "token", "description": None}
    return NewPrice(scope=scope, currency=currency, unit_price=Decimal(unit_price), **(facts | named | more))  # type: ignore[arg-type]


def test_the_call_of_003_costs_0_037() -> None:
    """Line by line, for anybody and for a customer; and usage then costs just that."""
    catalogues(NOW)
    a_customer("ana", now=NOW, credit="10")

    anybody, hers = quote(TENANT, None, CALL, NOW), quote(TENANT, "ana", CALL, NOW)

    assert [(line.price.unit_price, line.cost) for line in anybody.lines if line.price] == [
        (Decimal("0.0001"), Decimal("0.006")),
        (Decimal("0.00003"), Decimal("0.015")),
        (Decimal("0.000015"), Decimal("0.003")),
        (Decimal("0.013"), Decimal("0.013")),
    ]
    assert (anybody.cost, anybody.currency) == (hers.cost, hers.currency) == (Decimal("0.037"), "USD")
    record_usage(an_envelope(an_event("ana", CALL, occurred_at=NOW, key="call")), NOW)
    assert one("SELECT cost, currency FROM usage_events") == (hers.cost, "USD")
    ids = [price_id for (price_id,) in _price_ids()]
    assert [line.price.price_id for line in hers.lines if line.price] == ids


def _price_ids() -> list[tuple[int]]:
    (items,) = one("SELECT items FROM usage_events WHERE key = 'call'")
    return [(item["price_id"],) for item in items]


def test_a_thousand_tokens_of_002_cost_2_00_credits() -> None:
    """Neither free nor included: from the wallet, or by a payment."""
    catalogues(NOW)
    load_prices([a_price("0.002")], NOW)

    found = quote(TENANT, None, [an_item(1000, "llm", "maker", "m", "token")], NOW)

    assert (f"{found.cost:.2f}", found.currency, found.is_free, found.is_included) == ("2.00", "CREDIT", False, False)
    assert (found.suggested, found.possible) == (
        BillingMethod.WALLET_DEDUCTION,
        (BillingMethod.WALLET_DEDUCTION, BillingMethod.PAYMENT_CHARGE),
    )


def test_free_credits_pay_first_and_the_quote_says_how_much() -> None:
    catalogues(NOW)
    a_customer("ana", plan="free", currencies=("CREDIT",), now=NOW)
    turn_due(NOW)
    load_prices([a_price("1")], NOW)
    grant(Grant(TENANT, "ana", "CREDIT", Decimal(500), "purchase", "test", "k"), NOW)

    within = quote(TENANT, "ana", [an_item(10_000, "llm", "maker", "m", "token")], NOW)
    beyond = quote(TENANT, "ana", [an_item(11_000, "llm", "maker", "m", "token")], NOW)

    assert (within.is_free, within.suggested) == (True, BillingMethod.CREDIT_CONSUMPTION)
    assert beyond.paid == Paid({Source.FREE: Decimal(10_000), Source.PURCHASE: Decimal(500)}, Decimal(500))
    assert (beyond.is_free, beyond.possible) == (False, (BillingMethod.WALLET_DEDUCTION,)), "there is no card"


def test_on_a_plan_with_tiers_tokens_cost_tiers() -> None:
    """A million within the fee, four beyond it: one further tier, as 004 has it."""
    catalogues(NOW)
    a_customer("ana", plan="tiers-8m", currencies=("BRL",), now=NOW)
    record_usage(an_envelope(an_event("ana", [tokens(7 * MILLION)], occurred_at=NOW)), NOW)

    within, beyond = (quote(TENANT, "ana", [tokens(n * MILLION)], NOW) for n in (1, 5))

    assert (within.is_included, within.suggested) == (True, BillingMethod.SUBSCRIPTION_INCLUDED)
    assert (within.cost, within.currency, within.lines[0].price) == (Decimal(0), None, None)
    assert (beyond.is_included, beyond.suggested) == (False, BillingMethod.PAYMENT_CHARGE)
    assert beyond.covered == Covered(5 * MILLION, MILLION, 0, 4 * MILLION, 1, 10_000, "BRL")


def test_a_ladder_goes_on_where_the_month_stands() -> None:
    """The quote is what the usage then costs."""
    catalogues(NOW)
    rungs = (Rung(Decimal(100), Decimal(2)), Rung(None, Decimal(1)))
    load_prices([a_price("0", currency="USD", ladder=rungs, ladder_span=LadderSpan.PERIOD)], NOW)
    a_customer("ana", now=NOW, credit="1000")
    items = [an_item(80, "llm", "maker", "m", "token")]
    record_usage(an_envelope(an_event("ana", items, occurred_at=NOW)), NOW)

    found = quote(TENANT, "ana", items, NOW)

    assert found.cost == 20 * 2 + 60
    record_usage(an_envelope(an_event("ana", items, occurred_at=NOW, key="next")), NOW)
    assert one("SELECT cost FROM usage_events WHERE key = 'next'") == (found.cost,)


def test_a_provider_s_default_is_marked() -> None:
    catalogues(NOW)

    known, unknown = quote(
        TENANT,
        None,
        [an_item(1, "llm", "openai", model, "message") for model in ("gpt-4-turbo", "of-tomorrow")],
        NOW,
    ).lines

    assert (known.is_provider_default, unknown.is_provider_default) == (False, True)
    assert known.price == unknown.price
    assert price_for(TENANT, ("llm", "openai", "of-tomorrow", "message"), NOW).is_provider_default


def test_a_tenants_own_price_comes_before_everybody_s_since_it_began() -> None:
    catalogues(NOW)
    since = NOW + timedelta(days=1)
    load_prices([a_price("0.5", scope=TENANT, effective_from=since), a_price("1")], NOW)
    product = ("llm", "maker", "m", "token")

    before, after = price_for(TENANT, product, NOW), price_for(TENANT, product, since)

    assert (before.price.unit_price, before.is_own) == (Decimal(1), False)
    assert (after.price.unit_price, after.is_own, after.price.revision) == (Decimal("0.5"), True, 0)
    with pytest.raises(PriceNotFound, match="llm/maker/other/token has no price at 2026"):
        price_for(TENANT, ("llm", "maker", "other", "token"), NOW)
    with pytest.raises(TenantNotFound):
        price_for("nobody", product, NOW)


def test_a_new_price_is_quoted_from_its_moment_on() -> None:
    """Though this process keeps the book: it compares revisions with each question."""
    catalogues(NOW)
    a_customer("ana", currencies=("CREDIT",), now=NOW)
    load_prices([a_price("1")], NOW)
    item = [an_item(1, "llm", "maker", "m", "token")]
    assert quote(TENANT, "ana", item, NOW).cost == 1

    load_prices([a_price("3", effective_from=NOW + timedelta(seconds=60))], NOW)

    assert quote(TENANT, "ana", item, NOW).cost == 1
    assert quote(TENANT, "ana", item, NOW + timedelta(seconds=60)).cost == 3
    assert quote(TENANT, None, item, NOW + timedelta(seconds=60)).cost == 3


def test_what_can_not_be_quoted_says_why() -> None:
    catalogues(NOW)
    a_customer("ana", now=NOW)
    mixed = [tokens(1), an_item(1, "llm", "openai", "gpt-4", "message")]

    with pytest.raises(PriceNotFound, match=r"items\[1\] llm_prompt/openai/gpt-99/token has no price"):
        quote(TENANT, "ana", [tokens(1), tokens(1, model="gpt-99")], NOW)
    with pytest.raises(ItemsMalformed, match="in USD and in CREDIT"):
        quote(TENANT, "ana", mixed, NOW)
    with pytest.raises(WalletNotFound, match="priced in CREDIT"):
        quote(TENANT, "ana", mixed[1:], NOW)
    with pytest.raises(ItemsMalformed, match="1 to 64 items"):
        quote(TENANT, "ana", [], NOW)
    with pytest.raises(CustomerNotFound):
        quote(TENANT, "nobody", [tokens(1)], NOW)
    with pytest.raises(TenantNotFound):
        quote("nobody", None, [tokens(1)], NOW)


def test_a_quote_writes_nothing_and_waits_for_nobody() -> None:
    catalogues(NOW)
    a_customer("ana", now=NOW, credit="10")
    with psycopg.connect(settings().required("database_url")) as other:
        other.execute("SELECT FROM wallets FOR UPDATE")
        quote(TENANT, "ana", [tokens(1000)], NOW)

    assert one("SELECT balance, last_seq FROM wallets") == (10, 1)
    assert one("SELECT count(*) FROM usage_events") == (0,)
