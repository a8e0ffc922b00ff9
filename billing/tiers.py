"""Token tiers: how many further fees a month of tokens owes."""

from typing import NamedTuple

from billing.plans import Plan
from billing.quotas import THRESHOLDS


class Nearing(NamedTuple):
    """So many percent are used of what a tier covers (0: what the fee does), up to so many tokens."""

    tier: int
    covered: int
    percent: int


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


def nearing(before: int, after: int, plan: Plan) -> list[Nearing]:
    """The thresholds of tiers that lie between two readings of a period's tokens, each passed once on the way up.

    With 8M included and tiers of 8M they are 6.4M and 8M tokens, 14.4M and 16M, and so on.
    """
    if plan.tier_size is None:
        return []
    found = []
    for tier in range(tiers_owed(before, plan), tiers_owed(after, plan) + 1):
        covered = plan.included_tokens + tier * plan.tier_size
        width = plan.tier_size if tier else plan.included_tokens
        for percent in THRESHOLDS:
            # So many tokens are at least so many percent: rounded up.
            reached_at = covered - width - (-width * percent // 100)
            if before < reached_at <= after:
                found.append(Nearing(tier, covered, percent))
    return found
