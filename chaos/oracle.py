"""What had to come of it, reckoned from what was emitted and from plans, prices and grants as plain data.

Plain Python, without any of the project's rules. Two things are taken from what happened, because nothing else could
decide them: which of two payloads came first under a key, and the order in which a wallet's ledger was written.
"""

import decimal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

from chaos.emitted import Content, Emitted, Key, Variant, as_item, hash_of
from chaos.facts import Customer, EventFact, Wallet
from chaos.world import AGE_MAX, AHEAD_MAX, EVERYBODY, QUANTITY_MAX, TOKEN, CustomerOf, PriceOf, World

EXACT = decimal.Context(prec=60, rounding=ROUND_HALF_EVEN)
STEP = Decimal(1).scaleb(-12)
ZERO = Decimal(0)
#: Nothing in a run is as near to a bound as this, however the clocks are moved.
Period = tuple[str, str, datetime]
"""tenant, customer, beginning"""


@dataclass(frozen=True, slots=True)
class Fate:
    """What must become of one event."""

    status: str
    reason: str | None = None
    cost: Decimal = ZERO
    currency: str | None = None
    tokens: int = 0
    period_start: datetime | None = None


@dataclass(slots=True)
class Month:
    """What must come of one period."""

    tokens: int = 0
    events: int = 0
    tiers: int = 0


@dataclass(slots=True)
class Expected:
    """Everything that must be found."""

    deferred: Mapping[Key, str] = field(default_factory=dict)
    fates: dict[Key, Fate] = field(default_factory=dict)
    contents: dict[Key, Content] = field(default_factory=dict)
    inputs: dict[bytes, str] = field(default_factory=dict)
    """the hashes of bytes that must be parked, and why"""
    may_be_inputs: dict[bytes, str] = field(default_factory=dict)
    old: set[Key] = field(default_factory=set)
    """events of the past, from before the run and its quotas"""
    lost: list[Key] = field(default_factory=list)
    unknown_content: list[Key] = field(default_factory=list)
    undecided_found: int = 0
    undecided_absent: int = 0
    months: dict[Period, Month] = field(default_factory=lambda: defaultdict(Month))
    costs: dict[Wallet, Decimal] = field(default_factory=lambda: defaultdict(lambda: ZERO))
    payments: dict[tuple[str, str, datetime, int], int] = field(default_factory=dict)
    """(tenant, customer, period, tier): minor units owed"""


