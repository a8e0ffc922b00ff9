"""What the database and Stripe have, as plain rows. Imports nothing of the project."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

Customer = tuple[str, str]
"""tenant, customer"""
Wallet = tuple[str, str, str]
"""tenant, customer, currency"""


class EventFact(NamedTuple):
    tenant_id: str
    key: str
    customer_id: str
    status: str
    occurred_at: datetime
    period_start: datetime | None
    is_late: bool
    tokens: int
    cost: Decimal
    currency: str | None
    items: list[dict[str, Any]]
    park_reason: str | None
    committed_at: float | None
    context: tuple[str | None, ...] = (None,) * 5
    """of `chaos.emitted.Context`"""
    quota_ids: tuple[int, ...] = ()
    over_quota: bool = False
    is_archived: bool = False


class EntryFact(NamedTuple):
    tenant_id: str
    customer_id: str
    currency: str
    seq: int
    amount: Decimal
    balance_after: Decimal
    kind: str
    event_key: str | None
    idempotency_key: str | None
    grant_id: str | None
    parts: dict[str, Any] | None

    @property
    def wallet(self) -> Wallet:
        return self.tenant_id, self.customer_id, self.currency


class WalletFact(NamedTuple):
    tenant_id: str
    customer_id: str
    currency: str
    balance: Decimal
    debt: Decimal
    reserved: Decimal
    used_total: Decimal
    received_total: Decimal
    last_seq: int

    @property
    def wallet(self) -> Wallet:
        return self.tenant_id, self.customer_id, self.currency


class GrantFact(NamedTuple):
    tenant_id: str
    customer_id: str
    currency: str
    grant_id: str
    amount: Decimal
    remaining: Decimal
    paid_debt: Decimal


class PeriodFact(NamedTuple):
    tenant_id: str
    customer_id: str
    starts_at: datetime
    ends_at: datetime
    tokens: int
    events: int
    tiers_reached: int


class PaymentFact(NamedTuple):
    tenant_id: str
    customer_id: str
    payment_id: str
    period_start: datetime
    kind: str
    tier: int
    generation: int
    amount_minor: int
    currency: str
    state: str


class InputFact(NamedTuple):
    input_hash: bytes
    reason: str
    times_seen: int


class HoldFact(NamedTuple):
    tenant_id: str
    hold_id: str
    customer_id: str
    currency: str
    idempotency_key: str
    amount: Decimal
    captured: Decimal
    state: str
    opened_at: datetime
    expires_at: datetime
    closed_at: datetime | None


class CaptureFact(NamedTuple):
    tenant_id: str
    event_key: str
    customer_id: str
    hold_id: str
    taken: Decimal
    mark: str | None
    at: datetime
    """by the clock of the worker that recorded it"""


class QuotaFact(NamedTuple):
    tenant_id: str
    quota_id: int
    name: str


class CountFact(NamedTuple):
    """A counter, all of its stripes."""

    tenant_id: str
    quota_id: int
    subject: str
    window: date
    used: Decimal


class WarningFact(NamedTuple):
    tenant_id: str
    quota_id: int
    subject: str
    window: date
    limit: Decimal
    percent: int


class AlertFact(NamedTuple):
    """What was said of a threshold, and how often."""

    tenant_id: str
    kind: str
    subject: str
    times: int


class ArchivedFact(NamedTuple):
    """An event in an archive's files, and what its entry moved."""

    tenant_id: str
    key: str
    cost: Decimal
    moved: Decimal | None


class Captured(NamedTuple):
    """What Stripe took for one payment, in how many successful intents."""

    minor: int
    refunded_minor: int
    successes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it, at one moment."""

    events: Sequence[EventFact]
    entries: Sequence[EntryFact]
    wallets: Sequence[WalletFact]
    grants: Sequence[GrantFact]
    periods: Sequence[PeriodFact]
    payments: Sequence[PaymentFact]
    inputs: Sequence[InputFact]
    captured: dict[str, Captured]
    """by payment"""
    holds: Sequence[HoldFact] = ()
    captures: Sequence[CaptureFact] = ()
    quotas: Sequence[QuotaFact] = ()
    counts: Sequence[CountFact] = ()
    warnings: Sequence[WarningFact] = ()
    alerts: Sequence[AlertFact] = ()
    archived: Sequence[ArchivedFact] = ()
