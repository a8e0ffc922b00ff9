"""Rating again what was charged: each event at other prices, and by how much that differs. Pure.

A period is rated event by event, in the order in which they were charged. What adds up over a period (see
`billing.prices.LadderSpan`) needs the whole of it before any line's cost is known, so a period goes by twice: once
to `Ladders.count`, once to `Rerating.rate`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import msgspec

from billing.money import ZERO, written
from billing.plans import Plan
from billing.prices import LadderSpan, Price, PriceBook, ProductKey, Rung, cost_of
from billing.rating import Line, Parking, ParkReason, Rated, rate

#: From when on the earliest price of a product in a price list that is tried out holds.
ALWAYS = datetime(1, 1, 1, tzinfo=UTC)


class GivenPrice(msgspec.Struct, frozen=True):
    """A price that is in no book, kept with what was rated by it; `product` is what it is listed for."""

    product: ProductKey
    currency: str
    unit_price: Decimal
    per: Decimal
    ladder: tuple[tuple[Decimal | None, Decimal], ...] = ()
    ladder_span: LadderSpan = LadderSpan.EVENT

    def price(self) -> Price:
        """The same as the rules take it."""
        rungs = tuple(Rung(*rung) for rung in self.ladder)
        return Price(
            -1,
            "",
            *self.product,
            self.currency,
            self.unit_price,
            ALWAYS,
            per=self.per,
            ladder=rungs,
            ladder_span=self.ladder_span,
        )


PriceKey = int | GivenPrice
"""Which price a line was rated by: the book's id, or the price itself."""


class PastLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item of an event with the price it was rated by last, and its cost; an `Item` to the rules."""

    category: str
    provider: str
    model: str
    unit: str
    quantity: Decimal
    price_id: int | None
    cost: Decimal
    given: GivenPrice | None = None

    @property
    def price_key(self) -> PriceKey | None:
        return self.given if self.given is not None else self.price_id


class PastEvent(msgspec.Struct, frozen=True):
    """A charged event as it counts now: after all corrections so far. `Rateable`, to the rules."""

    tenant_id: str
    customer_id: str
    key: str
    occurred_at: datetime
    charged_at: datetime
    tokens: int
    cost: Decimal
    currency: str | None
    items: tuple[PastLine, ...]
    burned: Mapping[str, Decimal] | None = None
    """What it has taken so far, by grant and debt; None where its own ledger entry still says it."""
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """What is rated by: a book, in which some prices may stand that are not of the book."""

    book: PriceBook
    given: Mapping[int, GivenPrice]
    climbing: Mapping[PriceKey, Price]
    """Those that add up over a period."""

    @classmethod
    def of(cls, prices: Sequence[Price], tenant_id: str, given: Iterable[Price] = ()) -> "Prices":
        """The book's prices; where some are given, those come before all that the book has for what they list.

        The earliest given price of a product holds from ever, whatever it says: a list that begins tomorrow can be
        tried on what was used yesterday.
        """
        listed = list(_from_ever(given, tenant_id))
        products = {price.product for price in listed}
        kept = [price for price in prices if price.scope != tenant_id or price.product not in products]
        named = {price.price_id: _given(price) for price in listed}
        climbing: dict[PriceKey, Price] = {price.price_id: price for price in prices if price.adds_up_over_period}
        climbing |= {named[price.price_id]: price for price in listed if price.adds_up_over_period}
        return cls(PriceBook.of(0, [*kept, *listed]), named, climbing)

    def climbs(self, line: PastLine) -> bool:
        """Whether what a line costs depends on the period so far."""
        key = line.price_key
        return key is not None and line.quantity > ZERO and (key in self.climbing or _adds_up(key))

    def ladders(self, lines: Iterable[PastLine]) -> dict[PriceKey, Decimal]:
        """How much of these lines stands on each ladder that adds up over a period."""
        found: dict[PriceKey, Decimal] = {}
        for line in lines:
            if line.price_key is not None and self.climbs(line):
                found[line.price_key] = found.get(line.price_key, ZERO) + line.quantity
        return found

    def as_past(self, line: Line) -> PastLine:
        """A line as it is kept."""
        item, price = line.item, line.price
        given = self.given.get(price.price_id) if price else None
        price_id = price.price_id if price and given is None else None
        product = (item.category, item.provider, item.model, item.unit)
        return PastLine(*product, item.quantity, price_id, line.cost, given)


def _adds_up(key: PriceKey) -> bool:
    return isinstance(key, GivenPrice) and key.price().adds_up_over_period


def _from_ever(given: Iterable[Price], tenant_id: str) -> Iterable[Price]:
    earliest: set[ProductKey] = set()
    ids = count(-1, -1)
    for price in sorted(given, key=lambda one: one.effective_from):
        is_first = price.product not in earliest
        earliest.add(price.product)
        facts = {name: getattr(price, name) for name in Price.__slots__}
        effective_from = ALWAYS if is_first else price.effective_from
        yield Price(**facts | {"price_id": next(ids), "scope": tenant_id, "effective_from": effective_from})


def _given(price: Price) -> GivenPrice:
    """Numbers are spelled in one way: a ladder is found again by what was kept of it."""
    ladder = tuple(
        (None if rung.up_to is None else _spelled(rung.up_to), _spelled(rung.unit_price)) for rung in price.ladder
    )
    numbers = (_spelled(price.unit_price), _spelled(price.per))
    return GivenPrice(price.product, price.currency, *numbers, ladder, price.ladder_span)


def _spelled(number: Decimal) -> Decimal:
    return Decimal(written(number))


@dataclass(slots=True)
class _Climb:
    quantity: Decimal = ZERO
    cost_now: Decimal = ZERO
    is_same: bool = True
    """Every line on this ladder was on it before."""
    reached: Decimal = ZERO
    owed: Decimal = ZERO
    """By how much what stays on it costs less, or more, than the foot of the ladder that is reached with it."""


@dataclass(slots=True)
class Ladders:
    """The ladders that add up over one period: first counted, then climbed."""

    climbs: dict[PriceKey, _Climb] = field(default_factory=dict)
    kept: set[PriceKey] = field(default_factory=set)

    def count(self, line: PastLine, before: PastLine) -> None:
        """Note a line that is on a ladder now, and what it was before."""
        key = line.price_key
        assert key is not None
        climb = self.climbs.setdefault(key, _Climb())
        climb.quantity += line.quantity
        climb.cost_now += before.cost
        climb.is_same = climb.is_same and before.price_key == key

    def stay(self, line: PastLine) -> None:
        """Note a line of an event that can't be rated: its cost stays as it is, and what it stands on is taken."""
        key = line.price_key
        assert key is not None
        climb = self.climbs.setdefault(key, _Climb())
        climb.quantity += line.quantity
        climb.cost_now += line.cost
        climb.reached += line.quantity
        climb.owed -= line.cost

    def settle(self, climbing: Mapping[PriceKey, Price]) -> None:
        """All is counted. A ladder whose lines are those of before, and add up, is left as it is.

        Its events may have climbed in another order than that in which they go by here; the sum is the same.
        """
        for key, climb in self.climbs.items():
            price = climbing.get(key)
            if price is None:
                continue  # nothing but what stays is on it
            if climb.is_same and climb.cost_now == cost_of(price, climb.quantity):
                self.kept.add(key)
            climb.owed += cost_of(price, climb.reached)

    def cost(self, line: PastLine, before: PastLine, price: Price) -> Decimal:
        """What a line costs at its place on the ladder."""
        key = line.price_key
        assert key is not None
        if key in self.kept:
            return before.cost
        climb = self.climbs[key]
        cost = cost_of(price, line.quantity, climb.reached) + climb.owed
        climb.reached += line.quantity
        climb.owed = min(cost, ZERO)  # none costs less than nothing
        return max(cost, ZERO)


