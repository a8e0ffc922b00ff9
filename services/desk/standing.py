"""A customer as the wallet desk sees one: wallets, plan, and the period around now, read at once and without a lock."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from billing.affordability import Cover, FeeStops, is_fee_missing
from billing.errors import CustomerNotFound, Rejected, TenantNotFound, WalletNotFound
from billing.payments import PaymentState
from billing.periods import Period, Terms, begin
from billing.plans import Plan
from billing.subscriptions import Subscription
from billing.tenant_settings import low_below
from config.settings import settings
from db import customers as customer_rows
from db import desk as rows
from db.desk import CustomerStanding, WalletStanding
from db.session import Connection
from services.books import accounts, catalogue

COST_DIGITS_MAX = 38
COST_WHOLE_MAX = 26


@dataclass(frozen=True, slots=True)
class Standing:
    """A customer at a moment. The period holds the moment, whether it has a row or not."""

    tenant_id: str
    customer_id: str
    row: CustomerStanding
    wallets: tuple[WalletStanding, ...]
    period: Period
    plan: Plan

    @property
    def terms(self) -> Terms:
        return accounts.terms_of(self.row)

    @property
    def subscription(self) -> Subscription:
        return Subscription(self.row.billed_from, self.row.paused_at, self.row.ended_at)

    @property
    def tokens(self) -> int:
        """Used in the period so far."""
        return 0 if self.period.is_new else self.row.period_tokens

    @property
    def currencies(self) -> tuple[str, ...]:
        return tuple(wallet.currency for wallet in self.wallets)

    @property
    def affordability_buffer(self) -> Decimal:
        own = self.row.affordability_buffer
        return settings().affordability_buffer if own is None else own

    def free_credits(self, plan: Plan) -> Decimal:
        """How many credits come free with a period on this plan."""
        if plan.free_credits is not None:
            return plan.free_credits
        own = self.row.free_tier_credits
        return settings().free_tier_credits if own is None else own

    def low_below(self, wallet: WalletStanding) -> Decimal | None:
        """Below how much a wallet is low: its own threshold, else the tenant's, else the installation's."""
        if wallet.low_below is not None:
            return wallet.low_below
        own = self.row.low_balance
        return settings().low_below(wallet.currency) if own is None else low_below(own, wallet.currency)

    def wallet(self, currency: str | None) -> WalletStanding:
        """The wallet in a currency, or the only one. Raises `WalletNotFound`, `Rejected` (there are several)."""
        found = [one for one in self.wallets if currency in {None, one.currency}]
        if not found:
            has = ", ".join(self.currencies) or "none"
            raise WalletNotFound(
                f"customer {self.customer_id} has no wallet in {currency or 'any currency'}; there are: {has}"
            )
        if len(found) > 1:
            raise Rejected(
                f"customer {self.customer_id} has wallets in {', '.join(self.currencies)}; say in which currency"
            )
        return found[0]

    def cover(self) -> Cover:
        """What the period covers, and what stands against it."""
        row, plan, chosen = self.row, self.plan, settings()
        # Of a period that has no row, or is not opened yet, nobody has decided what it owes.
        is_opened = row.is_opened and not self.period.is_new
        state = PaymentState(row.fee_state) if row.fee_state and not self.period.is_new else None
        is_subscribed = self.subscription.covers(self.period)
        return Cover(
            plan,
            self.tokens,
            is_subscribed,
            is_subscribed and is_fee_missing(FeeStops(chosen.unpaid_fee_stops), plan, state, is_opened=is_opened),
            row.open_tiers,
            self._collectable(),
            row.is_held,
        )

    def _collectable(self) -> int | None:
        """How many further tiers the customer's caps let through today; what is due already comes before them."""
        row, plan, chosen = self.row, self.plan, settings()
        if not plan.has_tiers:
            return None
        payments = (plan.day_payments_max or chosen.customer_day_payments_max) - row.day_payments
        minor = (plan.day_minor_max or chosen.customer_day_minor_max) - row.day_minor
        return max(0, min(payments - row.waiting_payments, (minor - row.waiting_minor) // plan.tier_fee_minor))


def read(
    connection: Connection,
    tenant_id: str,
    customer_id: str,
    now: datetime,
    *,
    with_sources: bool = True,
    with_past: bool = False,
    purpose: Mapping[str, str | None] | None = None,
    used_at: datetime | None = None,
    period: Period | None = None,
) -> Standing:
    """A customer at a moment: one statement, and another for a plan that this process sees for the first time.

    With a `purpose`, as `db.desk.standing` has it, also the hard quotas that stand against it. Of a tenant that has no
    quotas they are not asked for: as long as the book of quotas, which each answer tells the revision of, is the same.

    What was used at another moment, quotas count in the windows of that; and it counts in the `period` that is given,
    which need not be the one around now.

    Raises `TenantNotFound`, `CustomerNotFound`.
    """
    none_at = None if purpose is None else catalogue.without_quotas(tenant_id)
    ask = partial(
        rows.standing,
        connection,
        tenant_id,
        customer_id,
        now,
        with_sources=with_sources,
        with_past=with_past,
        used_at=used_at,
        period_at=period and period.starts_at,
    )
    found = ask(purpose=None if none_at is not None else purpose)
    if purpose is not None and found is not None and none_at != (revision := found[0].quota_revision):
        catalogue.look_for_quotas(connection, revision)
        found = found if none_at is None else ask(purpose=purpose)
    if found is None:
        if not customer_rows.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        raise CustomerNotFound(tenant_id=tenant_id, customer_id=customer_id)
    row, wallets = found
    period = period or _period_around(row, now)
    plan = catalogue.plans(connection, [(tenant_id, *period.plan_key)])[tenant_id, *period.plan_key]
    return Standing(tenant_id, customer_id, row, tuple(wallets), period, plan)


def _period_around(row: CustomerStanding, now: datetime) -> Period:
    """The period that holds the moment: its row, or the one that would follow the last."""
    known = []
    if row.period_starts_at and row.period_ends_at and row.period_plan_id and row.period_plan_version:
        span = (row.period_starts_at, row.period_ends_at)
        known.append(Period(*span, row.period_plan_id, row.period_plan_version, time_zone=row.time_zone))
    if known and known[0].holds(now):
        return known[0]
    return begin(now, known, accounts.terms_of(row))


def check_amount(cost: Decimal) -> None:
    """Raises `Rejected` for what is no cost."""
    is_long = len(cost.as_tuple().digits) > COST_DIGITS_MAX or (cost and cost.adjusted() >= COST_WHOLE_MAX)
    if not cost.is_finite() or cost < 0 or is_long:
        raise Rejected(
            f"a cost is a number of at least 0, with {COST_DIGITS_MAX} digits at most, {COST_WHOLE_MAX} of them whole",
            cost=str(cost),
        )
