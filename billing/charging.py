"""From rated events to movements: what each wallet and each period goes through. Pure arithmetic."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from billing.credit_holds import Capture
from billing.events import Event
from billing.grants import Change, Standing, burn, burn_kept
from billing.periods import Period
from billing.plans import Plan
from billing.quotas import Quota
from billing.rating import Rated

Captures = Mapping[tuple[str, str], Capture]
"""(tenant, event key): what the event took from its hold"""


class Tally(msgspec.Struct):
    """What a transaction adds to one period of one customer."""

    tenant_id: str
    customer_id: str
    period: Period
    plan: Plan
    tokens: int = 0
    events: int = 0


class Charge(msgspec.Struct):
    """An event with what it costs, the wallet that pays (None: nothing to pay), and the tally it counts in.

    `customer_wallets` are all of the customer's (id, revision of the account that was read with it): together
    they are the customer's lock. `quotas` are those it counts in, each with the subject of its counter.
    """

    event: Event
    rated: Rated
    tally: Tally
    is_late: bool
    wallet_id: int | None
    customer_wallets: tuple[tuple[int, int], ...]
    quotas: tuple[tuple[Quota, str], ...] = ()


class Debit(msgspec.Struct):
    """What one charge takes from one wallet."""

    tenant_id: str
    wallet_id: int
    cost: Decimal
    event_key: str
    occurred_at: datetime


class Place(NamedTuple):
    """Where a debit stands in its wallet's ledger, and what it took from."""

    seq: int
    balance_after: Decimal
    change: Change


def count(charges: Iterable[Charge]) -> list[Tally]:
    """Count each charge in its tally; the tallies, each once, in the order of their first charge."""
    tallies: dict[int, Tally] = {}
    for charge in charges:
        tally = charge.tally
        if not tally.events:
            tallies[id(tally)] = tally
        tally.events += 1
        tally.tokens += charge.rated.tokens
    return list(tallies.values())


def debits_of(charges: Iterable[Charge]) -> list[Debit]:
    """The debits of those charges that cost something, in their order."""
    return [
        Debit(c.event.tenant_id, c.wallet_id, c.rated.cost, c.event.key, c.event.occurred_at)
        for c in charges
        if c.wallet_id is not None and c.rated.cost
    ]


def debit(
    debits: Iterable[Debit], wallets: dict[tuple[str, int], Standing], captures: Captures | None = None
) -> list[Place]:
    """Take each debit from its wallet, in the order given: grants first, then into debt; its place there.

    Usage has already happened: it is debited into debt if need be, so that the sum is the same in whatever
    order events arrive. `wallets` stand as after it. What was kept back for it, `captures` say.
    """
    places = []
    for one in debits:
        wallet = wallets[one.tenant_id, one.wallet_id]
        captured = captures.get((one.tenant_id, one.event_key)) if captures else None
        if captured is None or captured.held_since is None:
            change = burn(wallet, one.cost, one.occurred_at)
        else:
            change = burn_kept(wallet, one.cost, one.occurred_at, captured.taken, captured.held_since)
        wallet.balance -= one.cost
        wallet.spent += one.cost
        wallet.last_seq += 1
        places.append(Place(wallet.last_seq, wallet.balance, change))
    return places
