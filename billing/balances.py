"""What a wallet has at a moment: how much of it pays for what occurs then, from which sources, until when.

A wallet's balance is what remains of its grants, less its debt. Not all that remains pays for what occurs now: some
of it is for later, some has ended and only waits for usage that comes late. So::

    balance = available - overdraft + reserved + upcoming + ended
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from billing.grants import PRIORITIES, Grant, Source
from billing.money import ZERO


@dataclass(frozen=True, slots=True)
class SourceBalance:
    """What remains, at this moment, of all that came from one source; when the first of it ends, and how much soon."""

    source: Source
    remaining: Decimal
    expires_at: datetime | None
    expiring_soon: Decimal


@dataclass(frozen=True, slots=True)
class Balance:
    """What a wallet has at a moment, in its currency."""

    available: Decimal
    """What pays for what occurs now and the overdraft, less debt, less what is reserved; below zero: owed beyond it."""
    reserved: Decimal
    debt: Decimal
    upcoming: Decimal
    """Of grants that are valid later."""
    ended: Decimal
    """Of grants whose time is over: usage that comes late may still burn it, until it is broken."""
    sources: tuple[SourceBalance, ...]
    """In the order in which they are burned."""
    overdraft: Decimal = ZERO
    """How far below zero the customer may be asked to go."""

    @property
    def own(self) -> Decimal:
        """What is available without the overdraft."""
        return self.available - self.overdraft

    @property
    def balance(self) -> Decimal:
        return self.own + self.reserved + self.upcoming + self.ended

    @property
    def expiring_soon(self) -> Decimal:
        return sum((one.expiring_soon for one in self.sources), ZERO)

    @property
    def expires_at(self) -> datetime | None:
        """When the first of what is available ends."""
        return min((one.expires_at for one in self.sources if one.expires_at is not None), default=None)


def weigh(
    grants: Iterable[Grant],
    sources: Mapping[str, Source],
    debt: Decimal,
    reserved: Decimal,
    now: datetime,
    soon: timedelta,
    overdraft: Decimal = ZERO,
) -> Balance:
    """What a wallet has now, of its open grants and their sources; "soon" is what ends within that time.

    >>> weigh([Grant("g", Decimal(5))], {"g": Source.PROMO}, Decimal(2), ZERO, datetime.max, timedelta()).available
    Decimal('3')
    """
    remaining: dict[Source, Decimal] = {}
    expires: dict[Source, datetime] = {}
    expiring: dict[Source, Decimal] = {}
    upcoming, ended = ZERO, ZERO
    for grant in grants:
        if grant.valid_from is not None and grant.valid_from > now:
            upcoming += grant.remaining
        elif not grant.pays_for(now):
            ended += grant.remaining
        elif grant.remaining:
            source = sources[grant.grant_id]
            remaining[source] = remaining.get(source, ZERO) + grant.remaining
            if grant.expires_at is not None:
                expires[source] = min(grant.expires_at, expires.get(source, grant.expires_at))
                if grant.expires_at - now <= soon:
                    expiring[source] = expiring.get(source, ZERO) + grant.remaining
    by_source = tuple(
        SourceBalance(source, remaining[source], expires.get(source), expiring.get(source, ZERO))
        for source in sorted(remaining, key=lambda one: (PRIORITIES[one], one))
    )
    available = sum(remaining.values(), ZERO) - debt - reserved + overdraft
    return Balance(available, reserved, debt, upcoming, ended, by_source, overdraft)