class Rerated(msgspec.Struct, frozen=True):
    """An event at other prices."""

    event: PastEvent
    lines: tuple[PastLine, ...]
    cost: Decimal
    currency: str | None
    """In which it is paid: the new prices', or that of before where nothing has a price."""
    is_moved: bool
    """A line stands on another ladder than before: to be noted, even where the cost is the same."""
    climbs: dict[int, Decimal]
    """By how much the ladders of the book are climbed further by that, or less."""

    @property
    def difference(self) -> Decimal:
        return self.cost - self.event.cost

    @property
    def is_changed(self) -> bool:
        return bool(self.difference) or self.is_moved


@dataclass(slots=True)
class Rerating:
    """Rates the events of one period again, for a customer who has wallets in `currencies`."""

    prices: Prices
    plan: Plan
    currencies: Collection[str]
    ladders: Ladders = field(default_factory=Ladders)

    def count(self, event: PastEvent) -> None:
        """The first way through the period: count what stands on ladders."""
        rated = self._rated(event)
        if isinstance(rated, Parking):
            for stays in filter(self.prices.climbs, event.items):
                self.ladders.stay(stays)
            return
        for line, before in zip(rated.lines, event.items, strict=True):
            past = self.prices.as_past(line)
            if self.prices.climbs(past):
                self.ladders.count(past, before)

    def settle(self) -> None:
        """The first way is done."""
        self.ladders.settle(self.prices.climbing)

    def rate(self, event: PastEvent) -> Rerated | Parking:
        """The second way: what an event costs now, or why that can't be said."""
        rated = self._rated(event)
        if isinstance(rated, Parking):
            return rated
        lines = tuple(self._line(*pair) for pair in zip(rated.lines, event.items, strict=True))
        now, before = self.prices.ladders(lines), self.prices.ladders(event.items)
        cost = sum((line.cost for line in lines), ZERO)
        climbs = {key: now.get(key, ZERO) - before.get(key, ZERO) for key in {**now, **before} if isinstance(key, int)}
        return Rerated(event, lines, cost, rated.currency or event.currency, now != before, climbs)

    def _rated(self, event: PastEvent) -> Rated | Parking:
        rated = rate(event, self.plan, self.currencies, self.prices.book)
        if isinstance(rated, Parking) or not event.cost or rated.currency in {None, event.currency}:
            return rated
        detail = f"it was charged in {event.currency}, and its prices are in {rated.currency}"
        return Parking(ParkReason.CURRENCY_MISMATCH, detail)

    def _line(self, line: Line, before: PastLine) -> PastLine:
        past = self.prices.as_past(line)
        if line.price is None or not self.prices.climbs(past):
            return past
        return msgspec.structs.replace(past, cost=self.ladders.cost(past, before, line.price))


def shared(lines: Sequence[PastLine], price: PriceKey, difference: Decimal) -> tuple[tuple[PastLine, ...], Decimal]:
    """Let those of an event's lines that stand on a ladder cost so much more, or less; and what is left of that.

    More is borne by the last of them. None costs less than nothing, so of less some may be left.
    """
    left = difference
    changed: list[PastLine] = []
    for line in reversed(lines):
        borne = max(left, -line.cost) if line.price_key == price else ZERO
        left -= borne
        changed.append(msgspec.structs.replace(line, cost=line.cost + borne) if borne else line)
    return tuple(reversed(changed)), left
