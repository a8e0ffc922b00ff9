"""A year in a sandbox of its own: the real tasks on real workers, while this process plays beat in a time of its own.

Step by step the clock of all is moved on. Customers join and change their minds, usage goes out through the real
producer, the ticks are said, and whatever they find is done before the next step.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from billing.prices import LadderSpan
from centavo import Producer
from config import clock
from config.settings import settings
from db import happened
from db.happened import MonthSum
from db.prices import NewPrice
from db.session import Connection, in_transaction
from sandbox import year_plan as plan
from sandbox.clocks import move_both
from sandbox.stack import Stack
from sandbox.stripe_double.control import SUCCEED, DoubleControl, decline
from sandbox.year_beat import Beat, YearFailed, all_ticks, beating
from sandbox.year_compared import Facts, compared
from sandbox.year_expected import Month, expected
from sandbox.year_plan import Change, Kind, Options, Person, Step, Use, Year
from services.books import customers, tenants
from services.collecting import cards, topups
from services.collecting.gateways import gateway
from services.cycle import subscriptions
from services.desk import prices
from services.oversight.audit import Audit, audit

FLUSH_SECONDS = 30.0
PAYMENTS_CHILDREN = 3
#: As fast as it may be: a month's first is one moment here. A sweep hands out as much as five seconds of that.
PACE = {"payments_per_second": 100, "sweep_seconds": 5.0}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the year is."""

    at: datetime
    steps: int
    steps_done: int
    customers: int
    events: int
    ticks: int
    is_outage: bool


@dataclass(slots=True)
class Watch:
    """What somebody who looks on is told."""

    on_step: Callable[[str], None] = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Report:
    """How the year ended; `contradictions` says in words where it is not what it had to be."""

    year: Year
    expected: Mapping[str, Sequence[Month]]
    facts: Facts
    months: Sequence[MonthSum]
    said: Mapping[str, int]
    contradictions: Sequence[str]
    audit: Audit
    seconds: float

    @property
    def steady(self) -> list[str]:
        """Who neither paused nor ended, and changed plans at a period's end alone."""
        return [person.customer_id for person in self.year.people if person.is_steady]

    @property
    def fees_and_resets(self) -> tuple[int, int]:
        """How many fees and resets there are of those who are steady."""
        steady = set(self.steady)
        fees = sum(one.kind == "subscription" and one.customer_id in steady for one in self.facts.payments)
        return fees, sum(one.source == "free" and one.customer_id in steady for one in self.facts.grants)

    @property
    def difference_list(self) -> list[str]:
        """Every contradiction in words; of one check of the audit, the first."""
        shown = [f"{one.check}: {one.subject}: expected {one.expected}, found {one.actual}" for one in self.audit.shown]
        return [*self.contradictions, *shown]

    @property
    def differences(self) -> int:
        return len(self.contradictions) + self.audit.differences

    @property
    def holds(self) -> bool:
        return not self.differences


def run(stack: Stack, options: Options, watch: Watch) -> Report:
    """Let a year pass on a fresh stack, and compare what happened with what had to."""
    began = time.monotonic()
    year = plan.draw(options, all_ticks())
    watch.on_step("workers")
    pace = {f"CENTAVO_{name.upper()}": str(value) for name, value in PACE.items()}
    stack.start_workers(1, PAYMENTS_CHILDREN, with_beat=False, **pace)
    watch.on_step(f"{options.months} months, in {len(year.steps):,} steps")
    with beating(stack) as beat, Producer(stack.addresses.broker_url, shards=settings().usage_shards) as producer:
        world = _World(stack, year, beat, producer)
        for number, step in enumerate(year.steps, 1):
            world.live(step)
            watch.on_progress(_progress(world, step, number))
    watch.on_step("the reckoning, and the audit")
    return _report(world, time.monotonic() - began)


def _progress(world: "_World", step: Step, number: int) -> Progress:
    is_outage = world.year.outage[0] <= step.at < world.year.outage[1]
    said = sum(world.beat.said.values())
    return Progress(step.at, len(world.year.steps), number, world.joined, world.emitted, said, is_outage)


