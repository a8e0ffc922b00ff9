"""What a customer has agreed to pay."""

from dataclasses import dataclass

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

    def __post_init__(self) -> None:
        if min(self.fixed_fee_minor, self.included_tokens, self.tier_fee_minor) < 0:
            raise CatalogueMalformed("a plan's fees and included tokens are never negative", plan=self.plan_id)
        if self.tier_size is not None and self.tier_size <= 0:
            raise CatalogueMalformed("a plan's tier_size is a positive number of tokens", plan=self.plan_id)
        if self.tier_size is not None and self.tier_fee_minor == 0:
            raise CatalogueMalformed("a plan with tiers has a tier_fee_minor above zero", plan=self.plan_id)

    @property
    def has_tiers(self) -> bool:
        return self.tier_size is not None
