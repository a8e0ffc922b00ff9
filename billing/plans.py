"""What a customer has agreed to pay."""

from dataclasses import dataclass

from billing.dunning import DEFAULT_DAYS, DEFAULT_HOUR, Schedule
from billing.errors import CatalogueMalformed


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

    def __post_init__(self) -> None:
        if min(self.fixed_fee_minor, self.included_tokens, self.tier_fee_minor) < 0:
            raise CatalogueMalformed("a plan's fees and included tokens are never negative", plan=self.plan_id)
        if self.tier_size is not None and self.tier_size <= 0:
            raise CatalogueMalformed("a plan's tier_size is a positive number of tokens", plan=self.plan_id)
        if self.tier_size is not None and self.tier_fee_minor == 0:
            raise CatalogueMalformed("a plan with tiers has a tier_fee_minor above zero", plan=self.plan_id)

        if self.open_tiers_max < 1:
            raise CatalogueMalformed("a plan's open_tiers_max is at least 1", plan=self.plan_id)
        if problem := self.dunning.problem():
            raise CatalogueMalformed(problem, plan=self.plan_id)

    @property
    def dunning(self) -> Schedule:
        """When a declined payment is tried again."""
        return Schedule(self.dunning_days, self.dunning_hour)

    @property
    def has_tiers(self) -> bool:
        return self.tier_size is not None
