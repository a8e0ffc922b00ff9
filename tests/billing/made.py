"""Values for the rules, made in one line, and the numbers that properties are tried with."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from billing.plans import Plan
from billing.prices import LadderSpan, Price, Rung
from centavo import Item, UsageEvent

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TIERS = Plan("acme", "tiers-8m", 1, "Tiers", "BRL", 40_000, 8_000_000, 8_000_000, 10_000)
PREPAID = Plan("acme", "prepaid", 1, "Prepaid", "BRL", 0, 0, None, 0)

#: What the wire takes: up to 30 digits, 12 of them after the point.
quantities = st.decimals(0, 10**18 - 1, places=12)
#: What a catalogue takes: up to 24 digits, 18 of them after the point.
unit_prices = st.decimals(0, 10**6 - 1, places=18)
packs = st.sampled_from(
    [Decimal(1), Decimal(3), Decimal(7), Decimal(1000), Decimal(1_000_000), Decimal("0.000000000003")]
)


def a_price(unit_price: str | Decimal = "1", **changes: Any) -> Price:
    """A price for tokens of m of p, for everybody, since the beginning of the year."""
    fields: dict[str, Any] = {
        "price_id": 1,
        "scope": "",
        "category": "llm",
        "provider": "p",
        "model": "m",
        "unit": "token",
        "currency": "USD",
        "unit_price": Decimal(unit_price),
        "effective_from": BEGAN,
    }
    return Price(**(fields | changes))


def a_ladder(*rungs: tuple[str | None, str], span: LadderSpan = LadderSpan.PERIOD, **changes: Any) -> Price:
    """A graduated price: (up to, price of one) for each rung."""
    steps = tuple(Rung(None if top is None else Decimal(top), Decimal(price)) for top, price in rungs)
    return a_price("0", ladder=steps, ladder_span=span, **changes)


@st.composite
def ladders(draw: st.DrawFn) -> Price:
    """Any ladder that a catalogue takes."""
    tops = sorted(draw(st.lists(st.decimals("0.000000000001", 10**9, places=12), max_size=4, unique=True)))
    prices = draw(st.lists(unit_prices, min_size=len(tops) + 1, max_size=len(tops) + 1))
    rungs = tuple(Rung(top, price) for top, price in zip([*tops, None], prices, strict=True))
    return a_price("0", ladder=rungs, ladder_span=LadderSpan.PERIOD, per=draw(packs))


def an_item(quantity: str | Decimal | int = 1, **changes: Any) -> Item:
    """So many tokens of m of p."""
    fields = {"category": "llm", "provider": "p", "model": "m", "unit": "token"} | changes
    return Item(**fields, quantity=Decimal(quantity))


def an_event(*items: Item, **changes: Any) -> UsageEvent:
    """An event of acme's customer ana, at noon on the twentieth of November."""
    fields: dict[str, Any] = {
        "tenant_id": "acme",
        "customer_id": "ana",
        "key": "k",
        "occurred_at": datetime(2026, 11, 20, 12, tzinfo=UTC),
    }
    return UsageEvent(**(fields | changes), items=items or (an_item(),))


def rounded(exact: Fraction) -> Decimal:
    """Half-even to 12 places, by other arithmetic than the code's."""
    return Decimal(round(exact * 10**12)).scaleb(-12)
