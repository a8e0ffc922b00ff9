"""What had to become of holds, and of the usage that names them. Imports nothing of the project.

The order of captures is that of the wallet's ledger, and when a capture was is what its row says: the clocks are
stepped, and a hold is over by the clock of whoever looks.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from chaos.asked import Asked, Named, Wish
from chaos.differences import Difference
from chaos.emitted import Key
from chaos.facts import CaptureFact, Facts, HoldFact, Wallet
from chaos.oracle import EXACT, ZERO, Expected
from chaos.world import World

BEYOND, RELEASED, EXPIRED = "beyond", "released", "expired"
OTHER_WALLET, UNKNOWN = "other_wallet", "unknown"
#: What may stand in the way of a wish: too little is left, or a hard quota is.
REFUSALS = (None, "insufficient_credits", "quota_exceeded")
Took = tuple[Decimal, str | None]
"""how much, and why that is not what the event cost"""


@dataclass(slots=True)
class Holds:
    """What holds came to, reckoned from what was asked and used."""

    differences: list[Difference] = field(default_factory=list)
    reserved: dict[Wallet, Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))
    captured: dict[str, Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))
    """by tenant"""
    granted: Counter[str] = field(default_factory=Counter)
    """holds that somebody was told of, by tenant"""
    marks: Counter[str] = field(default_factory=Counter)


def reckon(world: World, expected: Expected, facts: Facts, asked: Asked) -> Holds:
    """Hold every hold, and every capture, against what was asked and what was used."""
    found = Holds()
    found.differences += _of_wishes(facts, asked)
    found.granted.update(tenant for (tenant, _), wish in asked.wishes.items() if wish.hold_id is not None)
    naming = {key for key, fate in expected.fates.items() if fate.status == "charged" and _hold_of(expected, key)}
    captures = {(row.tenant_id, row.event_key): row for row in facts.captures}
    for key in naming - captures.keys():
        found.differences.append(Difference("hold", f"capture by {_named(key)}", "one", "none"))
    for key in captures.keys() - naming:
        found.differences.append(Difference("hold", f"capture by {_named(key)}", "none", captures[key]))
    rows = {(row.tenant_id, row.customer_id, row.hold_id): row for row in facts.holds}
    seqs = {(one.tenant_id, one.event_key, one.currency): one.seq for one in facts.entries if one.event_key is not None}
    of_hold: defaultdict[tuple[str, str, str], list[CaptureFact]] = defaultdict(list)
    for key in sorted(naming & captures.keys()):
        of_hold[key[0], expected.contents[key].customer_id, _hold_of(expected, key) or ""].append(captures[key])
    for name, row in rows.items():
        mine = of_hold.pop(name, [])
        mine.sort(key=lambda one, row=row: seqs.get((one.tenant_id, one.event_key, row.currency), 0))  # type: ignore[misc]
        found.differences += _Walk(expected, row, asked, found).through(mine)
    for strangers in of_hold.values():
        for one in strangers:
            found.marks[one.mark or ""] += 1
            if (one.taken, one.mark) != (ZERO, UNKNOWN):
                found.differences.append(Difference("hold", f"capture by {one.event_key}", (ZERO, UNKNOWN), one))
    found.differences += _of_vaults(world, facts)
    return found


def _of_wishes(facts: Facts, asked: Asked) -> Iterator[Difference]:
    rows = {(row.tenant_id, row.idempotency_key): row for row in facts.holds}
    for key, wish in asked.wishes.items():
        row = rows.pop(key, None)
        if wish.refused not in REFUSALS:
            yield Difference("hold", f"hold {_named(key)}, refused", REFUSALS, wish.refused)
        if row is None:
            if wish.hold_id is not None:
                yield Difference("hold", f"hold {_named(key)}", "one that was granted", "nothing")
        elif wish.refused is not None:
            yield Difference("hold", f"hold {_named(key)}", f"refused: {wish.refused}", row)
        elif (wanted := _wanted(wish, row)) != (found := _as_asked(row)):
            yield Difference("hold", f"hold {_named(key)}", wanted, found)
    for key, row in rows.items():
        yield Difference("stranger", f"hold {_named(key)}", "nothing: nobody asked for it", row)


def _wanted(wish: Wish, row: HoldFact) -> tuple[object, ...]:
    return wish.customer_id, wish.currency, wish.amount, timedelta(seconds=wish.seconds), wish.hold_id or row.hold_id


def _as_asked(row: HoldFact) -> tuple[object, ...]:
    return row.customer_id, row.currency, row.amount, row.expires_at - row.opened_at, row.hold_id


def _of_vaults(world: World, facts: Facts) -> Iterator[Difference]:
    """What moves a vault's value was kept back for it, whole: it can't be short, whoever else asked at that moment."""
    vaults = {(one.tenant_id, one.customer_id) for one in world.customers if one.is_vault}
    for row in facts.wallets:
        if (row.tenant_id, row.customer_id) in vaults and row.debt:
            yield Difference("hold", f"vault {row.tenant_id}/{row.customer_id}, debt", ZERO, row.debt)
    for one in facts.captures:
        if (one.tenant_id, one.customer_id) in vaults and one.mark is not None:
            yield Difference("hold", f"vault of {one.tenant_id}, capture by {one.event_key}", "whole", one.mark)


@dataclass(slots=True)
class _Walk:
    """One hold, while captures go through it."""

    expected: Expected
    row: HoldFact
    asked: Asked
    found: Holds
    left: Decimal = ZERO
    is_closed: bool = False

    def through(self, captures: Sequence[CaptureFact]) -> Iterator[Difference]:
        row, name = self.row, f"hold {self.row.tenant_id}/{self.row.idempotency_key}"
        self.left = row.amount
        for one in captures:
            took = (one.taken, one.mark)
            self.found.marks[one.mark or "whole"] += 1
            if took not in (wanted := self._allowed(one)):
                yield Difference("hold", f"{name}, capture by {one.event_key}", wanted, took)
            self.left = EXACT.subtract(self.left, one.taken)
            self.found.captured[row.tenant_id] = EXACT.add(self.found.captured[row.tenant_id], one.taken)
            # An end that has not come yet by this capture's own clock was written down by somebody.
            is_closed = one.mark == RELEASED or (one.mark == EXPIRED and one.at < row.expires_at)
            self.is_closed |= is_closed and self._has_place(one)
        captured = EXACT.subtract(row.amount, self.left)
        if captured != row.captured or not ZERO <= captured <= row.amount:
            yield Difference("hold", f"{name}, captured of {row.amount}", captured, row.captured)
        if row.state not in (states := self._states()):
            yield Difference("hold", f"{name}, state", states, row.state)
        if row.state == "open":
            wallet = (row.tenant_id, row.customer_id, row.currency)
            self.found.reserved[wallet] = EXACT.add(self.found.reserved[wallet], self.left)

    def _has_place(self, one: CaptureFact) -> bool:
        """Whether the wallet's ledger tells what came before it: what costs nothing there stands in no place."""
        fate = self.expected.fates[one.tenant_id, one.event_key]
        return bool(fate.cost) and fate.currency == self.row.currency

    def _allowed(self, one: CaptureFact) -> list[Took]:
        """What this capture may have taken, and its mark; more than one where nothing could decide it."""
        row, fate = self.row, self.expected.fates[one.tenant_id, one.event_key]
        is_late = one.at >= row.expires_at
        if not self.left:
            return [(ZERO, BEYOND)]
        allowed: list[Took] = [(ZERO, BEYOND)] if row.state == "used_up" and not self._has_place(one) else []
        if row.state == RELEASED:
            allowed.append((ZERO, RELEASED))
        if (is_late and not (self.is_closed and row.state == RELEASED)) or row.state == EXPIRED:
            allowed.append((ZERO, EXPIRED))
        if is_late or self.is_closed:
            return allowed
        if fate.currency not in {None, row.currency}:
            allowed.append((ZERO, OTHER_WALLET))
        else:
            taken = min(fate.cost, self.left)
            allowed.append((taken, None if taken == fate.cost else BEYOND))
        return allowed

    def _states(self) -> list[str]:
        """What may have become of it."""
        row = self.row
        if not self.left:
            return ["used_up"]
        states = []
        answered = self.asked.released.get((row.tenant_id, row.hold_id))
        if answered is not None and row.closed_at is not None and row.closed_at < row.expires_at:
            states.append(RELEASED)
        if row.closed_at is not None and row.closed_at >= row.expires_at:
            states.append(EXPIRED)
        if not answered:
            states.append("open")
        return states


def _hold_of(expected: Expected, key: Key) -> str | None:
    return expected.contents[key].context.hold_id


def _named(key: Key | Named) -> str:
    return f"{key[0]}/{key[1]}"