@dataclass(slots=True)
class _World:
    """Everything that goes on."""

    stack: Stack
    year: Year
    beat: Beat
    producer: Producer
    joined: int = 0
    emitted: int = 0
    joining: dict[datetime, list[Person]] = field(default_factory=dict)
    changes: dict[datetime, list[tuple[str, Change]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for person in self.year.people:
            self.joining.setdefault(person.joins_at, []).append(person)
            for change in person.changes:
                self.changes.setdefault(change.at, []).append((person.customer_id, change))

    def live(self, step: Step) -> None:
        """All of one step: usage first, then what people do, then what the ticks find."""
        is_first = step is self.year.steps[0]
        move_both(self.stack.addresses.stripe_api_base, clock.offset_for(step.at, is_back=is_first))
        if is_first:
            _set_the_scene(DoubleControl(self.stack.addresses.stripe_api_base), self.year, step.at)
        self._use(self.year.uses.get(step.at, ()))
        if joining := self.joining.get(step.at):
            _join(joining, step.at)
            self.joined += len(joining)
        for customer_id, change in self.changes.get(step.at, ()):
            _make(customer_id, change)
        self.beat.say(step)

    def _use(self, uses: Sequence[Use]) -> None:
        """Send this step's events, some of them twice.

        They are recorded while the ticks do their work. But what was held back may belong to a month that is closed
        in this very step; which of the two comes first is settled here.
        """
        if not uses:
            return
        events = [use.event() for use in uses]
        for event in (*events, *(event for event, use in zip(events, uses, strict=True) if use.is_sent_twice)):
            self.producer.emit(event)
        if unsent := self.producer.flush(FLUSH_SECONDS):
            raise YearFailed(f"{unsent} events could not be sent to the broker")
        self.emitted += len(events)
        if any(use.is_held_back for use in uses):
            self.beat.wait()


def _set_the_scene(control: DoubleControl, year: Year, now: datetime) -> None:
    tenants.create_tenant(plan.TENANT, "A year", now)
    tenants.load_plans(plan.TENANT, list(plan.PLANS.values()), now)
    prices.load_prices([_price(*product, price) for product, price in plan.PRICES.items()], now)
    for name, card in year.cards.items():
        steps = [decline("insufficient_funds") if declines else SUCCEED for declines in card.declines]
        control.script_card(name, steps, then=decline("expired_card") if card.expires else SUCCEED)


def _price(category: str, unit: str, unit_price: Decimal) -> NewPrice:
    product = ("", category, plan.PROVIDER, plan.MODEL, unit, plan.CURRENCY)
    costs = (unit_price, Decimal(1), (), LadderSpan.EVENT)
    return NewPrice(*product, *costs, False, False, plan.STARTS_AT, 0, None)


def _join(people: Sequence[Person], now: datetime) -> None:
    customers.create_customers(
        [customers.NewCustomer(plan.TENANT, one.customer_id, one.plan, one.zone, (plan.CURRENCY,)) for one in people],
        now,
    )
    for one in people:
        cards.attach(plan.TENANT, one.customer_id, one.card, gateway(), now)
        if not plan.PLANS[one.plan].has_tiers:
            offer = topups.Offer(plan.TOP_UP_CREDITS, plan.TOP_UP_MINOR, "BRL")
            rule = (plan.CURRENCY, plan.TOP_UP_BELOW, offer, plan.TOP_UP_CAP_MINOR)
            topups.set_rule(plan.TENANT, one.customer_id, *rule, now)


def _make(customer_id: str, change: Change) -> None:
    who = (plan.TENANT, customer_id)
    match change.kind:
        case Kind.ZONE:
            subscriptions.change_zone(*who, change.to, change.at)
        case Kind.PLAN:
            subscriptions.change_plan(*who, change.to, change.at)
        case Kind.PLAN_NOW:
            subscriptions.change_plan(*who, change.to, change.at, subscriptions.At.NOW)
        case Kind.PAUSE:
            subscriptions.pause(*who, change.at)
        case Kind.RESUME:
            subscriptions.resume(*who, change.at)
        case Kind.END:
            subscriptions.end(*who, change.at)
        case Kind.CARD:
            cards.attach(*who, change.to, gateway(), change.at)


def _report(world: _World, seconds: float) -> Report:
    year, reckoned = world.year, expected(world.year)
    taken = DoubleControl(world.stack.addresses.stripe_api_base).ledger()

    def read(connection: Connection) -> tuple[Facts, list[MonthSum]]:
        asked = (connection, plan.TENANT)
        facts = Facts(
            happened.periods(*asked),
            happened.payments(*asked),
            happened.grants(*asked),
            happened.wallets(*asked),
            happened.statements(*asked),
            happened.fee_lines(*asked),
            taken,
        )
        return facts, happened.months(*asked)

    facts, months = in_transaction(read)
    audited = audit()
    contradictions = [*_of_counts(year, reckoned, audited), *compared(reckoned, facts, year.ends_at)]
    return Report(year, reckoned, facts, months, Counter(world.beat.said), contradictions, audited, seconds)


def _of_counts(year: Year, reckoned: Mapping[str, Sequence[Month]], audited: Audit) -> list[str]:
    """Each event charged once and none parked; and a year of so many months for whoever is steady."""
    counted, uses = audited.counts["charged"], sum(1 for _ in year.all_uses)
    found = [f"{uses} events were sent, {counted} are charged"] if uses != counted else []
    if audited.parked:
        found.append(f"{audited.parked} inputs are parked")
    wanted = year.options.months
    steady = {person.customer_id for person in year.people if person.is_steady}
    for name in sorted(steady):
        paid = sum(month.is_covered for month in reckoned[name])
        if paid != wanted:
            found.append(f"{name}: the reckoning has {paid} months to pay for, not {wanted}")
    return found
