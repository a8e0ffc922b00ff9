"""From an event to what it costs: every line with its price, or the reason why it is parked."""

from collections.abc import Collection, Container
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from billing.events import Event, Item, Rateable
from billing.money import ZERO, written
from billing.plans import Plan
from billing.prices import Price, PriceBook, cost_of

TOKEN = "token"  # noqa: S105 - a unit, not a secret


class ParkReason(StrEnum):
    """Why something is parked. The words are API: they are stored, listed and alerted on."""

    EVENT_MALFORMED = "event_malformed"
    ENVELOPE_MALFORMED = "envelope_malformed"
    MESSAGE_UNREADABLE = "message_unreadable"
    TASK_UNKNOWN = "task_unknown"
    UNKNOWN_TENANT = "unknown_tenant"
    UNKNOWN_CUSTOMER = "unknown_customer"
    KEY_CONFLICT = "key_conflict"
    UNPRICED = "unpriced"
    CURRENCY_MISMATCH = "currency_mismatch"
    MIXED_CURRENCIES = "mixed_currencies"
    IMPLAUSIBLE = "implausible"
    TOO_OLD = "too_old"
    PERIOD_CLOSED = "period_closed"
    KILLS_WORKER = "kills_worker"
    UNRECORDABLE = "unrecordable"


#: How the detail of what is unpriced ends; the product stands before it.
UNPRICED_SAYS = " has no price at its time"


class Parking(NamedTuple):
    """A well-formed input that can't be charged now: the reason, and a sentence for a person."""

    reason: ParkReason
    detail: str


class Line(msgspec.Struct, frozen=True):
    """One item with what it costs; no price where the plan covers it."""

    item: Item
    price: Price | None
    cost: Decimal


class Rated(msgspec.Struct, frozen=True):
    """What an event costs. `currency` is None when nothing is to be debited."""

    lines: tuple[Line, ...]
    tokens: int
    cost: Decimal
    currency: str | None


#: Each tier is a payment: on a plan whose size was meant in millions, little usage would make millions of them.
TIERS_AT_ONCE_MAX = 100


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is plausible: how much of a unit in one item, how far ahead, how long ago."""

    quantity_max: Decimal = Decimal(100_000_000)
    ahead_max: timedelta = timedelta(hours=1)
    age_max: timedelta = timedelta(days=35)

    def at(self, now: datetime) -> "Window":
        """The bounds as they stand at a moment."""
        return Window(self, now - self.age_max, now + self.ahead_max)


@dataclass(frozen=True, slots=True)
class Window:
    """The times and quantities that are plausible now."""

    bounds: Bounds
    earliest: datetime
    latest: datetime

    def implausible(self, event: Event) -> Parking | None:
        """Why a person should look at this event before it is charged, if anything."""
        occurred_at = event.occurred_at
        if occurred_at > self.latest:
            ahead = f"occurred_at {occurred_at.isoformat()} is more than {self.bounds.ahead_max} ahead of now"
            return Parking(ParkReason.IMPLAUSIBLE, ahead)
        if occurred_at < self.earliest:
            old = f"occurred_at {occurred_at.isoformat()} is older than {self.bounds.age_max.days} days"
            return Parking(ParkReason.TOO_OLD, old)
        most = self.bounds.quantity_max
        for number, item in enumerate(event.items):
            if item.quantity > most:
                much = f"items[{number}].quantity {written(item.quantity)} is above {written(most)}"
                return Parking(ParkReason.IMPLAUSIBLE, much)
        return None


def too_many_tiers(plan: Plan, tokens: int) -> Parking | None:
    """Why a person should look at the plan before so many tokens at once begin tiers on it, if anything."""
    if plan.tier_size is None or tokens <= TIERS_AT_ONCE_MAX * plan.tier_size:
        return None
    much = (
        f"{tokens} tokens at once are more than {TIERS_AT_ONCE_MAX} tiers of plan {plan.plan_id}, "
        f"whose tier_size is {plan.tier_size}: is that the plan that was meant?"
    )
    return Parking(ParkReason.IMPLAUSIBLE, much)


def rate(event: Rateable, plan: Plan, currencies: Container[str], book: PriceBook) -> Rated | Parking:
    """What an event costs on a plan, for a customer who has wallets in `currencies`.

    Tokens on a plan with tiers are covered by fee and tiers and need no price. Every other item needs one,
    in a currency that the customer has a wallet in; one event is paid from one wallet. A ladder that adds up
    over the period is rated from zero here, and again under the customer's lock.
    """
    lines: list[Line] = []
    currency: str | None = None
    tokens, cost = 0, ZERO
    for number, item in enumerate(event.items):
        if item.unit == TOKEN:
            whole = int(item.quantity)
            if whole != item.quantity:
                detail = f"items[{number}].quantity {written(item.quantity)}: tokens are counted whole"
                return Parking(ParkReason.IMPLAUSIBLE, detail)
            tokens += whole
            if plan.tier_size is not None:
                lines.append(Line(item, None, ZERO))
                continue
        product = (item.category, item.provider, item.model, item.unit)
        price = book.find(event.tenant_id, product, event.occurred_at)
        if price is None:
            return Parking(ParkReason.UNPRICED, f"items[{number}] {'/'.join(product)}{UNPRICED_SAYS}")
        if currency is not None and price.currency != currency:
            return Parking(ParkReason.MIXED_CURRENCIES, f"its prices are in {currency} and in {price.currency}")
        currency = price.currency
        line_cost = cost_of(price, item.quantity)
        cost += line_cost
        lines.append(Line(item, price, line_cost))
    if currency is not None and currency not in currencies:
        return Parking(ParkReason.CURRENCY_MISMATCH, f"priced in {currency}; the customer has no such wallet")
    return Rated(tuple(lines), tokens, cost, currency)


def unpriced_product(detail: str) -> str:
    """The product that something parked has no price for, by the sentence that it was parked with.

    >>> unpriced_product("items[0] llm_prompt/openai/gpt-9/token has no price at its time")
    'llm_prompt/openai/gpt-9/token'
    """
    return detail.partition("] ")[2].removesuffix(UNPRICED_SAYS)


def total(lines: Collection[Line]) -> Decimal:
    """The cost of all lines; a sum, never rounded again."""
    return sum((line.cost for line in lines), ZERO)


def adds_up(line: Line) -> bool:
    """Whether what this line costs depends on what was used in the period before."""
    return line.price is not None and line.price.adds_up_over_period and line.item.quantity > ZERO


def climb(rated: Rated, before: dict[int, Decimal]) -> Rated:
    """Rate again what adds up over a period, from where its ladders stand; they are moved on.

    `before` says by price how much was counted already.
    """
    lines = []
    for line in rated.lines:
        if line.price is None or not adds_up(line):
            lines.append(line)
            continue
        price_id = line.price.price_id
        already = before.get(price_id, ZERO)
        lines.append(replace(line, cost=cost_of(line.price, line.item.quantity, already)))
        before[price_id] = already + line.item.quantity
    return replace(rated, lines=tuple(lines), cost=total(lines))
