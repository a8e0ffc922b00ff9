"""Payments: money to collect. What one is called, the states it can be in, and which way is forward.

A payment moves forward, and never back; Postgres refuses it. While it is open, forward is the order of (attempts
made, rank of the state); voided is beyond all that, and paid beyond voided; attempts never become fewer. The ranks::

    1  submitting                 the call is being made
    2  unknown, processing        its outcome is not known yet
    3  waiting                    for its time, a card, the customer, a person: due, retry_scheduled,
                                  needs_payment_method, needs_authentication, awaiting_approval, uncollectible
    4  voided                     nothing is owed any more
    5  paid: succeeded, partially_refunded, refunded, disputed

What waits may wait for something else next, and what is paid may be given back, in part, disputed, won back.
Beginning an attempt raises the number of attempts. A voided payment that Stripe has collected all the same is paid:
money that moved outranks what we wished.
"""

import uuid
from datetime import UTC, datetime
from enum import StrEnum


class PaymentKind(StrEnum):
    """What a payment is for."""

    TIER = "tier"
    SUBSCRIPTION = "subscription"
    TOP_UP = "top_up"


class PaymentState(StrEnum):
    """Where a payment stands."""

    DUE = "due"
    AWAITING_APPROVAL = "awaiting_approval"
    SUBMITTING = "submitting"
    RETRY_SCHEDULED = "retry_scheduled"
    NEEDS_PAYMENT_METHOD = "needs_payment_method"
    NEEDS_AUTHENTICATION = "needs_authentication"
    PROCESSING = "processing"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    VOIDED = "voided"
    UNCOLLECTIBLE = "uncollectible"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"


#: What a sweep may hand out: due now, or left open by a crash.
COLLECTABLE = frozenset(
    {
        PaymentState.DUE,
        PaymentState.RETRY_SCHEDULED,
        PaymentState.SUBMITTING,
        PaymentState.UNKNOWN,
        PaymentState.PROCESSING,
    }
)

#: Nobody knows yet whether the money moves. Of anything else, somebody waiting can be told what came of it.
UNDECIDED = frozenset({PaymentState.DUE, PaymentState.SUBMITTING, PaymentState.UNKNOWN, PaymentState.PROCESSING})

#: Not begun, or every attempt so far was declined.
WAITING = frozenset(
    {
        PaymentState.DUE,
        PaymentState.AWAITING_APPROVAL,
        PaymentState.RETRY_SCHEDULED,
        PaymentState.NEEDS_PAYMENT_METHOD,
        PaymentState.NEEDS_AUTHENTICATION,
        PaymentState.UNCOLLECTIBLE,
    }
)

#: A new card puts these right.
WAITS_FOR_CARD = frozenset(
    {
        PaymentState.NEEDS_PAYMENT_METHOD,
        PaymentState.NEEDS_AUTHENTICATION,
        PaymentState.RETRY_SCHEDULED,
        PaymentState.UNCOLLECTIBLE,
    }
)

#: Money has moved, whatever became of it since.
PAID = frozenset(
    {PaymentState.SUCCEEDED, PaymentState.PARTIALLY_REFUNDED, PaymentState.REFUNDED, PaymentState.DISPUTED}
)

#: Nothing more comes of it by itself: paid and not disputed, or owed no longer.
FINAL = frozenset({PaymentState.SUCCEEDED, PaymentState.PARTIALLY_REFUNDED, PaymentState.REFUNDED, PaymentState.VOIDED})

RANKS: dict[PaymentState, int] = {
    PaymentState.SUBMITTING: 1,
    PaymentState.UNKNOWN: 2,
    PaymentState.PROCESSING: 2,
    **dict.fromkeys(sorted(WAITING), 3),
    PaymentState.VOIDED: 4,
    **dict.fromkeys(sorted(PAID), 5),
}


def is_forward(before: tuple[int, PaymentState], after: tuple[int, PaymentState]) -> bool:
    """Whether a payment may move so: (attempts made, state) before and after.

    >>> is_forward((1, PaymentState.SUBMITTING), (1, PaymentState.SUCCEEDED))
    True
    >>> is_forward((2, PaymentState.SUBMITTING), (1, PaymentState.RETRY_SCHEDULED))
    False
    """
    return before[0] <= after[0] and _place(*before) <= _place(*after)


