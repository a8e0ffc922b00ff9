"""May a customer use so much more? Asked before usage; whatever happens is recorded and debited all the same.

Two things pay: a wallet, and, on plans with tiers, the period. Both are asked with a buffer, because nobody knows
beforehand how long an answer becomes. What stops a customer stops everything::

    not_subscribed   the plan has a fee or tiers, and the subscription is paused or over
    fee_unpaid       the period's fee is not there, and the installation lets that stop usage
    open_tiers       as many tier payments are unpaid as the plan bears

Else each kind of usage is measured: value by what is available, tokens by what fee and tiers cover. Further tiers may
begin as long as they could be collected: up to the plan's open tiers, up to the caps, and not while the customer is
held. Hard quotas and a customer's own cap are asked like the wallet: is there room for so much?
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum

from billing.errors import Rejected
from billing.money import ZERO
from billing.payments import PAID, PaymentState
from billing.plans import Plan
from billing.quotas import Measure, Quota, QuotaKind, fits
from billing.rating import TOKEN
from billing.tiers import tiers_owed

BUFFER_MAX = 100
#: Nothing more is tried to collect it by itself.
FAILED = frozenset({PaymentState.UNCOLLECTIBLE, PaymentState.NEEDS_PAYMENT_METHOD})
_UNITS = {Measure.TOKENS: TOKEN, Measure.EVENTS: "event"}


class Refusal(StrEnum):
    """Why something can't be afforded. The words are API."""

    INSUFFICIENT = "insufficient"
    NOT_SUBSCRIBED = "not_subscribed"
    FEE_UNPAID = "fee_unpaid"
    OPEN_TIERS = "open_tiers"
    CAP_REACHED = "cap_reached"
    HELD = "held"
    QUOTA_EXCEEDED = "quota_exceeded"
    CUSTOMER_CAP = "customer_cap"
    """The customer's own limit on what usage costs."""


class FeeStops(StrEnum):
    """When a fee that is not paid stops a customer."""

    NEVER = "never"
    FAILED = "failed"
    """When it has no card to be collected from, or the last attempt was declined."""
    UNPAID = "unpaid"
    """As long as it is not there: also in the first moments of a month."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked: how much of which unit (a currency, `token` or `event`) is there, and is needed."""

    unit: str
    available: Decimal
    required: Decimal
    """With the buffer."""
    refusal: Refusal | None
    quota: str | None = None
    """Its name, where it is one."""

    @property
    def is_affordable(self) -> bool:
        return self.refusal is None


@dataclass(frozen=True, slots=True)
class Affordability:
    """The answer, and what it was made of; it is as its first check that refuses, or else as its first."""

    checks: tuple[Check, ...]

    @property
    def deciding(self) -> Check:
        return next((check for check in self.checks if check.refusal is not None), self.checks[0])

    @property
    def is_affordable(self) -> bool:
        return self.deciding.is_affordable

    @property
    def unit(self) -> str:
        return self.deciding.unit

    @property
    def available(self) -> Decimal:
        return self.deciding.available

    @property
    def required(self) -> Decimal:
        return self.deciding.required

    @property
    def reason(self) -> Refusal | None:
        return self.deciding.refusal


