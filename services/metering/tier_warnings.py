"""Saying that a period's tokens come to the end of what is covered: at 80 and 100 percent of each tier, once each."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from zoneinfo import ZoneInfo

from billing.charging import Tally
from billing.money import in_minor_units
from billing.payments import AlertKind
from billing.quotas import Per, window_of
from billing.tiers import Nearing, nearing
from db import quotas as rows
from db.alerts import raise_alert
from db.periods import PeriodTotals
from db.quotas import Warned
from db.session import Connection


def say(connection: Connection, tallies: Sequence[Tally], totals: Iterable[PeriodTotals], now: datetime) -> None:
    """Tell of each threshold that these tallies have passed. The caller holds the customers' wallets."""
    for total in sorted(totals):
        tally = tallies[total.number - 1]
        for one in nearing(total.tokens - tally.tokens, total.tokens, tally.plan):
            _say(connection, tally, one, total.tokens, now)


def _say(connection: Connection, tally: Tally, one: Nearing, tokens: int, now: datetime) -> None:
    plan, period = tally.plan, tally.period
    window = window_of(period.starts_at, Per.DAY, period.time_zone)
    begun = period.starts_at.astimezone(ZoneInfo(period.time_zone)).replace(tzinfo=None)
    since, subject = window.isoformat(), tally.customer_id
    if begun.time() != time():
        # The day does not tell it: a change of plan begins another period on the same.
        since, subject = f"{begun}", f"{tally.customer_id} {period.starts_at.astimezone(UTC).isoformat()}"
    limit = Decimal(one.covered)
    if not rows.warn(connection, Warned(tally.tenant_id, "tier", one.tier, subject, window, limit, one.percent), now):
        return
    what = f"tier {one.tier}" if one.tier else "the fee"
    fee = in_minor_units(plan.tier_fee_minor, plan.payment_currency)
    detail = (
        f"customer {tally.customer_id} has used {one.percent} % of what {what} covers: {tokens:,} tokens of "
        f"{one.covered:,} in the period from {since} on; tier {one.tier + 1} costs {fee}"
    )
    about = f"{tally.customer_id} {since} tier {one.tier} {one.percent}%"
    kind = AlertKind.TIER_THRESHOLD
    raise_alert(connection, tally.tenant_id, kind, about, detail, now, customer_id=tally.customer_id)
