"""What new events do to wallets, periods and payments, under their customers' locks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from billing.charging import Charge, Standing, debit
from billing.payments import PaymentKind, payment_id
from billing.plans import Plan
from billing.tiers import tiers_owed
from db import payments as payment_rows
from db import periods as period_rows
from db import wallets as wallet_rows
from db.payments import NewPayment
from db.periods import Counted, NewPeriod, PeriodTotals
from db.session import Connection, Stale
from db.wallets import EntryRow, SpentRow
from services import catalogue, ladders

PeriodKey = tuple[str, str, datetime]
"""tenant, customer, start"""


def post(connection: Connection, charges: Sequence[Charge], now: datetime) -> int:
    """Debit wallets, count tokens and let tier payments fall due; how many payments are new.

    Locks the wallets in order, then the period rows; raises `Stale` when a period was closed meanwhile.
    """
    standing = lock_wallets(connection, charges)
    _begin_periods(connection, charges)
    ladders.climb(connection, charges)
    movements = debit(charges, standing)
    counted = _counted(charges)
    with connection.pipeline():
        if movements:
            entries = [
                EntryRow(m.tenant_id, m.wallet_id, m.seq, m.amount, m.balance_after, m.event_key, m.occurred_at)
                for m in movements
            ]
            spent = [
                SpentRow(tenant_id, wallet_id, wallet.last_seq, wallet.spent)
                for (tenant_id, wallet_id), wallet in standing.items()
                if wallet.spent
            ]
            wallet_rows.debit_usage(connection, entries, spent, now)
        totals = period_rows.count(connection, counted)
    if len(totals) != len(counted):
        raise Stale
    return _fall_due(connection, totals, {charge.period_key: charge.plan for charge in charges}, now)


def lock_wallets(connection: Connection, charges: Iterable[Charge]) -> dict[tuple[str, int], Standing]:
    """Lock every wallet of the customers who are charged, in order; how they stand."""
    wanted = sorted({(c.event.tenant_id, wallet_id) for c in charges for wallet_id in c.customer_wallets})
    if not wanted:
        return {}
    locked = wallet_rows.lock(connection, wanted)
    return {(row.tenant_id, row.wallet_id): Standing(row.balance, row.last_seq) for row in locked}


def _begin_periods(connection: Connection, charges: Iterable[Charge]) -> None:
    new = {
        NewPeriod(c.event.tenant_id, c.event.customer_id, p.starts_at, p.ends_at, p.plan_id, p.plan_version)
        for c in charges
        if (p := c.placement.period).is_new
    }
    if new:
        period_rows.begin(connection, sorted(new))


def _counted(charges: Iterable[Charge]) -> list[Counted]:
    tokens: Counter[PeriodKey] = Counter()
    events: Counter[PeriodKey] = Counter()
    for charge in charges:
        key = charge.period_key
        tokens[key] += charge.rated.tokens
        events[key] += 1
    return [Counted(*key, tokens[key], number) for key, number in events.items()]


def _fall_due(
    connection: Connection, totals: Iterable[PeriodTotals], plans: dict[PeriodKey, Plan], now: datetime
) -> int:
    """One payment for each tier that has begun and has none; the row says how many have."""
    owed: list[NewPayment] = []
    reached = []
    for total in totals:
        plan = plans[total[:3]]
        tiers = tiers_owed(total.tokens, plan)
        if tiers > total.tiers_reached:
            reached.append((*total[:3], tiers))
            owed += [_tier_payment(connection, total, plan, tier) for tier in range(total.tiers_reached + 1, tiers + 1)]
    if not owed:
        return 0
    period_rows.reach(connection, reached)
    return payment_rows.fall_due(connection, owed, now)


def _tier_payment(connection: Connection, period: PeriodTotals, plan: Plan, tier: int) -> NewPayment:
    natural = (period.tenant_id, period.customer_id, period.starts_at, PaymentKind.TIER, tier, 0)
    return NewPayment(
        period.tenant_id,
        payment_id(catalogue.installation(connection), *natural),
        period.customer_id,
        period.starts_at,
        PaymentKind.TIER.value,
        tier,
        0,
        plan.tier_fee_minor,
        plan.payment_currency,
    )
