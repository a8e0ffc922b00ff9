"""The year that is simulated: who the customers are, what they use and change, and which ticks they go without.

All of it is drawn beforehand from one seed, so the same seed is the same year.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from billing.plans import Anchor, Plan, Proration
from centavo import Item, UsageEvent

TENANT = "year"
CURRENCY = "CREDIT"
#: A year with both changes of daylight saving time, a turn of the year, and a February of 29 days.
STARTS_AT = datetime(2027, 7, 1, tzinfo=UTC)
#: It is the same date in all the zones at this hour in UTC, whatever the season.
HOUR = 6
#: The day turns at these hours too where a month ends: it has begun in the east by the one, in Kathmandu by the other.
HOURS_OF_LAST_DAY = (12, 19)
ZONES = (
    "America/Sao_Paulo",
    "Europe/Lisbon",
    "America/New_York",
    "Asia/Kathmandu",
    "Pacific/Auckland",
    "Pacific/Apia",
)
DAY = timedelta(days=1)
OUTAGE_DAYS = 40
MONTHS_OF_YEAR = 12

SKIPPED_SHARE, DOUBLED_SHARE = 0.25, 0.15
USED_ON_A_DAY_SHARE, SENT_TWICE_SHARE, HELD_BACK_SHARE = 0.25, 0.05, 0.06
#: Who was without net sends on one of these days of a month: on the fifth, the last month is just closed.
HELD_BACK_UNTIL = (5, 15, 25)
DECLINED_SHARE = 0.3
#: More than a customer is charged in a year.
CHARGES_MAX = 200
#: Whoever joins so shortly before the end changes nothing any more.
DAYS_TO_CHANGE_MIN = 8
TOKENS_OF_EVENT = 800_000

PROVIDER, MODEL = "acme", "one"
TOKEN_PRICE, SECOND_PRICE = Decimal("0.001"), Decimal(1)
#: By category and unit.
PRICES: Mapping[tuple[str, str], Decimal] = {
    ("llm_prompt", "token"): TOKEN_PRICE,
    ("llm_completion", "token"): TOKEN_PRICE,
    ("stt", "second"): SECOND_PRICE,
}
TOP_UP_BELOW, TOP_UP_CREDITS, TOP_UP_MINOR, TOP_UP_CAP_MINOR = Decimal(500), Decimal(4000), 4_000, 40_000


def _plan(
    plan_id: str, name: str, fee: int, credits_: int, *, tiers: bool, anchor: Anchor, daily: bool = False
) -> Plan:
    return Plan(
        "",
        plan_id,
        0,
        name,
        "BRL",
        fee,
        8_000_000 if tiers else 0,
        8_000_000 if tiers else None,
        10_000 if tiers else 0,
        free_credits=Decimal(credits_),
        free_credits_currency=CURRENCY,
        anchor=anchor,
        proration=Proration.DAILY if daily else Proration.NONE,
    )


#: Each has a fee and free credits for every month. Tokens are covered by tiers, or debited from the wallet.
PLANS: Mapping[str, Plan] = {
    plan.plan_id: plan
    for plan in (
        _plan("team", "Team, by the calendar", 40_000, 1_000, tiers=True, anchor=Anchor.CALENDAR),
        _plan("team-joined", "Team, from the day of joining", 44_000, 1_200, tiers=True, anchor=Anchor.JOINED),
        _plan("flex", "Flex, a day at a time", 31_000, 800, tiers=True, anchor=Anchor.CALENDAR, daily=True),
        _plan("prepaid", "Prepaid, by the calendar", 2_900, 5_000, tiers=False, anchor=Anchor.CALENDAR),
        _plan("prepaid-joined", "Prepaid, from the day of joining", 3_900, 6_000, tiers=False, anchor=Anchor.JOINED),
    )
}


@dataclass(frozen=True, slots=True)
class Options:
    """How long, for how many, and by which draw."""

    months: int = MONTHS_OF_YEAR
    customers: int = 200
    seed: int = 1


class Kind(StrEnum):
    """What a customer does."""

    ZONE = "zone"
    PLAN = "plan"
    """At the period's end."""
    PLAN_NOW = "plan_now"
    PAUSE = "pause"
    RESUME = "resume"
    END = "end"
    """At the period's end."""
    CARD = "card"
    """Pays with another card from then on."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a customer does, when, and what they change to."""

    at: datetime
    kind: Kind
    to: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """A customer of the year. Who is steady neither pauses nor ends, and changes plans at a period's end alone."""

    customer_id: str
    zone: str
    plan: str
    joins_at: datetime
    card: str
    is_steady: bool
    size: float
    """How much they use, in usual customers."""
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """An event, and the step at which it is sent."""

    key: str
    customer_id: str
    occurred_at: datetime
    tokens_in: int
    tokens_out: int
    seconds: int
    sent_at: datetime
    is_sent_twice: bool

    @property
    def is_held_back(self) -> bool:
        """Whether it was sent more than a day after it occurred."""
        return self.sent_at - self.occurred_at > DAY

    def event(self) -> UsageEvent:
        """The same, as an application would say it."""
        items = [_item("llm_prompt", "token", self.tokens_in), _item("llm_completion", "token", self.tokens_out)]
        if self.seconds:
            items.append(_item("stt", "second", self.seconds))
        return UsageEvent(
            tenant_id=TENANT,
            customer_id=self.customer_id,
            key=self.key,
            occurred_at=self.occurred_at,
            items=tuple(items),
        )


