"""What had to be counted in quotas, said of them, and marked. Imports nothing of the project.

Sums and thresholds depend on no order. Marks do: whoever comes when a limit is passed is over it. A counter of one row
is passed in the order of commits, which Postgres tells; a tenant's has several, and transactions that meet don't see
one another's part.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

from chaos.differences import Difference
from chaos.emitted import Content, Key
from chaos.facts import EventFact, Facts
from chaos.oracle import EXACT, ZERO, Expected, Fate
from chaos.world import QuotaOf, World

THRESHOLDS = (80, 100)
#: As long as a transaction lasts at most: what was committed before that is seen by everybody who commits now.
MEETING_SECONDS = 30.0
_ABOUT = re.compile(r"(.+)#(\d+) (.*) (\d{4}-\d\d-\d\d) (\d+)% of ([\d.]+)")


class Count(NamedTuple):
    """A counter."""

    quota: QuotaOf
    subject: str
    window: date

    def __str__(self) -> str:
        return f"quota {self.quota.tenant_id}/{self.quota.name} {self.subject} {self.window}".replace("  ", " ")


Added = list[tuple[Key, Decimal]]
Told = tuple[str, str, str, date, Decimal, int]
"""tenant, quota, subject, window, limit, percent"""


@dataclass(slots=True)
class Counted:
    """What quotas came to, reckoned from what was used."""

    differences: list[Difference] = field(default_factory=list)
    used: dict[Count, Decimal] = field(default_factory=dict)
    warnings: int = 0
    marked: int = 0
    undecided: int = 0
    """events of which nothing could decide whether they were over"""


def reckon(world: World, expected: Expected, facts: Facts) -> Counted:
    """Hold counters, warnings and marks against what was used."""
    found = Counted()
    rows = {(row.tenant_id, row.key): row for row in facts.events}
    added, names = _added(world, expected)
    found.used = {count: _sum(parts) for count, parts in added.items()}
    found.differences += _of_events(expected, facts, rows, names)
    found.differences += _of_counts(facts, found.used)
    warned = Counter(_told(count, percent) for count, used in found.used.items() for percent in _reached(count, used))
    found.warnings = warned.total()
    found.differences += _of_warnings(facts, warned)
    found.differences += _of_alerts(facts, warned)
    found.differences += _Marks(added, rows, found).differences()
    return found


def _added(world: World, expected: Expected) -> tuple[dict[Count, Added], dict[Key, set[str]]]:
    """What each counter was raised by, and the quotas that each event counts in."""
    added: defaultdict[Count, Added] = defaultdict(list)
    names: dict[Key, set[str]] = {}
    of_tenant: defaultdict[str, list[QuotaOf]] = defaultdict(list)
    for quota in world.quotas:
        of_tenant[quota.tenant_id].append(quota)
    for key, fate in expected.fates.items():
        if fate.status != "charged":
            continue
        content = expected.contents[key]
        for quota in of_tenant.get(key[0], ()):
            subject = _subject(quota, content, fate)
            if subject is None:
                continue
            names.setdefault(key, set()).add(quota.name)
            if amount := _amount(quota, fate):
                local = content.occurred_at.astimezone(ZoneInfo(quota.zone)).date()
                window = local if quota.per == "day" else local.replace(day=1)
                added[Count(quota, subject, window)].append((key, amount))
    return added, names


def _subject(quota: QuotaOf, content: Content, fate: Fate) -> str | None:
    """In whose counter it counts; None: not in this quota."""
    used = content.context
    for wanted, said in ((quota.service_type, used.service_type), (quota.feature, used.feature)):
        if wanted not in {None, said}:
            return None
    if quota.measure == "cost" and quota.currency != fate.currency:
        return None
    whose = {
        "tenant": "",
        "customer": content.customer_id,
        "user": used.user_id,
        "organization": used.organization_id,
    }[quota.scope]
    return None if quota.subject and quota.subject != whose else whose


def _amount(quota: QuotaOf, fate: Fate) -> Decimal:
    return {"tokens": Decimal(fate.tokens), "events": Decimal(1), "cost": fate.cost}[quota.measure]


def _reached(count: Count, used: Decimal) -> Iterator[int]:
    return (percent for percent in THRESHOLDS if used * 100 >= count.quota.limit * percent)


def _of_events(
    expected: Expected, facts: Facts, rows: dict[Key, EventFact], names: dict[Key, set[str]]
) -> Iterator[Difference]:
    """Each event says in which quotas it counts."""
    names_of = {(one.tenant_id, one.quota_id): one.name for one in facts.quotas}
    for key in expected.fates:
        wanted, found = names.get(key, set()), {names_of[key[0], number] for number in rows[key].quota_ids}
        if wanted != found:
            yield Difference("quota", f"event {key[0]}/{key[1]}, its quotas", sorted(wanted), sorted(found))


def _of_counts(facts: Facts, used: dict[Count, Decimal]) -> Iterator[Difference]:
    names_of = {(one.tenant_id, one.quota_id): one.name for one in facts.quotas}
    found = {
        (one.tenant_id, names_of[one.tenant_id, one.quota_id], one.subject, one.window): one.used
        for one in facts.counts
    }
    for count, wanted in used.items():
        actual = found.pop((count.quota.tenant_id, count.quota.name, count.subject, count.window), ZERO)
        if wanted != actual:
            yield Difference("quota", str(count), wanted, actual)
    for name, actual in found.items():
        if actual:
            yield Difference("quota", f"quota {name}", "nothing counted", actual)


def _of_warnings(facts: Facts, warned: Counter[Told]) -> Iterator[Difference]:
    names_of = {(one.tenant_id, one.quota_id): one.name for one in facts.quotas}
    found = Counter(
        (one.tenant_id, names_of[one.tenant_id, one.quota_id], one.subject, one.window, one.limit, one.percent)
        for one in facts.warnings
    )
    yield from _compared("warning", warned, found)


def _of_alerts(facts: Facts, warned: Counter[Told]) -> Iterator[Difference]:
    """A person was told of each threshold, once."""
    found: Counter[Told] = Counter()
    for one in facts.alerts:
        about = _ABOUT.fullmatch(one.subject)
        if about is None:
            yield Difference("quota", f"alert {one.subject}", "one that says its quota", one)
            continue
        name, _, subject, window, percent, limit = about.groups()
        told = (one.tenant_id, name, subject, date.fromisoformat(window), Decimal(limit), int(percent))
        found[told] += one.times
    yield from _compared("alert", warned, found)


def _told(count: Count, percent: int) -> Told:
    quota = count.quota
    return quota.tenant_id, quota.name, count.subject, count.window, quota.limit, percent


def _compared(what: str, wanted: Counter[Told], found: Counter[Told]) -> Iterator[Difference]:
    for one in wanted | found:
        if wanted[one] != found[one]:
            yield Difference("quota", f"{what} {' '.join(map(str, one))} %", wanted[one], found[one])


@dataclass(slots=True)
class _Marks:
    """Which events had to be marked as over a limit, and which must not be."""

    added: dict[Count, Added]
    rows: dict[Key, EventFact]
    found: Counted
    must: dict[Key, str] = field(default_factory=dict)
    may: set[Key] = field(default_factory=set)

    def differences(self) -> Iterator[Difference]:
        for count, parts in self.added.items():
            if self.found.used[count] > count.quota.limit:
                yield from self._over(count, parts)
        for key, row in self.rows.items():
            self.found.marked += row.over_quota
            if row.over_quota and key not in self.must and key not in self.may:
                yield Difference("quota", f"event {key[0]}/{key[1]}, over a quota", False, True)
            elif key in self.must and not row.over_quota:
                yield Difference("quota", f"event {key[0]}/{key[1]}, over {self.must[key]}", True, False)
        self.found.undecided = len(self.may - self.must.keys())

    def _over(self, count: Count, parts: Added) -> Iterator[Difference]:
        """Go through the transactions in their order; all of one have the same moment.

        Of what is archived since nobody can tell the order.
        """
        if any(self.rows[key].is_archived for key, _ in parts):
            self.may.update(key for key, _ in parts)
            return
        together: defaultdict[float, Added] = defaultdict(list)
        for key, amount in parts:
            together[self.rows[key].committed_at or 0.0].append((key, amount))
        before, seen = ZERO, _Seen(sorted((at, _sum(some)) for at, some in together.items()))
        for at in sorted(together):
            some = together[at]
            after = EXACT.add(before, _sum(some))
            surely = seen.until(at - MEETING_SECONDS) if count.quota.scope == "tenant" else before
            for key, _ in some if surely > count.quota.limit else ():
                self.must[key] = str(count)
            if surely <= count.quota.limit < after:
                self.may.update(key for key, _ in some)
                if count.quota.scope != "tenant":
                    yield from self._at_the_limit(count, before, some)
            before = after

    def _at_the_limit(self, count: Count, before: Decimal, some: Sequence[tuple[Key, Decimal]]) -> Iterator[Difference]:
        """One transaction has passed the limit: in whatever order, what is not marked fits below it."""
        unmarked = _sum([(key, amount) for key, amount in some if not self.rows[key].over_quota])
        if EXACT.add(before, unmarked) > count.quota.limit:
            yield Difference("quota", f"{count}, not marked", f"{count.quota.limit} at most", before + unmarked)


@dataclass(slots=True)
class _Seen:
    """What of a counter was committed by a moment; asked in the order of time."""

    commits: Sequence[tuple[float, Decimal]]
    place: int = 0
    total: Decimal = ZERO

    def until(self, moment: float) -> Decimal:
        while self.place < len(self.commits) and self.commits[self.place][0] <= moment:
            self.total = EXACT.add(self.total, self.commits[self.place][1])
            self.place += 1
        return self.total


def _sum(parts: Sequence[tuple[Key, Decimal]]) -> Decimal:
    total = ZERO
    for _, amount in parts:
        total = EXACT.add(total, amount)
    return total