class Oracle:
    """Knows the world, and nothing else."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._customers: dict[Customer, CustomerOf] = {(c.tenant_id, c.customer_id): c for c in world.customers}
        self._tenants = {c.tenant_id for c in world.customers}
        self._plans = {plan.plan_id: plan for plan in world.plans}
        self._prices: dict[tuple[str, tuple[str, str, str, str]], PriceOf] = {
            (price.scope, price.product): price for price in world.prices
        }
        self._months: dict[tuple[str, int, int], datetime] = {}

    def expected(
        self, emitted: Emitted, recorded: Mapping[Key, EventFact], deferred: Mapping[Key, str] | None = None
    ) -> Expected:
        """What must be found, given which payload came first under each key.

        Of what was deferred, `deferred` says how its caller let it end: charged, voided, or still pending.
        """
        found = Expected(deferred=deferred or {})
        for key, variants in emitted.events.items():
            self._settle(found, key, variants, recorded.get(key))
        for wire, is_required in emitted.spoiled.items():
            (found.inputs if is_required else found.may_be_inputs)[hash_of(wire)] = "event_malformed"
        for period, month in found.months.items():
            self._owe(found, period, month)
        return found

    def _settle(self, found: Expected, key: Key, variants: Sequence[Variant], row: EventFact | None) -> None:
        stranger = self._stranger(variants[0].content)
        if stranger is not None:
            for variant in variants:
                side = found.inputs if variant.is_required else found.may_be_inputs
                side[hash_of(variant.wire)] = stranger
            return
        if row is None:
            if any(variant.is_required for variant in variants):
                found.lost.append(key)
            else:
                found.undecided_absent += 1
            return
        chosen = self._chosen(variants, row)
        if chosen is None:
            found.unknown_content.append(key)
            return
        found.undecided_found += not chosen.is_required
        for other in variants:
            if other is not chosen:
                side = found.inputs if other.is_required else found.may_be_inputs
                side[hash_of(other.wire)] = "key_conflict"
        if self._is_old(chosen):
            found.old.add(key)
        self._count(found, key, chosen)

    def _count(self, found: Expected, key: Key, chosen: Variant) -> None:
        wished = found.deferred.get(key, "charged")
        fate = _as_wished(self.fate(chosen.content, chosen.first_at), wished)
        found.fates[key] = fate
        found.contents[key] = chosen.content
        if fate.status == "charged":
            assert fate.period_start is not None
            month = found.months[key[0], chosen.content.customer_id, fate.period_start]
            month.tokens += fate.tokens
            month.events += 1
            if fate.currency is not None:
                wallet = (key[0], chosen.content.customer_id, fate.currency)
                found.costs[wallet] = EXACT.add(found.costs[wallet], fate.cost)

    def _chosen(self, variants: Sequence[Variant], row: EventFact) -> Variant | None:
        """Which payload the row is of. What is archived had its key first, long ago; its lines are in a file."""
        if row.is_archived:
            return next((one for one in variants if self._is_old(one)), None)
        said = _content(row).identity
        return next((one for one in variants if one.content.identity == said), None)

    def _is_old(self, variant: Variant) -> bool:
        """Whether it was there before the run."""
        return variant.first_at < self._world.month_began_at.timestamp()

    def _stranger(self, content: Content) -> str | None:
        if content.tenant_id not in self._tenants:
            return "unknown_tenant"
        return None if (content.tenant_id, content.customer_id) in self._customers else "unknown_customer"

    def fate(self, content: Content, at: float) -> Fate:
        """What must become of an event of a customer that exists, emitted at this moment."""
        customer = self._customers[content.tenant_id, content.customer_id]
        now = datetime.fromtimestamp(at, UTC)
        # Clocks are stepped by minutes; what the stream makes implausible is so by a day and more.
        if content.occurred_at > now + 2 * AHEAD_MAX:
            return Fate("parked", "implausible")
        if content.occurred_at < now - AGE_MAX - AHEAD_MAX:
            return Fate("parked", "too_old")
        if any(quantity > QUANTITY_MAX for *_, quantity in content.items):
            return Fate("parked", "implausible")
        return self._priced(content, customer)

    def _priced(self, content: Content, customer: CustomerOf) -> Fate:
        has_tiers = self._plans[customer.plan_id].tier_size is not None
        cost, tokens, currency = ZERO, 0, None
        for *product, quantity in content.items:
            if product[3] == TOKEN:
                if quantity % 1:
                    return Fate("parked", "implausible")
                tokens += int(quantity)
                if has_tiers:
                    continue
            price = self._price(content.tenant_id, (product[0], product[1], product[2], product[3]))
            if price is None:
                return Fate("parked", "unpriced")
            if currency not in {None, price.currency}:
                return Fate("parked", "mixed_currencies")
            currency = price.currency
            cost = EXACT.add(cost, line_cost(price, quantity))
        if currency is not None and currency not in customer.currencies:
            return Fate("parked", "currency_mismatch")
        period_start = self._month_of(content.occurred_at, customer.zone)
        return Fate("charged", None, cost, currency, tokens, period_start)

    def _price(self, tenant: str, product: tuple[str, str, str, str]) -> PriceOf | None:
        return self._prices.get((tenant, product)) or self._prices.get((EVERYBODY, product))

    def _month_of(self, moment: datetime, zone: str) -> datetime:
        local = moment.astimezone(ZoneInfo(zone))
        key = (zone, local.year, local.month)
        if key not in self._months:
            self._months[key] = datetime(local.year, local.month, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        return self._months[key]

    def _owe(self, found: Expected, period: Period, month: Month) -> None:
        """One payment for each further stretch of tokens begun."""
        tenant, customer, starts_at = period
        plan = self._plans[self._customers[tenant, customer].plan_id]
        if plan.tier_size is None:
            return
        beyond = month.tokens - plan.included_tokens
        month.tiers = max(0, -(-beyond // plan.tier_size))
        for tier in range(1, month.tiers + 1):
            found.payments[tenant, customer, starts_at, tier] = plan.tier_fee_minor


def _as_wished(fate: Fate, wish: str) -> Fate:
    """What waits tells what it would cost; what was cancelled costs nothing. Neither is in a period."""
    if fate.status != "charged" or wish == "charged":
        return fate
    if wish == "pending":
        return replace(fate, status="pending", period_start=None)
    return replace(fate, status=wish, cost=ZERO, tokens=0, period_start=None)


def line_cost(price: PriceOf, quantity: Decimal) -> Decimal:
    """What one line costs: once rounded, to 12 places."""
    if not price.rungs:
        whole = EXACT.multiply(quantity, price.unit_price)
    else:
        whole, floor = ZERO, ZERO
        for top, unit_price in price.rungs:
            upto = quantity if top is None else min(quantity, top)
            if upto > floor:
                whole = EXACT.add(whole, EXACT.multiply(upto - floor, unit_price))
                floor = upto
    return EXACT.divide(whole, price.per).quantize(STEP, ROUND_HALF_EVEN, EXACT)


def _content(row: EventFact) -> Content:
    """What a row says was used."""
    return Content(row.tenant_id, row.customer_id, row.occurred_at, tuple(as_item(item) for item in row.items))
