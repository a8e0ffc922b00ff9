"""Token tiers: how many further fees a month of tokens owes."""

from billing.plans import Plan


def tiers_owed(tokens: int, plan: Plan) -> int:
    """How many tier payments these tokens owe: one for each further tier begun.

    `max(0, ceil((tokens - included) / size))`: with 8M included and tiers of 8M, 8,000,000 tokens owe none,
    8,000,001 and 16,000,000 owe one, 16,000,001 owe two.
    """
    if plan.tier_size is None:
        return 0
    return max(0, -((plan.included_tokens - tokens) // plan.tier_size))


def tiers_begun(before: int, after: int, plan: Plan) -> range:
    """The numbers of the tiers, counted from 1, that begin between two readings of a period's tokens."""
    return range(tiers_owed(before, plan) + 1, tiers_owed(after, plan) + 1)
