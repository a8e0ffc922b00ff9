"""A customer's period at a glance, and what the audit found of a tenant. Takes no lock."""

from dataclasses import dataclass
from datetime import datetime

from billing.errors import Rejected, TenantNotFound
from billing.payments import PaymentKind
from billing.tiers import tiers_owed
from db import customers as customer_rows
from db import summaries as rows
from db.session import Connection, in_transaction
from db.summaries import CustomerSum, PaymentSum, StandingDifference, Turn
from services.cursors import after, cursor
from services.desk import standing
from services.desk.history import PAGE, Page, check_rows

DIFFERENCES_MAX = 1000


@dataclass(frozen=True, slots=True)
class PeriodSummary:
    """What a customer has used in the period around now, and what payments it has come to."""

    customer_id: str
    plan_id: str
    plan_version: int
    period_starts_at: datetime
    period_ends_at: datetime
    tokens: int
    included_tokens: int
    tier_size: int | None
    tier: int
    """How many tiers have begun; 0: all is within the fee."""
    tier_from: int
    """Above how many tokens the tier of now begins."""
    tier_to: int | None
    """Up to how many it goes; None on plans without tiers."""
    payment_currency: str
    payments: tuple[PaymentSum, ...]

    @property
    def due_minor(self) -> int:
        """What of fees and tiers is still to be collected, in minor units of the payment currency."""
        return sum(
            one.due_minor
            for one in self.payments
            if one.kind != PaymentKind.TOP_UP and one.currency == self.payment_currency
        )

    def of(self, kind: PaymentKind) -> tuple[int, int]:
        """How many payments of a kind, and what they come to in minor units."""
        mine = [one for one in self.payments if one.kind == kind and one.currency == self.payment_currency]
        return sum(one.payments for one in mine), sum(one.amount_minor for one in mine)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the audit found of a tenant that still stands, and when it looked."""

    turn: Turn
    differences: tuple[StandingDifference, ...]

    @property
    def is_consistent(self) -> bool:
        return not self.differences


def summary(tenant_id: str, customer_id: str, now: datetime) -> PeriodSummary:
    """A customer's period around now. Raises `TenantNotFound`, `CustomerNotFound`."""

    def work(connection: Connection) -> PeriodSummary:
        found = standing.read(connection, tenant_id, customer_id, now, with_sources=False)
        plan, period, tokens = found.plan, found.period, found.tokens
        tier = tiers_owed(tokens, plan) if plan.tier_size is not None else 0
        size = plan.tier_size or 0
        return PeriodSummary(
            customer_id,
            plan.plan_id,
            plan.version,
            period.starts_at,
            period.ends_at,
            tokens,
            plan.included_tokens,
            plan.tier_size,
            tier,
            plan.included_tokens + (tier - 1) * size if tier else 0,
            plan.included_tokens + tier * size if plan.tier_size is not None else None,
            plan.payment_currency,
            tuple(rows.payments_of_period(connection, tenant_id, customer_id, period.starts_at)),
        )

    return in_transaction(work)


def customers(tenant_id: str, now: datetime, *, limit: int = PAGE, at: str | None = None) -> Page[CustomerSum]:
    """A page of a tenant's customers by name, each with tokens, tiers and what is due in the period around now.

    Raises `TenantNotFound`, `CursorMalformed`, `Rejected` (no such page).
    """
    check_rows(limit)
    question = ("customers", tenant_id)
    place = after(at, question, (str,))[0] if at is not None else None

    def work(connection: Connection) -> list[CustomerSum]:
        if not customer_rows.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        return rows.customers(connection, tenant_id, now, limit + 1, place)

    found = in_transaction(work)
    more = cursor(question, (found[limit - 1].customer_id,)) if len(found) > limit else None
    return Page(tuple(found[:limit]), more)


def reconciliation(tenant_id: str, limit: int = DIFFERENCES_MAX) -> Reconciliation:
    """What the audit found of a tenant. Raises `TenantNotFound`, `Rejected` (no such number)."""
    if not 1 <= limit <= DIFFERENCES_MAX:
        raise Rejected(f"1 to {DIFFERENCES_MAX} differences are told, not {limit}")

    def work(connection: Connection) -> Reconciliation:
        if not customer_rows.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        return Reconciliation(rows.audit_turn(connection), tuple(rows.differences(connection, tenant_id, limit)))

    return in_transaction(work)
