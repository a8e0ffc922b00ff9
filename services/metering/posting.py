"""What new events do to wallets, periods, payments and quotas, under their customers' locks."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from billing.charging import Charge, Tally, count, debit, debits_of
from billing.grants import Standing
from config.settings import settings
from db import periods as period_rows
from db import wallets as wallet_rows
from db.grants import opened
from db.periods import Counts
from db.session import Connection, Stale
from db.wallets import UsageEntries
from services.books import accounts, periods
from services.metering import capturing, counting, ladders, tier_warnings
from services.metering.tiers import fall_due


class Posted(NamedTuple):
    """How many payments fell due, and when the wallets were locked (`time.perf_counter`, for the log)."""

    payments_due: int
    locked_at: float | None


NOTHING_POSTED = Posted(0, None)


def post(connection: Connection, charges: Sequence[Charge], now: datetime) -> Posted:
    """Debit wallets, take from holds what was kept back for it, count tokens and let tier payments fall due.

    Locks the wallets in order, then the holds that events name, then the period rows, and counters of quotas last;
    raises `Stale` when a period was closed meanwhile. What can be made ready before the locks, is: a busy customer's
    events wait for one another here; and customers are taken in their order, in which indexes have them side by side.
    """
    charges = sorted(charges, key=_customer_of)
    tallies = count(charges)
    counts = Counts.of(tallies)
    debits = debits_of(charges)
    entries = UsageEntries.of(debits) if debits else None
    holding = capturing.naming(charges)
    in_quotas = counting.additions_of(charges)

    standing = lock_wallets(connection, charges)
    locked_at = time.perf_counter()
    holds = capturing.lock(connection, holding) if holding else {}
    _begin_periods(connection, tallies)
    if ladders.climb(connection, charges):
        debits = debits_of(charges)
        entries = UsageEntries.of(debits) if debits else None
        in_quotas = counting.additions_of(charges)

    captures = capturing.take(holds, holding, now) if holding else None
    places = debit(debits, standing, captures)
    with connection.pipeline():
        if entries:
            wallet_rows.debit_usage(connection, entries, places, standing, now)
        if captures:
            capturing.write(connection, holds, holding, captures, now)
        totals = period_rows.count(connection, counts)
    if len(totals) != counts.number:
        accounts.forget((tally.tenant_id, tally.customer_id) for tally in tallies)
        raise Stale
    payments_due = fall_due(connection, tallies, totals, charges, now)
    if settings().tier_warnings:
        tier_warnings.say(connection, tallies, totals, now)
    if in_quotas:
        counting.count(connection, in_quotas, now)
    return Posted(payments_due, locked_at)


def _customer_of(charge: Charge) -> tuple[str, str]:
    return charge.event.tenant_id, charge.event.customer_id


def lock_wallets(connection: Connection, charges: Sequence[Charge]) -> dict[tuple[str, int], Standing]:
    """Lock every wallet of the customers who are charged, in order; how they stand.

    Those that may be debited come with their grants: by a price that climbs, also what was rated at nothing.
    Raises `Stale` when what was read of a customer before the lock no longer holds.
    """
    read = {(c.event.tenant_id, wallet_id): revision for c in charges for wallet_id, revision in c.customer_wallets}
    if not read:
        return {}
    keys = sorted(read)
    debited = {(c.event.tenant_id, c.wallet_id) for c in charges}
    locked = wallet_rows.lock(connection, keys)
    if locked is None or any(one[2] != read[key] for key, one in zip(keys, locked, strict=True)):
        accounts.forget((c.event.tenant_id, c.event.customer_id) for c in charges)
        raise Stale
    return {
        key: Standing(balance, last_seq, debt, opened(kept) if key in debited else [])
        for key, (balance, last_seq, _, debt, kept) in zip(keys, locked, strict=True)
    }


def _begin_periods(connection: Connection, tallies: Iterable[Tally]) -> None:
    periods.begin(connection, [((t.tenant_id, t.customer_id), t.period) for t in tallies if t.period.is_new])
