"""Wallets, gone through again entry by entry in the order in which the ledger was written. Imports no rule of ours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from chaos.emitted import Key
from chaos.facts import EntryFact
from chaos.oracle import EXACT, ZERO, Expected
from chaos.world import GrantOf

DEBT = "debt"
#: Of which kind an entry is that gives, by the grant's source; any other is a grant.
KINDS = {"adjustment": "adjustment", "subscription": "subscription"}
NEVER = datetime.max.replace(tzinfo=UTC)
Parts = dict[str, Decimal]


@dataclass(slots=True)
class Held:
    """A grant as it stands while entries go by."""

    grant_id: str
    given: GrantOf
    number: int
    remaining: Decimal
    paid_debt: Decimal = ZERO

    @property
    def order(self) -> tuple[int, datetime, int]:
        """Priority, then whichever ends first, then age."""
        return self.given.priority, self.given.expires_at or NEVER, self.number

    def pays_for(self, moment: datetime) -> bool:
        since, until = self.given.valid_from, self.given.expires_at
        return (since is None or since <= moment) and (until is None or moment < until)


@dataclass(slots=True)
class Purse:
    """A wallet while its entries go by."""

    balance: Decimal = ZERO
    debt: Decimal = ZERO
    grants: list[Held] = field(default_factory=list)

    def burn(self, cost: Decimal, occurred_at: datetime) -> Parts:
        """Take what an event costs; which grant gave how much, and what is debt."""
        parts: Parts = {}
        left = cost
        for grant in sorted(self.grants, key=lambda one: one.order):
            taken = min(left, grant.remaining) if grant.pays_for(occurred_at) else ZERO
            if taken:
                grant.remaining = EXACT.subtract(grant.remaining, taken)
                parts[grant.grant_id] = -taken
                left = EXACT.subtract(left, taken)
        if left:
            self.debt = EXACT.add(self.debt, left)
            parts[DEBT] = left
        self.balance = EXACT.subtract(self.balance, cost)
        return parts

    def give(self, grant_id: str, given: GrantOf) -> Parts:
        """Let a grant arrive: it pays debt first. One that is bounded in time is given before there is any."""
        paid = min(self.debt, given.amount)
        assert not paid or (given.valid_from is None and given.expires_at is None), "such a grant is not replayed here"
        self.debt = EXACT.subtract(self.debt, paid)
        remaining = EXACT.subtract(given.amount, paid)
        self.grants.append(Held(grant_id, given, len(self.grants), remaining, paid))
        self.balance = EXACT.add(self.balance, given.amount)
        return {grant_id: remaining, DEBT: -paid} if paid else {grant_id: given.amount}


Finding = tuple[str, object, object]
"""what, expected, actual"""
AGAIN = "again"
CHECKPOINT = "checkpoint"


@dataclass(slots=True)
class Replay:
    """One wallet's entries, gone through in their order."""

    expected: Expected
    given: Mapping[tuple[str, str], GrantOf]
    purse: Purse
    archived: Sequence[Key] = ()
    """what its checkpoint stands for"""
    _seen: set[Key] = field(default_factory=set)
    _place: int = 0

    def through(self, entries: Sequence[EntryFact]) -> Iterator[Finding]:
        """Wherever an entry is not what it had to be."""
        for entry in entries:
            self._place += len(self.archived) if entry.kind == CHECKPOINT else 1
            for what, wanted, found in self._of(entry):
                yield f"entry {entry.seq}, {what}", wanted, found
        if self.archived and not self._seen.issuperset(self.archived):
            yield "archived usage", f"a checkpoint for {len(self.archived)}", "none"

    def _of(self, entry: EntryFact) -> Iterator[Finding]:
        if entry.seq != self._place:
            yield "its number", self._place, entry.seq
        given = self.given.get((entry.tenant_id, entry.idempotency_key or ""))
        if entry.kind == "usage" and entry.event_key is not None:
            key = (entry.tenant_id, entry.event_key)
            if key in self._seen:
                yield f"event {entry.event_key} charged", "once", AGAIN
            if not self._is_owed(key, entry):
                yield f"a debit for {entry.event_key}", None, entry.amount
                return
            self._seen.add(key)
            cost = self.expected.fates[key].cost
            amount, parts = -cost, self.purse.burn(cost, self.expected.contents[key].occurred_at)
        elif entry.kind == CHECKPOINT and self.archived:
            amount, parts = self._all_archived()
        elif given is not None and entry.kind == KINDS.get(given.source, "grant"):
            amount, parts = given.amount, self.purse.give(entry.grant_id or "", given)
        else:
            yield "its kind", "usage or a grant of ours", f"{entry.kind} {entry.idempotency_key}"
            return
        if entry.amount != amount:
            yield "its amount", amount, entry.amount
        if entry.balance_after != self.purse.balance:
            yield "the balance after it", self.purse.balance, entry.balance_after
        if _parts(entry) != parts:
            yield "what it took from", parts, _parts(entry)

    def _all_archived(self) -> tuple[Decimal, Parts]:
        """All of it at once. In whatever order it was used, the sums are these: no grant of a veteran has bounds."""
        amount, parts = ZERO, dict[str, Decimal]()
        for key in self.archived:
            self._seen.add(key)
            cost = self.expected.fates[key].cost
            amount = EXACT.subtract(amount, cost)
            for name, moved in self.purse.burn(cost, self.expected.contents[key].occurred_at).items():
                parts[name] = EXACT.add(parts.get(name, ZERO), moved)
        return amount, parts

    def _is_owed(self, key: Key, entry: EntryFact) -> bool:
        """Whether this event costs something, and this wallet pays for it."""
        fate = self.expected.fates.get(key)
        if fate is None or fate.status != "charged" or not fate.cost:
            return False
        return (self.expected.contents[key].customer_id, fate.currency) == (entry.customer_id, entry.currency)


def _parts(entry: EntryFact) -> Parts:
    """What an entry says it moved: each grant, and debt."""
    if entry.parts is not None:
        return {name: Decimal(str(amount)) for name, amount in entry.parts.items()}
    return {DEBT: -entry.amount} if entry.grant_id is None else {entry.grant_id: entry.amount}
