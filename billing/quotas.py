"""Quotas: how much may be used in a day or a month, by whom, of what.

Usage has already happened, so it is counted whatever a quota says, and marked when it went over. A hard quota refuses
the next thing: a check, a hold. An event counts in the window in which it *occurred*, so the sums are the same in
whatever order events arrive. Three kinds count alike, and differ in who says them:

    quota    the tenant's rule
    budget   what a feature should cost; it only warns
    cap      a customer's own limit; it is hard
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from operator import attrgetter
from zoneinfo import ZoneInfo

from billing.events import Attributed
from billing.money import ZERO

#: Of a limit, in percent: what a person is told of, once in a window.
THRESHOLDS = (80, 100)

_SET_BACK_MAX = timedelta(hours=3)


class Scope(StrEnum):
    """Whose usage is counted together."""

    USER = "user"
    CUSTOMER = "customer"
    ORGANIZATION = "organization"
    TENANT = "tenant"


class Per(StrEnum):
    """For how long: a calendar day or month of the quota's time zone."""

    DAY = "day"
    MONTH = "month"


class Measure(StrEnum):
    """What is counted."""

    TOKENS = "tokens"
    EVENTS = "events"
    COST = "cost"


class QuotaKind(StrEnum):
    """Who says it, and what for."""

    QUOTA = "quota"
    BUDGET = "budget"
    CAP = "cap"


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit on what is used in a window. Everything but the limit, and whether it is hard, stays as it was made."""

    tenant_id: str
    quota_id: int
    name: str
    kind: QuotaKind
    scope: Scope
    subject: str
    """Which user, customer or organization; '': each of them has so much, or the tenant as a whole."""
    service_type: str | None
    """Of this alone; None: of all."""
    feature: str | None
    per: Per
    time_zone: str
    measure: Measure
    currency: str | None
    """Of cost."""
    limit: Decimal
    is_hard: bool

    @property
    def is_striped(self) -> bool:
        """Whether its counter has several rows: one that everybody counts in would make them wait for one another."""
        return self.scope is Scope.TENANT

    def is_for(self, used: Attributed, currency: str | None) -> bool:
        """Whether it limits such usage, whoever's that is."""
        if self.service_type is not None and self.service_type != used.service_type:
            return False
        if self.feature is not None and self.feature != used.feature:
            return False
        return self.measure is not Measure.COST or self.currency == currency

    def subject_of(self, used: Attributed, currency: str | None) -> str | None:
        """In whose counter usage counts: '' is the tenant's, None: it is not for this quota."""
        if not self.is_for(used, currency):
            return None
        subject = WHO[self.scope](used)
        return None if self.subject and self.subject != subject else subject

    def amount(self, tokens: int, cost: Decimal) -> Decimal:
        """By how much one event raises the counter."""
        match self.measure:
            case Measure.TOKENS:
                return Decimal(tokens)
            case Measure.EVENTS:
                return Decimal(1)
            case Measure.COST:
                return cost

    def window_of(self, moment: datetime) -> date:
        """The window that a moment lies in, named by its first day."""
        return window_of(moment, self.per, self.time_zone)

    def resets_at(self, moment: datetime) -> datetime:
        """When the window around a moment ends, in UTC."""
        return window_ends_at(self.window_of(moment), self.per, self.time_zone)


@dataclass(frozen=True, slots=True)
class QuotaBook:
    """The quotas that are for everybody of a scope, and in which scopes somebody has one of their own."""

    revision: int
    general: Mapping[str, Sequence[Quota]] = field(default_factory=dict)
    named: Mapping[str, Sequence[Scope]] = field(default_factory=dict)

    @classmethod
    def of(cls, revision: int, general: Iterable[Quota], named: Iterable[tuple[str, Scope]]) -> "QuotaBook":
        of_tenants: defaultdict[str, list[Quota]] = defaultdict(list)
        for quota in general:
            of_tenants[quota.tenant_id].append(quota)
        scopes: defaultdict[str, list[Scope]] = defaultdict(list)
        for tenant_id, scope in named:
            scopes[tenant_id].append(scope)
        return cls(revision, dict(of_tenants), dict(scopes))

    def __bool__(self) -> bool:
        return bool(self.general or self.named)


def _nobody_in_particular(_: Attributed) -> str:
    return ""


#: Who used something, in a scope, by its field; None: nobody is named.
WHO: Mapping[Scope, Callable[[Attributed], str | None]] = {
    Scope.USER: attrgetter("user_id"),
    Scope.CUSTOMER: attrgetter("customer_id"),
    Scope.ORGANIZATION: attrgetter("organization_id"),
    Scope.TENANT: _nobody_in_particular,
}


def window_of(moment: datetime, per: Per, time_zone: str) -> date:
    """The first day of the day or month around a moment, by a zone's calendar.

    >>> window_of(datetime(2026, 11, 1, 1, tzinfo=UTC), Per.MONTH, "America/Sao_Paulo")
    datetime.date(2026, 10, 1)
    """
    day = moment.astimezone(_zone(time_zone)).date()
    return day if per is Per.DAY else day.replace(day=1)


def windows_of(moments: Sequence[datetime], per: Per, time_zone: str) -> list[date]:
    """The windows of several moments. Those of one transaction mostly lie in the same one, which is seen at once.

    A calendar that is set back may show a day again, but not three hours later.
    """
    window = window_of(min(moments) - _SET_BACK_MAX, per, time_zone)
    if window_of(max(moments) + _SET_BACK_MAX, per, time_zone) == window:
        return [window] * len(moments)
    return [window_of(moment, per, time_zone) for moment in moments]


def window_ends_at(window: date, per: Per, time_zone: str) -> datetime:
    """When the next window begins, in UTC."""
    following = window + timedelta(days=1)
    if per is Per.MONTH:
        following = (window.replace(day=1) + timedelta(days=32)).replace(day=1)
    return datetime.combine(following, time(), _zone(time_zone)).astimezone(UTC)


def reached(used: Decimal, limit: Decimal) -> tuple[int, ...]:
    """The thresholds that so much use has reached. It depends on the sum alone, not on the steps to it.

    >>> reached(Decimal(79), Decimal(100)), reached(Decimal(80), Decimal(100)), reached(Decimal(120), Decimal(100))
    ((), (80,), (80, 100))
    """
    return tuple(percent for percent in THRESHOLDS if used * 100 >= limit * percent)


def over(after: Decimal, amounts: Sequence[Decimal], limit: Decimal) -> list[bool]:
    """Which of these additions, in their order, went over the limit: `after` is the counter with all of them.

    >>> over(Decimal(12), [Decimal(4), Decimal(3), Decimal(3)], Decimal(10))
    [False, False, True]
    """
    so_far = after - sum(amounts, ZERO)
    flags = []
    for amount in amounts:
        so_far += amount
        flags.append(amount > 0 and so_far > limit)
    return flags


def fits(used: Decimal, asked: Decimal, limit: Decimal) -> bool:
    """Whether so much more may be used. Where nothing is left, nothing fits, however little is asked.

    >>> fits(Decimal(9), Decimal(1), Decimal(10)), fits(Decimal(9), Decimal(2), Decimal(10))
    (True, False)
    >>> fits(Decimal(10), Decimal(0), Decimal(10))
    False
    """
    return used < limit and used + asked <= limit


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
