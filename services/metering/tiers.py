"""Tiers that have begun fall due: one payment each, with the event that began it.

A tier may begin again, after usage was voided (`services.collecting.unowed`). If its payment was let go, the next
generation falls due; if it was kept, it pays; if a person had waived it, it stays waived.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from billing.charging import Charge, Tally
from billing.payments import PaymentKind, payment_id
from billing.tiers import tiers_owed
from db import owed as owed_rows
from db import periods as period_rows
from db import tiers as tier_rows
from db.owed import NewPayment
from db.periods import PeriodTotals
from db.session import Connection
from services.books import catalogue
from services.collecting import guards

BEGUN = "usage has begun this tier"
BEGUN_AGAIN = "usage has begun this tier again; it was owed no longer for a while"


class _Begun(NamedTuple):
    """Tiers that begin in one period, and its tokens by now."""

    tally: Tally
    tiers: range
    tokens: int


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
    begun = [
        _Begun(tally, range(total.tiers_reached + 1, tiers + 1), total.tokens)
        for total in totals
        if (tally := tallies[total.number - 1]).plan.has_tiers
        and (tiers := tiers_owed(total.tokens, tally.plan)) > total.tiers_reached
    ]
    if not begun:
        return 0
    period_rows.reach(connection, [(*_period_of(one.tally), one.tiers[-1]) for one in begun])
    count = _owe(connection, begun, charges, now)
    for one in begun:
        guards.watch_open_tiers(connection, one.tally.tenant_id, one.tally.customer_id, now)
    return count


def _owe(connection: Connection, begun: Sequence[_Begun], charges: Iterable[Charge], now: datetime) -> int:
    before = tier_rows.latest_above(connection, [(*_period_of(one.tally), one.tiers[0] - 1) for one in begun])
    owed: dict[str, list[tuple[NewPayment, dict[str, Any]]]] = {}
    for one in begun:
        for tier, crossing in zip(one.tiers, _crossings(one.tally, one.tokens, one.tiers, charges), strict=True):
            latest = before.get((*_period_of(one.tally), tier))
            if latest is None:
                owed.setdefault(BEGUN, []).append((_payment(connection, one.tally, tier, 0), crossing))
            elif latest.is_unowed:
                again = _payment(connection, one.tally, tier, latest.generation + 1)
                owed.setdefault(BEGUN_AGAIN, []).append((again, crossing))
    return sum(
        owed_rows.fall_due(
            connection,
            [payment for payment, _ in payments],
            now,
            source="usage",
            why=why,
            details=[crossing for _, crossing in payments],
        )
        for why, payments in owed.items()
    )


def _period_of(tally: Tally) -> tuple[str, str, datetime]:
    return tally.tenant_id, tally.customer_id, tally.period.starts_at


def _payment(connection: Connection, tally: Tally, tier: int, generation: int) -> NewPayment:
    natural = (*_period_of(tally), PaymentKind.TIER, tier, generation)
    return NewPayment(
        tally.tenant_id,
        payment_id(catalogue.installation(connection), *natural),
        tally.customer_id,
        tally.period.starts_at,
        PaymentKind.TIER.value,
        tier,
        generation,
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
