"""Grants: value that was given, and how usage burns it.

A wallet's balance is what remains of its grants, less its debt. Each movement says what it did to either::

    usage        burns grants that were valid when it occurred, in their order; what they don't cover is debt
    capture      is usage for which value was kept back: grants that have ended since still pay for that much
    arriving     pays debt first, so far as the grant is valid for what it came from; the rest remains of the grant
    breakage     takes what remains of a grant whose time is over
    taking back  takes from one grant what it still has; the rest is debt
    giving back  undoes a burn: debt first, then the same grants, the one burned last before the others

In the order in which grants are burned, priority comes first, then the earliest end, then age.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from billing.errors import BrokenInvariant
from billing.money import ZERO, written

#: The name of debt among what a movement changed.
DEBT = "debt"


class Source(StrEnum):
    """Where a grant came from. The words are API."""

    FREE = "free"
    PROMO = "promo"
    SUBSCRIPTION = "subscription"
    REFUND = "refund"
    ADJUSTMENT = "adjustment"
    PURCHASE = "purchase"


#: What was given is burned before what was paid for.
PRIORITIES: dict[Source, int] = {
    Source.FREE: 10,
    Source.PROMO: 20,
    Source.SUBSCRIPTION: 30,
    Source.REFUND: 40,
    Source.ADJUSTMENT: 40,
    Source.PURCHASE: 50,
}


class Grant(msgspec.Struct, array_like=True):
    """A grant as it stands while movements go through it; half-open validity, None where there is no bound.

    It is kept as an array of its fields up to `number`.
    """

    grant_id: str
    remaining: Decimal
    valid_from: datetime | None = None
    expires_at: datetime | None = None
    priority: int = PRIORITIES[Source.PROMO]
    number: int = 0
    """Its place among the wallet's grants: the older has the smaller one."""
    paid_debt: Decimal = ZERO
    """How much of it went to debt when it arrived; movements that are undone give it back."""
    is_changed: bool = False

    def pays_for(self, occurred_at: datetime) -> bool:
        """Whether it may be burned by what occurred then."""
        return (self.valid_from is None or self.valid_from <= occurred_at) and (
            self.expires_at is None or occurred_at < self.expires_at
        )

    def has_ended(self, at: datetime) -> bool:
        """Whether its time was over by then."""
        return self.expires_at is not None and self.expires_at <= at


def in_burn_order(grants: Iterable[Grant]) -> list[Grant]:
    """By priority, then the earliest end, then age."""
    return sorted(grants, key=_burn_order)


def _burn_order(grant: Grant) -> tuple[Any, ...]:
    return grant.priority, grant.expires_at is None, grant.expires_at, grant.number


class Change(msgspec.Struct, frozen=True):
    """What one movement changed: all of it one grant (or, without any, debt), or several, as `parts` say.

    `parts` maps grant ids and `debt` to signed amounts; grants and debt, which counts against them, come to the
    movement's amount.
    """

    grant_id: str | None = None
    parts: dict[str, Decimal] | None = None

    def of(self, amount: Decimal) -> dict[str, Decimal]:
        """The parts of a movement of this amount, whole or split.

        >>> Change("g").of(Decimal(-3)), Change().of(Decimal(-3))
        ({'g': Decimal('-3')}, {'debt': Decimal('3')})
        """
        if self.parts is not None:
            return self.parts
        return {DEBT: -amount} if self.grant_id is None else {self.grant_id: amount}


ALL_DEBT = Change()


class Standing(msgspec.Struct):
    """How a wallet stands while movements go through it; its `grants` are in the order in which they are burned."""

    balance: Decimal
    last_seq: int
    debt: Decimal = ZERO
    grants: list[Grant] = []
    reserved: Decimal = ZERO
    spent: Decimal = ZERO
    """What usage took in this transaction, less what was given back of it."""
    received: Decimal = ZERO
    """Everything else that came in, less what went out."""
    is_changed: bool = False


def burn(wallet: Standing, cost: Decimal, occurred_at: datetime) -> Change:
    """Take the cost of what occurred then; what no grant covers is debt. Grants never go below zero."""
    wallet.is_changed = True
    for grant in wallet.grants:
        if grant.remaining >= cost and grant.pays_for(occurred_at):
            grant.remaining -= cost
            grant.is_changed = True
            return Change(grant.grant_id)
        if grant.remaining and grant.pays_for(occurred_at):
            return _burn_several(wallet, cost, occurred_at)
    wallet.debt += cost
    return ALL_DEBT


def _burn_several(wallet: Standing, cost: Decimal, occurred_at: datetime) -> Change:
    parts: dict[str, Decimal] = {}
    left = cost
    for grant in wallet.grants:
        if left and grant.remaining and grant.pays_for(occurred_at):
            taken = min(left, grant.remaining)
            grant.remaining -= taken
            grant.is_changed = True
            parts[grant.grant_id] = -taken
            left -= taken
    if left:
        wallet.debt += left
        parts[DEBT] = left
    return Change(parts=parts)


