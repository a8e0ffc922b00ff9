"""The price book: which price an item has at a moment, and what so much of it costs."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from billing.money import ZERO, as_cost

#: The scope of prices that hold for every tenant without one of its own.
EVERYBODY = ""

#: Products remembered by a book: a bound on what made-up model names can make it keep.
ASKED_MAX = 10_000

ProductKey = tuple[str, str, str, str]
"""category, provider, model, unit"""


class LadderSpan(StrEnum):
    """Over what a ladder's quantities add up."""

    EVENT = "event"
    PERIOD = "period"


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of a graduated ladder: quantities up to `up_to` (None: without end) cost `unit_price` each."""

    up_to: Decimal | None
    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """What one product costs from `effective_from` on: `unit_price` for each `per` units, or a ladder.

    A mistake is corrected by a higher `revision` of the same start; a price that `is_ended` ends what its
    scope charged before.
    """

    price_id: int
    scope: str
    category: str
    provider: str
    model: str
    unit: str
    currency: str
    unit_price: Decimal
    effective_from: datetime
    revision: int = 0
    per: Decimal = Decimal(1)
    ladder: tuple[Rung, ...] = ()
    ladder_span: LadderSpan = LadderSpan.EVENT
    is_provider_default: bool = False
    is_ended: bool = False

    @property
    def product(self) -> ProductKey:
        return self.category, self.provider, self.model, self.unit

    @property
    def adds_up_over_period(self) -> bool:
        return bool(self.ladder) and self.ladder_span is LadderSpan.PERIOD


def cost_of(price: Price, quantity: Decimal, already: Decimal = ZERO) -> Decimal:
    """What `quantity` units cost, when `already` units of the same ladder were counted before; 12 places.

    A ladder's costs add up exactly: the cost of a sum is the sum of its parts' costs.

    >>> from datetime import UTC
    >>> rungs = (Rung(Decimal(10), Decimal(2)), Rung(None, Decimal(1)))
    >>> began = datetime(2026, 1, 1, tzinfo=UTC)
    >>> ladder = Price(1, "", "llm", "p", "m", "token", "USD", Decimal(0), began, ladder=rungs)
    >>> cost_of(ladder, Decimal(15))
    Decimal('25.000000000000')
    """
    if not price.ladder:
        return as_cost(quantity * price.unit_price / price.per)
    return as_cost(_climbed(price, already + quantity)) - as_cost(_climbed(price, already))


def _climbed(price: Price, quantity: Decimal) -> Decimal:
    total, floor = ZERO, ZERO
    for rung in price.ladder:
        top = quantity if rung.up_to is None else min(quantity, rung.up_to)
        if top > floor:
            total += (top - floor) * rung.unit_price
            floor = top
    return total / price.per


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All prices at one revision of the book, ready to be asked."""

    revision: int
    _exact: dict[tuple[str, ProductKey], list[Price]] = field(default_factory=dict)
    _of_provider: dict[tuple[str, ProductKey], list[Price]] = field(default_factory=dict)
    _asked: dict[tuple[str, ProductKey], tuple[list[Price], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, revision: int, prices: Iterable[Price]) -> "PriceBook":
        book = cls(revision)
        # The id decides between defaults of the same start, so that no two processes ever choose differently.
        for price in sorted(prices, key=lambda p: (p.effective_from, p.revision, p.price_id), reverse=True):
            book._exact.setdefault((price.scope, price.product), []).append(price)
            any_model = (price.category, price.provider, "", price.unit)
            book._of_provider.setdefault((price.scope, any_model), []).append(price)
        return book

    def find(self, tenant_id: str, product: ProductKey, at: datetime) -> Price | None:
        """The price of a product at a moment, or None.

        The exact model comes before a provider's default, and at either the tenant's own price before
        everybody's. A default serves an unknown model only if that price says so, and only for its unit.
        """
        scopes = self._asked.get((tenant_id, product))
        if scopes is None:
            scopes = self._remember(tenant_id, product)
        for newest_first in scopes:
            price = _in_force(newest_first, at)
            if price is not None and not price.is_ended:
                return price
        return self._default(tenant_id, product, at)

    def _remember(self, tenant_id: str, product: ProductKey) -> tuple[list[Price], ...]:
        """The exact prices of a product, tenant's before everybody's; kept, because the same is asked all day."""
        if len(self._asked) >= ASKED_MAX:
            self._asked.clear()
        found = (self._exact.get((scope, product)) for scope in (tenant_id, EVERYBODY))
        scopes = self._asked[tenant_id, product] = tuple(prices for prices in found if prices)
        return scopes

    def _default(self, tenant_id: str, product: ProductKey, at: datetime) -> Price | None:
        category, provider, _, unit = product
        for scope in (tenant_id, EVERYBODY):
            for price in self._of_provider.get((scope, (category, provider, "", unit)), ()):
                if price.effective_from > at or not price.is_provider_default or price.is_ended:
                    continue
                if price is _in_force(self._exact[scope, price.product], at):
                    return price
        return None


def _in_force(newest_first: Iterable[Price], at: datetime) -> Price | None:
    for price in newest_first:
        if price.effective_from <= at:
            return price
    return None
