"""What a customer has agreed to pay."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

from billing.dunning import DEFAULT_DAYS, DEFAULT_HOUR, Schedule
from billing.errors import CatalogueMalformed
from billing.money import ZERO

#: What workers take before it is too late for a closed period; a worker that stood still must not come after it.
GRACE_HOURS_MIN = 1
GRACE_HOURS_MAX = 24 * 35
DEFAULT_GRACE_HOURS = 72


class Anchor(StrEnum):
    """On which day a customer's months begin."""

    CALENDAR = "calendar"
    """The first of each month."""
    JOINED = "joined"
    """The day of the month on which the customer joined."""


class Proration(StrEnum):
    """What a part of a month costs."""

    NONE = "none"
    """The whole fee."""
    DAILY = "daily"
    """The fee's share for the days of it."""


class LateEvents(StrEnum):
    """What becomes of an event that comes when the period it occurred in is closed."""

    CURRENT = "current"
    """It counts in the current period, marked as late."""
    PARK = "park"
    """A person decides."""


class UnowedTiers(StrEnum):
    """What becomes of a tier that was paid, and is no longer owed since usage was voided."""

    REFUND = "refund"
    KEEP = "keep"
    """The payment stands, and pays for the tier should it begin again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of a plan; a version never changes once it exists.

    With a `tier_size`, tokens are covered by the monthly fee and by tiers, and need no price; every other
    unit is debited from the wallet. Without one, every unit is debited from the wallet.
    """

    tenant_id: str
    plan_id: str
    version: int
    name: str
    payment_currency: str
    fixed_fee_minor: int
    included_tokens: int
    tier_size: int | None
    tier_fee_minor: int
    dunning_days: tuple[int, ...] = DEFAULT_DAYS
    dunning_hour: int = DEFAULT_HOUR
    open_tiers_max: int = 5
    """With so many tier payments unpaid, the customer can't afford more."""
    free_credits: Decimal | None = ZERO
    """Given for each period, and gone with it; None: as much as the setting `free_tier_credits` says."""
    free_credits_currency: str = "CREDIT"
    anchor: Anchor = Anchor.CALENDAR
    proration: Proration = Proration.NONE
    late_events: LateEvents = LateEvents.CURRENT
    grace_hours: int = DEFAULT_GRACE_HOURS
    """How long a period that has ended stays open for events that come late."""
    unowed_tiers: UnowedTiers = UnowedTiers.REFUND
    day_payments_max: int | None = None
    """Payments begun by themselves in one day, above which a person approves; None: as the settings say."""
    day_minor_max: int | None = None
    """The same, in minor units of the payment currency."""

    def __post_init__(self) -> None:
        if min(self.fixed_fee_minor, self.included_tokens, self.tier_fee_minor) < 0:
            raise CatalogueMalformed("a plan's fees and included tokens are never negative", plan=self.plan_id)
        if self.tier_size is not None and self.tier_size <= 0:
            raise CatalogueMalformed("a plan's tier_size is a positive number of tokens", plan=self.plan_id)
        if self.tier_size is not None and self.tier_fee_minor == 0:
            raise CatalogueMalformed("a plan with tiers has a tier_fee_minor above zero", plan=self.plan_id)

        if problem := self._problem_of_limits() or self.dunning.problem():
            raise CatalogueMalformed(problem, plan=self.plan_id)

    def _problem_of_limits(self) -> str | None:
        if self.open_tiers_max < 1:
            return "a plan's open_tiers_max is at least 1"
        if self.free_credits is not None and self.free_credits < 0:
            return "a plan's free_credits are never negative"
        if not GRACE_HOURS_MIN <= self.grace_hours <= GRACE_HOURS_MAX:
            return f"a plan's grace_hours lie between {GRACE_HOURS_MIN} and {GRACE_HOURS_MAX}"
        if any(most is not None and most < 1 for most in (self.day_payments_max, self.day_minor_max)):
            return "a plan's day_payments_max and day_minor_max are at least 1"
        return None

    @property
    def grace(self) -> timedelta:
        """How long a period that has ended stays open for events that come late."""
        return timedelta(hours=self.grace_hours)

    @property
    def dunning(self) -> Schedule:
        """When a declined payment is tried again."""
        return Schedule(self.dunning_days, self.dunning_hour)

    @property
    def has_tiers(self) -> bool:
        return self.tier_size is not None
