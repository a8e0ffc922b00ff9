"""Payments: money to collect. What one is called, and the states it can be in."""

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


class AttemptState(StrEnum):
    """Where one try to collect a payment stands."""

    SUBMITTING = "submitting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    ABANDONED = "abandoned"


OPEN_ATTEMPT = frozenset({AttemptState.SUBMITTING, AttemptState.PROCESSING})


def payment_id(
    installation: uuid.UUID,
    tenant_id: str,
    customer_id: str,
    period_start: datetime,
    kind: PaymentKind,
    tier: int,
    generation: int,
) -> uuid.UUID:
    """The id that follows from what a payment is for; the same debt always has the same id.

    The installation is part of it: a rebuilt database must never take another's PaymentIntent for its own.
    NUL separates, because no name that Postgres keeps can hold one.
    """
    begins = period_start.astimezone(UTC).isoformat()
    natural = (tenant_id, customer_id, begins, kind.value, str(tier), str(generation))
    return uuid.uuid5(installation, "\0".join(natural))