def _item(category: str, unit: str, quantity: int) -> Item:
    return Item(category=category, provider=PROVIDER, model=MODEL, unit=unit, quantity=Decimal(quantity))


@dataclass(frozen=True, slots=True)
class Step:
    """A moment to which the clock is moved, and how often each tick is said then: not at all in the outage."""

    at: datetime
    times: Mapping[str, int]

    def says(self, tick: str) -> bool:
        """Whether a tick is said at all."""
        return self.times.get(tick, 0) > 0


@dataclass(frozen=True, slots=True)
class Card:
    """What a card does: whether it declines, charge after charge; one that expires declines for good after that."""

    declines: tuple[bool, ...]
    expires: bool


@dataclass(frozen=True, slots=True)
class Year:
    """All that is going to happen."""

    options: Options
    steps: Sequence[Step]
    people: Sequence[Person]
    uses: Mapping[datetime, Sequence[Use]]
    """by the step at which they are sent"""
    outage: tuple[datetime, datetime]
    cards: Mapping[str, "Card"] = field(default_factory=dict)
    """what cards do that are not always good"""

    @property
    def ends_at(self) -> datetime:
        return self.steps[-1].at

    @property
    def all_uses(self) -> Iterator[Use]:
        for uses in self.uses.values():
            yield from uses


def draw(options: Options, ticks: Sequence[str]) -> Year:
    """A year of these ticks."""
    chance = random.Random(options.seed)
    moments = _moments(options.months)
    outage = _outage(options.months)
    steps = [Step(at, _times(at, moments, outage, ticks, chance)) for at in moments]
    days = [at for at in moments if at.hour == HOUR]
    people = [_person(number, days, chance) for number in range(options.customers)]
    uses: defaultdict[datetime, list[Use]] = defaultdict(list)
    for person in people:
        for use in _uses(person, days, chance):
            uses[use.sent_at].append(use)
    cards = {person.card: _card(person.card, options.months, chance) for person in people if person.card != GOOD_CARD}
    return Year(options, steps, people, uses, outage, cards)


def _moments(months: int) -> list[datetime]:
    """Once a day, and more often on a month's last. It ends on the last day, before the next month begins anywhere."""
    until = _month_later(STARTS_AT, months)
    moments = []
    day = STARTS_AT
    while day < until:
        moments.append(day + timedelta(hours=HOUR))
        if (day + DAY).day == 1 and day + DAY < until:
            moments += [day + timedelta(hours=hour) for hour in HOURS_OF_LAST_DAY]
        day += DAY
    return moments


