"""Why value moves: the words that are usual, and what elsewhere's types of transaction are called here.

A reason is a free word: whoever moves value may think of another. These are the ones that are known, so that two
applications need not think of two words for the same.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from billing.grants import Source


class Reason(StrEnum):
    """Reasons that are usual, of grants, adjustments and events. The words are API."""

    AI_CHAT = "ai_chat"
    MODEL_USAGE = "model_usage"
    VOICE_SYNTHESIS = "voice_synthesis"
    PODCAST_GENERATION = "podcast_generation"
    MANUAL_ADJUSTMENT = "manual_adjustment"
    SUBSCRIPTION_REFILL = "subscription_refill"
    WELCOME_BONUS = "welcome_bonus"
    REFERRAL_BONUS = "referral_bonus"


class EntryKind(StrEnum):
    """Of which kind an entry is that gives or takes value by hand or by schedule."""

    GRANT = "grant"
    SUBSCRIPTION = "subscription"
    """What a subscription gives, and is not the monthly free credits."""
    ADJUSTMENT = "adjustment"
    """What a person gives or takes to put something right."""


_KINDS = {Source.SUBSCRIPTION: EntryKind.SUBSCRIPTION, Source.ADJUSTMENT: EntryKind.ADJUSTMENT}

#: Types of transaction of the system that is called 001 in docs/parity.md: of which kind such an entry is here, and
#: of which source its grant, where it gives one.
FROM_ELSEWHERE: Mapping[str, tuple[str, Source | None]] = MappingProxyType(
    {
        "PURCHASE": ("purchase", Source.PURCHASE),
        "USAGE": ("usage", None),
        "REFUND": ("refund", None),
        "BONUS": (EntryKind.GRANT.value, Source.PROMO),
        "SUBSCRIPTION": (EntryKind.SUBSCRIPTION.value, Source.SUBSCRIPTION),
        "REFILL": (EntryKind.GRANT.value, Source.FREE),
        "ADJUSTMENT": (EntryKind.ADJUSTMENT.value, Source.ADJUSTMENT),
    }
)


def kind_of(source: Source) -> EntryKind:
    """Of which kind the entry is by which a grant of this source arrives.

    >>> str(kind_of(Source.PROMO)), str(kind_of(Source.ADJUSTMENT))
    ('grant', 'adjustment')
    """
    return _KINDS.get(source, EntryKind.GRANT)
