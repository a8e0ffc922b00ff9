"""Expected and actual, row by row and in all. Imports nothing of the project."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from chaos import counted, held
from chaos.asked import Asked
from chaos.counted import Counted
from chaos.differences import Difference
from chaos.emitted import Context, Emitted, Key
from chaos.facts import EntryFact, EventFact, Facts, GrantFact, Wallet
from chaos.held import Holds
from chaos.oracle import EXACT, ZERO, Expected, Oracle
from chaos.replay import AGAIN, Purse, Replay
from chaos.totals import Total, totals
from chaos.world import GOOD, GrantOf, World


@dataclass(slots=True)
class Verdict:
    """What the comparison came to."""

    differences: list[Difference] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)
    emitted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    undecided: int = 0
    undecided_found: int = 0
    several: int = 0
    """entries that took from more than one grant, or a grant and debt"""
    cents: Decimal = ZERO
    """by how much the balances of wallets are off, in all"""
    holds_there: Holds = field(default_factory=Holds)
    counted: Counted = field(default_factory=Counted)

    @property
    def by_kind(self) -> Counter[str]:
        return Counter(one.kind for one in self.differences)

    @property
    def holds(self) -> bool:
        return not self.differences and all(total.expected == total.actual for total in self.totals)


def compare(
    world: World,
    given_later: Sequence[GrantOf],
    emitted: Emitted,
    facts: Facts,
    *,
    asked: Asked | None = None,
    deferred: Mapping[Key, str] | None = None,
) -> Verdict:
    """Reckon what had to be, and name every row that is not so."""
    asked = asked or Asked()
    recorded = {(row.tenant_id, row.key): row for row in facts.events}
    expected = Oracle(world).expected(emitted, recorded, deferred)
    given = {(one.tenant_id, one.key): one for one in (*world.grants, *given_later)}
    purses: dict[Wallet, Purse] = {}
    holds = held.reckon(world, expected, facts, asked)
    verdict = Verdict(
        emitted=emitted.lines,
        duplicates=emitted.duplicates,
        conflicts=sum(1 for reason in expected.inputs.values() if reason == "key_conflict"),
        undecided=emitted.undecided,
        undecided_found=expected.undecided_found,
        several=sum(1 for entry in facts.entries if entry.parts is not None),
        holds_there=holds,
        counted=counted.reckon(world, expected, facts),
    )
    verdict.differences += _of_events(expected, recorded, emitted)
    verdict.differences += _of_inputs(expected, facts)
    verdict.differences += _of_ledger(expected, facts, given, purses)
    verdict.differences += _of_wallets(expected, facts, given, purses, holds.reserved)
    verdict.differences += _of_grants(facts.grants, purses)
    verdict.differences += _of_periods(expected, facts)
    verdict.differences += _of_payments(world, expected, facts)
    verdict.differences += _of_archives(expected, facts)
    verdict.differences += holds.differences
    verdict.differences += verdict.counted.differences
    balances = {row.wallet: row.balance for row in facts.wallets}
    off = (abs(purse.balance - balances.get(wallet, ZERO)) for wallet, purse in purses.items())
    verdict.cents = sum(off, ZERO)
    verdict.totals = totals(world, expected, facts, purses, holds, verdict.counted)
    return verdict


def _of_events(expected: Expected, recorded: Mapping[Key, EventFact], emitted: Emitted) -> Iterator[Difference]:
    for key in expected.lost:
        yield Difference("lost", _named(key), "charged, pending or parked", "nothing")
    for key in expected.unknown_content:
        yield Difference("stranger", _named(key), "what was emitted under this key", "another content")
    for key in recorded.keys() - emitted.events.keys():
        yield Difference("stranger", _named(key), "nothing: nobody emitted it", recorded[key].status)
    for key, fate in expected.fates.items():
        row = recorded[key]
        for kind, what, wanted, found in (
            ("status", "status", (fate.status, fate.reason), (row.status, row.park_reason)),
            ("cents", "cost", (fate.cost, fate.currency), (row.cost, row.currency)),
            ("tokens", "tokens", fate.tokens, row.tokens),
            ("tokens", "period", (fate.period_start, False), (row.period_start, row.is_late)),
            ("status", "context", Context() if row.is_archived else expected.contents[key].context, row.context),
        ):
            if wanted != found:
                yield Difference(kind, f"{_named(key)}, {what}", wanted, found)


def _of_inputs(expected: Expected, facts: Facts) -> Iterator[Difference]:
    found = {row.input_hash: row.reason for row in facts.inputs}
    for digest, reason in expected.inputs.items():
        if (actual := found.get(digest)) is None:
            yield Difference("lost", f"input {digest.hex()[:16]}", f"parked: {reason}", "nothing")
        elif actual != reason:
            yield Difference("parked", f"input {digest.hex()[:16]}", reason, actual)
    for digest in found.keys() - expected.inputs.keys() - expected.may_be_inputs.keys():
        yield Difference("stranger", f"input {digest.hex()[:16]}", "nothing: nobody emitted it", found[digest])


def _of_ledger(
    expected: Expected,
    facts: Facts,
    given: Mapping[tuple[str, str], GrantOf],
    purses: dict[Wallet, Purse],
) -> Iterator[Difference]:
    entries: defaultdict[Wallet, list[EntryFact]] = defaultdict(list)
    debited: Counter[Key] = Counter()
    for entry in facts.entries:
        entries[entry.wallet].append(entry)
        if entry.kind == "usage" and entry.event_key is not None:
            debited[entry.tenant_id, entry.event_key] += 1
    archived = _archived(expected, facts)
    for wallet, mine in entries.items():
        purse = purses[wallet] = Purse()
        gone = archived.get(wallet, [])
        debited.update(gone)
        for what, wanted, found in Replay(expected, given, purse, gone).through(mine):
            kind = "doubled" if found == AGAIN else "cents"
            yield Difference(kind, f"wallet {'/'.join(wallet)}, {what}", wanted, found)
    for key, fate in expected.fates.items():
        wanted = int(fate.status == "charged")
        if fate.cost and debited[key] != wanted:
            kind = "doubled" if debited[key] else "lost"
            yield Difference(kind, f"{_named(key)}, entries in the ledger", wanted, debited[key])


def _archived(expected: Expected, facts: Facts) -> dict[Wallet, list[Key]]:
    """The events of each wallet that a checkpoint stands for, the oldest first."""
    gone: defaultdict[Wallet, list[Key]] = defaultdict(list)
    for row in sorted(facts.events, key=lambda row: (row.occurred_at, row.key)):
        fate = expected.fates.get((row.tenant_id, row.key))
        if row.is_archived and fate and fate.cost and fate.currency:
            gone[row.tenant_id, row.customer_id, fate.currency].append((row.tenant_id, row.key))
    return gone


def _of_archives(expected: Expected, facts: Facts) -> Iterator[Difference]:
    """What is archived is in a file as it was; what is in no file is in the tables."""
    found = {(one.tenant_id, one.key): (one.cost, one.moved) for one in facts.archived}
    for row in facts.events:
        key = (row.tenant_id, row.key)
        if key not in expected.fates:
            continue
        if row.is_archived is not (key in expected.old):
            yield Difference("archive", f"{_named(key)}, archived", key in expected.old, row.is_archived)
        cost = expected.fates[key].cost
        if row.is_archived and (said := found.get(key)) != (cost, -cost or None):
            yield Difference("archive", f"{_named(key)}, in a file", (cost, -cost or None), said)


def _of_wallets(
    expected: Expected,
    facts: Facts,
    given: Mapping[tuple[str, str], GrantOf],
    purses: Mapping[Wallet, Purse],
    reserved: Mapping[Wallet, Decimal],
) -> Iterator[Difference]:
    """Balances twice: as the ledger leads to them, and as what was given less all costs, in whatever order."""
    received: defaultdict[Wallet, Decimal] = defaultdict(lambda: ZERO)
    for one in given.values():
        wallet = (one.tenant_id, one.customer_id, one.currency)
        received[wallet] = EXACT.add(received[wallet], one.amount)
    for row in facts.wallets:
        purse = purses.get(row.wallet, Purse())
        cost = expected.costs.get(row.wallet, ZERO)
        for what, wanted, found in (
            ("balance", purse.balance, row.balance),
            ("balance, whatever the order", EXACT.subtract(received[row.wallet], cost), row.balance),
            ("debt", purse.debt, row.debt),
            ("used in all", cost, row.used_total),
            ("received in all", received[row.wallet], row.received_total),
            ("reserved", reserved.get(row.wallet, ZERO), row.reserved),
        ):
            if wanted != found:
                yield Difference("cents", f"wallet {'/'.join(row.wallet)}, {what}", wanted, found)


def _of_grants(grants: Sequence[GrantFact], purses: Mapping[Wallet, Purse]) -> Iterator[Difference]:
    held = {one.grant_id: one for purse in purses.values() for one in purse.grants}
    for row in grants:
        one = held.pop(row.grant_id, None)
        wanted = (one.given.amount, one.remaining, one.paid_debt) if one else None
        if wanted != (row.amount, row.remaining, row.paid_debt):
            found = (row.amount, row.remaining, row.paid_debt)
            yield Difference("cents", f"grant {row.grant_id} of {row.customer_id}", wanted, found)
    for one in held.values():
        yield Difference("cents", f"grant {one.grant_id} of {one.given.customer_id}", one.remaining, None)


def _of_periods(expected: Expected, facts: Facts) -> Iterator[Difference]:
    rows = {(row.tenant_id, row.customer_id, row.starts_at): row for row in facts.periods}
    for period, month in expected.months.items():
        row = rows.pop(period, None)
        found = (row.tokens, row.events, row.tiers_reached) if row else None
        if (month.tokens, month.events, month.tiers) != found:
            name = f"period {period[0]}/{period[1]} {period[2]:%Y-%m-%d}: tokens, events, tiers"
            yield Difference("tokens", name, (month.tokens, month.events, month.tiers), found)
    for row in rows.values():
        if row.tokens or row.events or row.tiers_reached:
            yield Difference("tokens", f"period {row.customer_id} {row.starts_at}", "nothing in it", row)


def _of_payments(world: World, expected: Expected, facts: Facts) -> Iterator[Difference]:
    """Each tier begun owes one payment; a good card has paid each once, and nobody has paid anything else."""
    cards = {(c.tenant_id, c.customer_id): c.card for c in world.customers}
    owed = dict(expected.payments)
    strangers = dict(facts.captured)
    for row in facts.payments:
        name = f"payment {row.payment_id} of {row.tenant_id}/{row.customer_id}, tier {row.tier}"
        amount = owed.pop((row.tenant_id, row.customer_id, row.period_start, row.tier), None)
        if row.kind != "tier" or row.generation or amount is None:
            yield Difference("payment", name, "nothing owed", f"{row.kind}, generation {row.generation}")
        elif (amount, "BRL") != (row.amount_minor, row.currency):
            yield Difference("payment", name, (amount, "BRL"), (row.amount_minor, row.currency))
        is_good = cards.get((row.tenant_id, row.customer_id)) == GOOD
        taken = strangers.pop(row.payment_id, None)
        found = (taken.minor, taken.refunded_minor, taken.successes) if taken else (0, 0, 0)
        wanted = (amount or 0, 0, 1) if is_good and amount else (0, 0, 0)
        if found != wanted:
            yield Difference("captured", f"{name}: minor units, refunded, successes", wanted, found)
        if (row.state == "succeeded") is not is_good:
            yield Difference("payment", f"{name}: its state", "succeeded" if is_good else "not paid", row.state)
    for tenant, customer, starts_at, tier in owed:
        yield Difference("payment", f"{tenant}/{customer} {starts_at:%Y-%m-%d}, tier {tier}", "owed", "no payment")
    for stranger, taken in strangers.items():
        yield Difference("captured", f"payment {stranger}", "nothing owed", taken)


def _named(key: Key) -> str:
    return f"event {key[0]}/{key[1]}"