def _place(attempts_made: int, state: PaymentState) -> tuple[int, int, int]:
    """Where a payment stands in that order; what is open has one place before all that is over."""
    return max(RANKS[PaymentState.DUE], RANKS[state]), attempts_made, RANKS[state]


class AttemptState(StrEnum):
    """Where one try to collect a payment stands."""

    SUBMITTING = "submitting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    ABANDONED = "abandoned"


OPEN_ATTEMPT = frozenset({AttemptState.SUBMITTING, AttemptState.PROCESSING})


class RefundState(StrEnum):
    """Where a refund stands; the first two are not final."""

    SUBMITTING = "submitting"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class DisputeStatus(StrEnum):
    """Stripe's words for where a dispute stands."""

    WARNING_NEEDS_RESPONSE = "warning_needs_response"
    WARNING_UNDER_REVIEW = "warning_under_review"
    WARNING_CLOSED = "warning_closed"
    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"
    PREVENTED = "prevented"


#: Disputes that take no money, or no longer.
HARMLESS_DISPUTE = frozenset(
    {
        DisputeStatus.WARNING_NEEDS_RESPONSE,
        DisputeStatus.WARNING_UNDER_REVIEW,
        DisputeStatus.WARNING_CLOSED,
        DisputeStatus.WON,
        DisputeStatus.PREVENTED,
    }
)


#: Disputes of which the money may come back.
OPEN_DISPUTE = frozenset({DisputeStatus.NEEDS_RESPONSE, DisputeStatus.UNDER_REVIEW})


class HoldReason(StrEnum):
    """Why nothing more is collected from a customer for now."""

    HARD_DECLINE = "hard_decline"
    DECLINED_TWICE = "declined_twice"
    DISPUTED = "disputed"
    BY_HAND = "by_hand"
    AUDIT_DIFFERS = "audit_differs"


#: These hold back whatever is not begun yet; the others hold back everything.
ENDS_WITH_A_CARD = frozenset({HoldReason.HARD_DECLINE, HoldReason.DECLINED_TWICE})
FREEZES = frozenset(HoldReason) - ENDS_WITH_A_CARD


class AlertKind(StrEnum):
    """What a person should look at. The words are API."""

    CAP_REACHED = "cap_reached"
    OPEN_TIERS = "open_tiers"
    STRIPE_REFUSES = "stripe_refuses"
    COLLECTING_FAILS = "collecting_fails"
    COLLECTED_TWICE = "collected_twice"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_LOST = "dispute_lost"
    REFUND_FAILED = "refund_failed"
    VOIDED_BUT_PAID = "voided_but_paid"
    WEBHOOK_UNWORKABLE = "webhook_unworkable"
    TOP_UP_CAP = "top_up_cap"
    MONTH_FAILS = "month_fails"
    STATEMENT_FAILS = "statement_fails"
    AUDIT_DIFFERS = "audit_differs"
    QUOTA_THRESHOLD = "quota_threshold"
    BUDGET_THRESHOLD = "budget_threshold"
    CAP_THRESHOLD = "cap_threshold"
    TIER_THRESHOLD = "tier_threshold"
    WEBHOOK_GIVEN_UP = "webhook_given_up"
    LOW_BALANCE = "low_balance"
    CREDITS_EXPIRING = "credits_expiring"
    PAYMENT_FAILED = "payment_failed"
    PAYMENT_GIVEN_UP = "payment_given_up"
    UNPRICED = "unpriced"


def payment_id(
    installation: uuid.UUID,
    tenant_id: str,
    customer_id: str,
    period_start: datetime,
    kind: PaymentKind,
    tier: int,
    generation: int,
    reference: str = "",
) -> uuid.UUID:
    """The id that follows from what a payment is for; the same debt always has the same id.

    The installation is part of it: a rebuilt database must never take another's PaymentIntent for its own.
    NUL separates, because no name that Postgres keeps can hold one.
    """
    begins = period_start.astimezone(UTC).isoformat()
    natural = [tenant_id, customer_id, begins, kind.value, str(tier), str(generation)]
    if reference:
        natural.append(reference)
    return uuid.uuid5(installation, "\0".join(natural))