@dataclass(frozen=True, slots=True)
class Cover:
    """What a customer's period covers, and what stands against it."""

    plan: Plan
    tokens: int = 0
    """Used in the period so far."""
    is_subscribed: bool = True
    is_fee_missing: bool = False
    open_tiers: int = 0
    """Tier payments that are owed and not paid, of any period."""
    tiers_collectable: int | None = None
    """How many more the caps let through today; None: any number."""
    is_held: bool = False

    @property
    def stop(self) -> Refusal | None:
        """What stops this customer altogether, if anything."""
        plan = self.plan
        if not plan.has_tiers and not plan.fixed_fee_minor:
            return None
        if not self.is_subscribed:
            return Refusal.NOT_SUBSCRIBED
        if self.is_fee_missing:
            return Refusal.FEE_UNPAID
        if plan.has_tiers and self.open_tiers >= plan.open_tiers_max:
            return Refusal.OPEN_TIERS
        return None

    @property
    def covered(self) -> int:
        """Tokens left in what the fee, and the tiers that have begun, cover."""
        plan = self.plan
        if plan.tier_size is None:
            return 0
        return plan.included_tokens + tiers_owed(self.tokens, plan) * plan.tier_size - self.tokens

    @property
    def further_tiers(self) -> tuple[int, Refusal]:
        """How many more tiers may begin, and what keeps it at that."""
        if self.is_held:
            return 0, Refusal.HELD
        borne = max(0, self.plan.open_tiers_max - self.open_tiers)
        if self.tiers_collectable is not None and self.tiers_collectable < borne:
            return max(0, self.tiers_collectable), Refusal.CAP_REACHED
        return borne, Refusal.OPEN_TIERS


def is_fee_missing(stops: FeeStops, plan: Plan, state: PaymentState | None, *, is_opened: bool) -> bool:
    """Whether a period lacks a fee in a way that stops usage; without a payment, none is owed once it is opened."""
    if not plan.fixed_fee_minor or stops is FeeStops.NEVER:
        return False
    if stops is FeeStops.FAILED:
        return state in FAILED
    return not is_opened if state is None else state not in PAID


def afford_value(available: Decimal, cost: Decimal, currency: str, buffer: Decimal, cover: Cover) -> Check:
    """Whether a wallet has a cost with its buffer; what costs nothing needs nothing.

    >>> prepaid = Cover(Plan("acme", "prepaid", 1, "Prepaid", "BRL", 0, 0, None, 0))
    >>> afford_value(Decimal(12), Decimal(10), "USD", Decimal("1.2"), prepaid).is_affordable
    True
    """
    required = cost * buffer
    refusal = cover.stop
    if refusal is None and required and available < required:
        refusal = Refusal.INSUFFICIENT
    return Check(currency, available, required, refusal)


def afford_tokens(tokens: int, buffer: Decimal, cover: Cover) -> Check:
    """Whether a period on a plan with tiers has room for so many tokens with their buffer."""
    required = with_buffer(tokens, buffer)
    if (stop := cover.stop) is not None:
        return Check(TOKEN, ZERO, required, stop)
    further, why = cover.further_tiers
    assert cover.plan.tier_size is not None
    available = Decimal(cover.covered + further * cover.plan.tier_size)
    return Check(TOKEN, available, required, why if required > available else None)


def afford_quotas(
    quotas: Iterable[tuple[Quota, Decimal]], tokens: Decimal, cost: Decimal, currency: str | None
) -> list[Check]:
    """Whether quotas, each with what is used of it, leave room for one event of so many tokens and such a cost.

    Tokens and cost come with their buffer. A quota of cost in another currency does not count it.
    """
    checks = []
    for quota, used in quotas:
        if quota.measure is Measure.COST and quota.currency != currency:
            continue
        asked = quota.amount(int(tokens), cost)
        refusal = Refusal.CUSTOMER_CAP if quota.kind is QuotaKind.CAP else Refusal.QUOTA_EXCEEDED
        unit = quota.currency or _UNITS[quota.measure]
        left = max(ZERO, quota.limit - used)
        checks.append(Check(unit, left, asked, None if fits(used, asked, quota.limit) else refusal, quota.name))
    return checks


def with_buffer(tokens: int, buffer: Decimal) -> Decimal:
    """So many tokens and their buffer, in whole ones."""
    return (tokens * buffer).to_integral_value(ROUND_CEILING)


def check_buffer(buffer: Decimal) -> None:
    """Raises `Rejected` for what is no buffer."""
    if not buffer.is_finite() or not 1 <= buffer <= BUFFER_MAX:
        raise Rejected(f"a buffer lies between 1 and {BUFFER_MAX}, such as 1.2", buffer=str(buffer))
