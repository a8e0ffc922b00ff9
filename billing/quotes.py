"""What usage would cost, before it happens, and who would pay for it. Pure; rated by `billing.rating`, as usage is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing.affordability import Cover
from billing.events import Item
from billing.grants import DEBT, Grant, Source, Standing, burn, burn_kept
from billing.money import ZERO
from billing.prices import Price
from billing.rating import TOKEN, Line, Rated
from billing.tiers import tiers_begun

#: What nobody has paid for.
GIVEN = frozenset(Source) - {Source.PURCHASE}


class BillingMethod(StrEnum):
    """How usage is paid for. The words are API."""

    WALLET_DEDUCTION = "wallet_deduction"
    """From the wallet, whatever is in it."""
    PAYMENT_CHARGE = "payment_charge"
    """By a payment: of a tier that begins, or of a top-up."""
    CREDIT_CONSUMPTION = "credit_consumption"
    """From what was given, all of it."""
    SUBSCRIPTION_INCLUDED = "subscription_included"
    """By the plan's fee, and the tiers that have begun."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Items as if they were used at a moment: an event without a key."""

    tenant_id: str
    customer_id: str
    occurred_at: datetime
    items: Sequence[Item]
    key: str = ""
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class QuotedLine:
    """One item, with the price it would be rated by (None: the plan covers it) and what it would cost."""

    item: Item
    price: Price | None
    cost: Decimal
    method: BillingMethod

    @property
    def is_provider_default(self) -> bool:
        """Whether no price names its model, and one of its provider's serves it."""
        return self.price is not None and self.price.model != self.item.model


@dataclass(frozen=True, slots=True)
class Covered:
    """Tokens that the plan covers: within the fee, within tiers that have begun, and those that would begin."""

    tokens: int = 0
    in_fee: int = 0
    in_tiers: int = 0
    further: int = 0
    tiers_begun: int = 0
    tiers_minor: int = 0
    """What the tiers that would begin cost, in minor units of the plan's payment currency."""
    payment_currency: str | None = None


@dataclass(frozen=True, slots=True)
class Paid:
    """What a wallet would pay from: amounts by source, and what nothing covers."""

    sources: dict[Source, Decimal] = field(default_factory=dict)
    uncovered: Decimal = ZERO

    @property
    def free(self) -> Decimal:
        return self.sources.get(Source.FREE, ZERO)

    @property
    def given(self) -> Decimal:
        return sum((amount for source, amount in self.sources.items() if source in GIVEN), ZERO)


@dataclass(frozen=True, slots=True)
class Quote:
    """What items would cost now, in all. `currency` is None where the plan covers everything."""

    lines: tuple[QuotedLine, ...]
    cost: Decimal
    currency: str | None
    covered: Covered
    paid: Paid | None
    """None where it is nobody's wallet."""
    suggested: BillingMethod
    possible: tuple[BillingMethod, ...]
    price_revision: int

    @property
    def is_free(self) -> bool:
        """Whether free credits pay for all of it."""
        return self.paid is not None and bool(self.cost) and self.paid.free == self.cost

    def is_served_by(self, method: BillingMethod) -> bool:
        """Whether all of it would be paid for like this. What was given stands in the wallet, too."""
        methods = {line.method for line in self.lines}
        if method is BillingMethod.WALLET_DEDUCTION:
            methods -= {BillingMethod.CREDIT_CONSUMPTION}
        return methods <= {method}

    @property
    def is_included(self) -> bool:
        """Whether fee and tiers that have begun pay for all of it."""
        return not self.cost and self.covered.tokens > 0 and not self.covered.tiers_begun


def covered(rated: Rated, cover: Cover) -> Covered:
    """What the plan covers of these tokens, in a period that has used some.

    >>> from billing.plans import Plan
    >>> tiers = Plan("acme", "tiers", 1, "Tiers", "BRL", 40_000, 8_000_000, 8_000_000, 10_000)
    >>> covered(Rated((), 10_000_000, ZERO, None), Cover(tiers)).tiers_minor
    10000
    """
    plan, tokens = cover.plan, rated.tokens
    if plan.tier_size is None:
        return Covered()
    in_fee = min(tokens, max(0, plan.included_tokens - cover.tokens))
    within = min(tokens, cover.covered)
    begun = len(tiers_begun(cover.tokens, cover.tokens + tokens, plan))
    return Covered(
        tokens, in_fee, within - in_fee, tokens - within, begun, begun * plan.tier_fee_minor, plan.payment_currency
    )


def paid_from(
    cost: Decimal,
    grants: Iterable[Grant],
    sources: dict[str, Source],
    now: datetime,
    kept: tuple[Decimal, datetime] | None = None,
) -> Paid:
    """What a wallet with these open grants, in burn order, would pay a cost from that occurs now.

    `kept` is how much a hold has kept back for it, and since when.
    """
    wallet = Standing(ZERO, 0, grants=list(grants))
    amounts: dict[Source, Decimal] = {}
    uncovered = ZERO
    change = burn(wallet, cost, now) if kept is None else burn_kept(wallet, cost, now, *kept)
    for name, amount in change.of(-cost).items():
        if name == DEBT:
            uncovered += amount
        elif amount:
            amounts[sources[name]] = amounts.get(sources[name], ZERO) - amount
    return Paid(amounts, uncovered)


def method_of_plan(*, begins_tier: bool) -> BillingMethod:
    """How tokens are paid for that a plan covers."""
    return BillingMethod.PAYMENT_CHARGE if begins_tier else BillingMethod.SUBSCRIPTION_INCLUDED


def method_of_value(cost: Decimal, given: Decimal) -> BillingMethod:
    """How a cost is paid for, of which so much comes from what was given."""
    return BillingMethod.CREDIT_CONSUMPTION if cost and given >= cost else BillingMethod.WALLET_DEDUCTION


def quote(rated: Rated, cover: Cover, paid: Paid | None, price_revision: int, *, has_card: bool) -> Quote:
    """All that is known of items that were rated: who would pay for each, and how it could be paid."""
    of_plan = covered(rated, cover)
    by_plan = method_of_plan(begins_tier=of_plan.tiers_begun > 0)
    by_value = method_of_value(rated.cost, paid.given if paid is not None else ZERO)
    is_given = by_value is BillingMethod.CREDIT_CONSUMPTION
    possible = [by_plan] if of_plan.tokens else []
    if rated.currency is not None:
        possible += [BillingMethod.CREDIT_CONSUMPTION] if is_given else []
        possible += [BillingMethod.WALLET_DEDUCTION]
        possible += [BillingMethod.PAYMENT_CHARGE] if has_card else []
    if not possible:  # no token, of a plan that covers them
        possible = [by_plan]
    return Quote(
        tuple(_line(line, by_plan, by_value) for line in rated.lines),
        rated.cost,
        rated.currency,
        of_plan,
        paid,
        by_plan if rated.currency is None else by_value,
        tuple(dict.fromkeys(possible)),
        price_revision,
    )


def _line(line: Line, by_plan: BillingMethod, by_value: BillingMethod) -> QuotedLine:
    is_covered = is_of_plan(line.item.unit, is_priced=line.price is not None)
    return QuotedLine(line.item, line.price, line.cost, by_plan if is_covered else by_value)


def is_of_plan(unit: str, *, is_priced: bool) -> bool:
    """Whether a line was covered by a plan: tokens that no price was needed for."""
    return not is_priced and unit == TOKEN