def burn_kept(wallet: Standing, cost: Decimal, occurred_at: datetime, kept: Decimal, since: datetime) -> Change:
    """The same where a hold has kept back so much since a moment: what has ended after that still pays for that much.

    It pays before what is valid: usage under way loses nothing by the end of a month.
    """
    parts: dict[str, Decimal] = {}
    left = min(kept, cost)
    for grant in wallet.grants:
        if left and grant.remaining and _pays_still(grant, occurred_at, since):
            taken = min(left, grant.remaining)
            grant.remaining -= taken
            grant.is_changed = True
            parts[grant.grant_id] = -taken
            left -= taken
    if not parts:
        return burn(wallet, cost, occurred_at)
    wallet.is_changed = True
    rest = cost + sum(parts.values(), ZERO)
    if rest:
        parts |= burn(wallet, rest, occurred_at).of(-rest)
    return Change(parts=parts)


def kept_back(grants: Iterable[Grant], occurred_at: datetime, since: datetime) -> Decimal:
    """How much of what has ended still pays for usage for which value was kept back since a moment."""
    return sum((grant.remaining for grant in grants if _pays_still(grant, occurred_at, since)), ZERO)


def _pays_still(grant: Grant, occurred_at: datetime, since: datetime) -> bool:
    return grant.has_ended(occurred_at) and grant.pays_for(since)


def arrive(wallet: Standing, grant: Grant, amount: Decimal, payable: Decimal | None = None) -> Change:
    """Let value arrive as (or again in) a grant: debt is paid first. The grant is the caller's to keep.

    `payable` is how much debt came from what occurred while the grant is valid; None for one without bounds, which
    pays any. So free credits that come late pay for what they would have paid for, had they come in time.
    """
    paid = min(wallet.debt, amount) if payable is None else min(wallet.debt, amount, payable)
    wallet.debt -= paid
    grant.paid_debt += paid
    grant.remaining += amount - paid
    grant.is_changed = wallet.is_changed = True
    if not paid:
        return Change(grant.grant_id)
    return Change(grant.grant_id, {grant.grant_id: amount - paid, DEBT: -paid})


def broken(wallet: Standing, grant: Grant) -> Decimal:
    """Take what remains of a grant whose time is over, but never what is reserved; how much that was.

    Debt does not keep it: the grant could not have paid for what that came from.
    """
    free = max(ZERO, wallet.balance - wallet.reserved) if wallet.reserved else grant.remaining
    taken = min(grant.remaining, free)
    if taken:
        grant.remaining -= taken
        grant.is_changed = wallet.is_changed = True
    return taken


def take_back(wallet: Standing, grant: Grant, amount: Decimal) -> Change:
    """Take value back that a grant had given: what it no longer has becomes debt."""
    taken = min(grant.remaining, amount)
    grant.remaining -= taken
    wallet.debt += amount - taken
    grant.is_changed = wallet.is_changed = True
    if taken == amount:
        return Change(grant.grant_id)
    return Change(grant.grant_id, {grant.grant_id: -taken, DEBT: amount - taken})


def give_back(wallet: Standing, burned: dict[str, Decimal], amount: Decimal, grants: dict[str, Grant]) -> Change:
    """Undo so much of a burn: its debt first, then its grants, the one burned last before the others.

    `burned` are the parts of the burn, `grants` all grants of the wallet that it names or that ever paid debt. Debt
    that was paid since goes back to who paid it. A grant that had ended may be burned again at once. Raises
    `BrokenInvariant` if the burn was smaller.
    """
    parts: dict[str, Decimal] = {}
    left = amount
    if left and (of_debt := min(left, burned.get(DEBT, ZERO))):
        left -= of_debt
        _undo_debt(wallet, of_debt, grants.values(), parts)
    named = [grants[grant_id] for grant_id in burned if grant_id != DEBT]
    for grant in reversed(in_burn_order(named)):
        if left:
            given = min(left, -burned[grant.grant_id])
            _give(grant, given, parts)
            left -= given
    if left:
        raise BrokenInvariant(f"{written(amount)} are to be given back, {written(left)} more than were burned")
    here = {grant.grant_id for grant in wallet.grants}
    again = [grant for grant in grants.values() if grant.remaining and grant.grant_id not in here]
    wallet.grants = in_burn_order((*wallet.grants, *again))
    wallet.is_changed = True
    return Change(parts=parts)


def _undo_debt(wallet: Standing, amount: Decimal, payers: Iterable[Grant], parts: dict[str, Decimal]) -> None:
    """Debt that still stands falls; the rest was paid by grants, and goes back to them, the youngest first."""
    fallen = min(amount, wallet.debt)
    if fallen:
        wallet.debt -= fallen
        parts[DEBT] = -fallen
    left = amount - fallen
    for grant in sorted(payers, key=lambda one: -one.number):
        if left and grant.paid_debt:
            given = min(left, grant.paid_debt)
            grant.paid_debt -= given
            _give(grant, given, parts)
            left -= given
    if left:
        raise BrokenInvariant(f"{written(left)} of debt are to be undone that nobody owes and nobody paid")


def _give(grant: Grant, amount: Decimal, parts: dict[str, Decimal]) -> None:
    grant.remaining += amount
    grant.is_changed = True
    parts[grant.grant_id] = parts.get(grant.grant_id, ZERO) + amount
