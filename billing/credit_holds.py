"""Holds: value of a wallet that is kept back for usage under way, and what becomes of it.

A hold reserves its amount, less what was captured of it, as long as it is open::

    open ─┬─▶ used_up    captures have taken all of it
          ├─▶ released   nobody needs the rest
          └─▶ expired    its time was over

A capture is the recording of usage that names the hold: what it costs is debited as ever, and so much less is
reserved. The hold stays open for the next one. What the hold can't give is debited all the same, since it was used,
and the capture is marked.
"""

from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec

from billing.money import COST_PLACES, ZERO

_STEP = Decimal(1).scaleb(-COST_PLACES)


class HoldState(StrEnum):
    """Where a hold stands. The words are API."""

    OPEN = "open"
    USED_UP = "used_up"
    RELEASED = "released"
    EXPIRED = "expired"


class CaptureMark(StrEnum):
    """Why a capture took less from its hold than the usage cost. The words are API."""

    BEYOND = "beyond"
    """The hold had less left, or nothing."""
    RELEASED = "released"
    EXPIRED = "expired"
    OTHER_WALLET = "other_wallet"
    """The hold is on another of the customer's wallets."""
    UNKNOWN = "unknown"
    """The customer has no such hold."""


class Hold(msgspec.Struct):
    """A hold while captures go through it."""

    wallet_id: int
    amount: Decimal
    captured: Decimal
    state: HoldState
    opened_at: datetime
    expires_at: datetime

    @property
    def reserved(self) -> Decimal:
        """What it keeps back."""
        return self.amount - self.captured if self.state is HoldState.OPEN else ZERO

    def state_at(self, now: datetime) -> HoldState:
        """Its state, whether or not somebody has noticed that its time is over."""
        return HoldState.EXPIRED if self.state is HoldState.OPEN and self.expires_at <= now else self.state


class Capture(NamedTuple):
    """What usage took from the hold that it names, since when that was kept back, and why it was not all."""

    taken: Decimal
    mark: CaptureMark | None
    held_since: datetime | None = None


_MARKS = {
    HoldState.USED_UP: CaptureMark.BEYOND,
    HoldState.RELEASED: CaptureMark.RELEASED,
    HoldState.EXPIRED: CaptureMark.EXPIRED,
}


def capture(hold: Hold | None, wallet_id: int | None, cost: Decimal, now: datetime) -> Capture:
    """Take from a hold what usage costs in a wallet (None: nothing), as far as it goes. The hold stands as after it.

    >>> from datetime import timedelta
    >>> now = datetime(2026, 11, 20)
    >>> hold = Hold(1, Decimal(5), Decimal(0), HoldState.OPEN, now, now + timedelta(minutes=1))
    >>> capture(hold, 1, Decimal(3), now).taken, hold.reserved
    (Decimal('3'), Decimal('2'))
    >>> capture(hold, 1, Decimal(3), now)[:2], hold.state.value
    ((Decimal('2'), <CaptureMark.BEYOND: 'beyond'>), 'used_up')
    """
    if hold is None:
        return Capture(ZERO, CaptureMark.UNKNOWN)
    if (mark := _MARKS.get(hold.state_at(now))) is not None:
        return Capture(ZERO, mark)
    if wallet_id is not None and wallet_id != hold.wallet_id:
        return Capture(ZERO, CaptureMark.OTHER_WALLET)
    taken = min(cost, hold.reserved)
    hold.captured += taken
    if hold.captured == hold.amount:
        hold.state = HoldState.USED_UP
    return Capture(taken, None if taken == cost else CaptureMark.BEYOND, hold.opened_at)


def to_reserve(required: Decimal) -> Decimal:
    """What is reserved where so much is required: it has the places of a wallet, and is never less.

    >>> to_reserve(Decimal("0.0000000000011"))
    Decimal('2E-12')
    """
    return required.quantize(_STEP, ROUND_CEILING)
