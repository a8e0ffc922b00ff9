"""From rated events to movements: what each wallet and each period goes through. Pure arithmetic."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.money import ZERO
from billing.periods import Placement
from billing.plans import Plan
from billing.rating import Rated
from centavo import UsageEvent


@dataclass(slots=True)
class Charge:
    """An event with what it costs, the wallet that pays (None: nothing to pay), and the period it counts in.

    `customer_wallets` are all of the customer's: together they are the customer's lock.
    """

    event: UsageEvent
    rated: Rated
    placement: Placement
    plan: Plan
    wallet_id: int | None
    customer_wallets: tuple[int, ...]

    @property
    def period_key(self) -> tuple[str, str, datetime]:
        return self.event.tenant_id, self.event.customer_id, self.placement.period.starts_at


@dataclass(frozen=True, slots=True)
class Movement:
    """One debit: its place in the wallet's ledger and the balance after it."""

    tenant_id: str
    wallet_id: int
    seq: int
    amount: Decimal
    balance_after: Decimal
    event_key: str
    occurred_at: datetime


@dataclass(slots=True)
class Standing:
    """How a wallet stands while the debits of a transaction go through it."""

    balance: Decimal
    last_seq: int
    spent: Decimal = ZERO


def debit(charges: Iterable[Charge], wallets: dict[tuple[str, int], Standing]) -> list[Movement]:
    """One movement for each charge that costs something, in the order given; `wallets` stand as after them.

    Usage has already happened: it is debited into debt if need be, so that the sum is the same in whatever
    order events arrive.
    """
    movements = []
    for charge in charges:
        cost = charge.rated.cost
        if charge.wallet_id is None or not cost:
            continue
        event = charge.event
        wallet = wallets[event.tenant_id, charge.wallet_id]
        wallet.balance -= cost
        wallet.spent += cost
        wallet.last_seq += 1
        movements.append(
            Movement(
                event.tenant_id,
                charge.wallet_id,
                wallet.last_seq,
                -cost,
                wallet.balance,
                event.key,
                event.occurred_at,
            )
        )
    return movements