def _month_later(month: datetime, months: int) -> datetime:
    number = month.year * 12 + month.month - 1 + months
    return month.replace(year=number // 12, month=number % 12 + 1)


def _outage(months: int) -> tuple[datetime, datetime]:
    """Forty days of a year, as much of a shorter one; it takes in the turn of a month."""
    days = max(1, min(OUTAGE_DAYS, OUTAGE_DAYS * months // MONTHS_OF_YEAR))
    turn = _month_later(STARTS_AT, max(1, months // 2))
    begins_at = turn - timedelta(days=max(1, days // 4))
    return begins_at, begins_at + timedelta(days=days)


def _times(
    at: datetime,
    moments: Sequence[datetime],
    outage: tuple[datetime, datetime],
    ticks: Sequence[str],
    chance: random.Random,
) -> dict[str, int]:
    """How often each tick is said: none in the outage, each of them at the end."""
    said = {tick: chance.random() for tick in ticks}
    if outage[0] <= at < outage[1]:
        return {}
    if at == moments[-1]:
        return dict.fromkeys(ticks, 1)
    return {
        tick: 0 if drawn < SKIPPED_SHARE else 2 if drawn < SKIPPED_SHARE + DOUBLED_SHARE else 1
        for tick, drawn in said.items()
    }


GOOD_CARD = "pm_card_visa"
FLAKY_CARD = "pm_card_flaky"
EXPIRING_CARD = "pm_card_expiring"


def _person(number: int, days: Sequence[datetime], chance: random.Random) -> Person:
    """Ten kinds of customers and six zones in turn; all join in the first month, many on its first or last days."""
    role = number % 10
    joins_on = chance.choice((1, 1, 1, 15, 29, 30, 31, chance.randint(2, 28)))
    plan = chance.choice(tuple(PLANS))
    zone = ZONES[number % len(ZONES)]
    joins_at = days[joins_on - 1]
    card = {3: FLAKY_CARD, 4: EXPIRING_CARD}.get(role, GOOD_CARD)
    return Person(
        f"customer-{number:03}",
        zone,
        plan,
        joins_at,
        card if card == GOOD_CARD else f"{card}_{number}",
        is_steady=role < 7,
        size=chance.choice((0.2, 0.5, 1.0, 1.0, 1.5)),
        changes=tuple(_changes(role, plan, zone, [day for day in days if day > joins_at + 3 * DAY], chance)),
    )


def _changes(role: int, plan: str, zone: str, days: Sequence[datetime], chance: random.Random) -> Iterator[Change]:
    """What somebody of this role does in the course of the year, in order."""
    if len(days) < DAYS_TO_CHANGE_MIN:
        return
    first, second = sorted(chance.sample(days[: len(days) * 3 // 4], 2))
    other_plan = chance.choice([one for one in PLANS if one != plan])
    other_zone = chance.choice([one for one in ZONES if one != zone])
    match role:
        case 1:
            yield Change(first, Kind.ZONE, other_zone)
        case 2:
            yield Change(first, Kind.PLAN, other_plan)
            yield Change(second, Kind.ZONE, other_zone)
        case 4:
            yield Change(second, Kind.CARD, GOOD_CARD)
        case 7:
            yield Change(first, Kind.PLAN_NOW, other_plan)
        case 8:
            yield Change(first, Kind.PAUSE)
            yield Change(second, Kind.RESUME)
        case 9:
            yield Change(second, Kind.END)


def _card(name: str, months: int, chance: random.Random) -> Card:
    """A card that declines now and then, or one that is good for a part of the year."""
    if name.startswith(EXPIRING_CARD):
        return Card((False,) * chance.randint(1, max(1, months // 2)), expires=True)
    return Card(tuple(chance.random() < DECLINED_SHARE for _ in range(CHARGES_MAX)), expires=False)


def _uses(person: Person, days: Sequence[datetime], chance: random.Random) -> Iterator[Use]:
    """Some events a week, in the hours before the step that sends them; a few are held back by a device without net."""
    leaves_at = min((one.at for one in person.changes if one.kind is Kind.END), default=None)
    number = 0
    for place, day in enumerate(days):
        if day <= person.joins_at or chance.random() > USED_ON_A_DAY_SHARE or (leaves_at and day > leaves_at):
            continue
        number += 1
        is_held_back = chance.random() < HELD_BACK_SHARE and not leaves_at
        tokens = round(TOKENS_OF_EVENT * person.size * chance.uniform(0.2, 1.8))
        tokens_out = tokens // 8
        yield Use(
            f"{person.customer_id}-{number}",
            person.customer_id,
            day - timedelta(milliseconds=chance.randint(0, 86_399_999)),
            tokens - tokens_out,
            tokens_out,
            chance.randint(10, 300) if chance.random() < 0.2 else 0,
            next((one for one in days[place:] if one.day in HELD_BACK_UNTIL), day) if is_held_back else day,
            chance.random() < SENT_TWICE_SHARE,
        )
