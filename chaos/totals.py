"""Everything in a few sums, expected beside actual. Imports nothing of the project."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from chaos.counted import Counted
from chaos.facts import Facts, Wallet
from chaos.held import Holds
from chaos.oracle import EXACT, ZERO, Expected
from chaos.replay import Purse
from chaos.world import GOOD, World


class Total(NamedTuple):
    """One sum."""

    name: str
    expected: Decimal
    actual: Decimal


def totals(
    world: World, expected: Expected, facts: Facts, purses: Mapping[Wallet, Purse], holds: Holds, counted: Counted
) -> list[Total]:
    """Events by status, costs, tokens, tiers, payments, captures, holds, quotas, and what wallets hold."""
    wanted = dict(_expected(world, expected, purses)) | dict(_expected_of_desk(expected, holds, counted))
    found = dict(_found(facts, expected)) | dict(_found_of_desk(facts))
    return [Total(name, wanted.get(name, ZERO), found.get(name, ZERO)) for name in sorted(wanted.keys() | found.keys())]


def _expected(world: World, expected: Expected, purses: Mapping[Wallet, Purse]) -> Iterable[tuple[str, Decimal]]:
    yield from _summed(
        (f"events {fate.status}{f': {fate.reason}' if fate.reason else ''}", 1) for fate in expected.fates.values()
    )
    yield "events charged, parked or lost", Decimal(len(expected.fates) + len(expected.lost))
    yield from _summed((f"inputs parked: {reason}", 1) for reason in expected.inputs.values())
    yield from _summed((f"cost {w[0]} {w[2]}", cost) for w, cost in expected.costs.items())
    yield from _summed((f"tokens {period[0]}", month.tokens) for period, month in expected.months.items())
    cards = {(c.tenant_id, c.customer_id): c.card for c in world.customers}
    yield from _summed((f"tier payments {owed[0]}", 1) for owed in expected.payments)
    yield from _summed((f"owed {owed[0]} BRL, minor", minor) for owed, minor in expected.payments.items())
    good = ((owed, minor) for owed, minor in expected.payments.items() if cards[owed[0], owed[1]] == GOOD)
    yield from _summed(("captured by Stripe, minor", minor) for _, minor in good)
    yield from _summed((f"balances {w[0]} {w[2]}", purse.balance) for w, purse in purses.items())
    yield from _summed((f"debts {w[0]} {w[2]}", purse.debt) for w, purse in purses.items())
    remains = ((w, grant.remaining) for w, purse in purses.items() for grant in purse.grants)
    yield from _summed((f"grants remaining {w[0]} {w[2]}", remaining) for w, remaining in remains)


def _expected_of_desk(expected: Expected, holds: Holds, counted: Counted) -> Iterable[tuple[str, Decimal]]:
    yield from _summed((f"captured of holds {tenant}", taken) for tenant, taken in holds.captured.items())
    yield from _summed((f"reserved {w[0]} {w[2]}", amount) for w, amount in holds.reserved.items())
    yield from _summed((f"used of {c.quota.tenant_id}: {c.quota.name}", used) for c, used in counted.used.items())
    yield "quotas' thresholds told", Decimal(counted.warnings)
    yield "events archived", Decimal(len(expected.old))


def _found_of_desk(facts: Facts) -> Iterable[tuple[str, Decimal]]:
    yield from _summed((f"captured of holds {row.tenant_id}", row.captured) for row in facts.holds)
    yield from _summed((f"reserved {row.tenant_id} {row.currency}", row.reserved) for row in facts.wallets)
    names = {(one.tenant_id, one.quota_id): one.name for one in facts.quotas}
    yield from _summed(
        (f"used of {row.tenant_id}: {names[row.tenant_id, row.quota_id]}", row.used) for row in facts.counts
    )
    yield "quotas' thresholds told", Decimal(len(facts.warnings))
    yield "events archived", Decimal(sum(row.is_archived for row in facts.events))


def _found(facts: Facts, expected: Expected) -> Iterable[tuple[str, Decimal]]:
    yield from _summed(
        (f"events {row.status}{f': {row.park_reason}' if row.park_reason else ''}", 1) for row in facts.events
    )
    yield "events charged, parked or lost", Decimal(len(facts.events))
    # What was on its way to `emit` at a kill may have come through or not.
    certain = (row for row in facts.inputs if row.input_hash not in expected.may_be_inputs)
    yield from _summed((f"inputs parked: {row.reason}", 1) for row in certain)
    charged = (row for row in facts.events if row.currency and row.status != "pending")
    yield from _summed((f"cost {row.tenant_id} {row.currency}", row.cost) for row in charged)
    yield from _summed((f"tokens {row.tenant_id}", row.tokens) for row in facts.periods)
    yield from _summed((f"tier payments {row.tenant_id}", 1) for row in facts.payments)
    yield from _summed((f"owed {row.tenant_id} BRL, minor", row.amount_minor) for row in facts.payments)
    yield from _summed(("captured by Stripe, minor", one.minor) for one in facts.captured.values())
    yield from _summed((f"balances {row.tenant_id} {row.currency}", row.balance) for row in facts.wallets)
    yield from _summed((f"debts {row.tenant_id} {row.currency}", row.debt) for row in facts.wallets)
    yield from _summed((f"grants remaining {row.tenant_id} {row.currency}", row.remaining) for row in facts.grants)


def _summed(amounts: Iterable[tuple[str, Decimal | int]]) -> Iterable[tuple[str, Decimal]]:
    sums: defaultdict[str, Decimal] = defaultdict(lambda: ZERO)
    for name, amount in amounts:
        sums[name] = EXACT.add(sums[name], Decimal(amount))
    return sums.items()
