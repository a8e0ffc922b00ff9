"""Tiers that have begun fall due: one payment each, with the event that began it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from billing.charging import Charge, Tally
from billing.payments import PaymentKind, payment_id
from billing.tiers import tiers_owed
from db import payments as payment_rows
from db import periods as period_rows
from db.payments import NewPayment
from db.periods import PeriodTotals
from db.session import Connection
from services import catalogue, guards


def fall_due(
    connection: Connection,
    tallies: Sequence[Tally],
    totals: Iterable[PeriodTotals],
    charges: Iterable[Charge],
    now: datetime,
) -> int:
    """One payment for each tier that has begun and has none; the period's row says how many have. How many.

    The caller holds the customers' wallets.
    """
    owed: list[NewPayment] = []
    details: list[dict[str, Any]] = []
    reached = []
    for total in totals:
        tally = tallies[total.number - 1]
        if not tally.plan.has_tiers:
            continue
        tiers = tiers_owed(total.tokens, tally.plan)
        if tiers > total.tiers_reached:
            begun = range(total.tiers_reached + 1, tiers + 1)
            reached.append((tally.tenant_id, tally.customer_id, tally.period.starts_at, tiers))
            owed += [_payment(connection, tally, tier) for tier in begun]
            details += _crossings(tally, total.tokens, begun, charges)
    if not owed:
        return 0
    period_rows.reach(connection, reached)
    why = "usage has begun this tier"
    count = payment_rows.fall_due(connection, owed, now, source="usage", why=why, details=details)
    for tenant_id, customer_id, _, _ in reached:
        guards.watch_open_tiers(connection, tenant_id, customer_id, now)
    return count


def _payment(connection: Connection, tally: Tally, tier: int) -> NewPayment:
    natural = (tally.tenant_id, tally.customer_id, tally.period.starts_at, PaymentKind.TIER, tier, 0)
    return NewPayment(
        tally.tenant_id,
        payment_id(catalogue.installation(connection), *natural),
        tally.customer_id,
        tally.period.starts_at,
        PaymentKind.TIER.value,
        tier,
        0,
        tally.plan.tier_fee_minor,
        tally.plan.payment_currency,
    )


def _crossings(tally: Tally, tokens: int, begun: range, charges: Iterable[Charge]) -> list[dict[str, Any]]:
    """For each tier that has begun, the event whose tokens began it, with the tokens before and after it."""
    crossings: list[dict[str, Any]] = []
    before = tokens - tally.tokens
    for charge in charges:
        if charge.tally is not tally:
            continue
        after = before + charge.rated.tokens
        while len(crossings) < len(begun) and tiers_owed(after, tally.plan) >= begun[len(crossings)]:
            crossings.append({"event_key": charge.event.key, "tokens_before": before, "tokens_after": after})
        before = after
    return crossings
