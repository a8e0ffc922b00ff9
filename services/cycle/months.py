"""The month turns: a period follows the last, its fee falls due, its free credits arrive.

Found from rows, never from ticks: whatever period has begun and is not opened is opened, however late the look comes
and however often. A beat that was away for months finds all of them, in order. Set-based, and in chunks: a chunk
holds the wallets of its customers for well under a second.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from uuid import UUID

from billing.grants import Source
from billing.payments import AlertKind, PaymentKind, payment_id
from billing.periods import Period, Terms, begin, missing
from billing.plans import Plan
from billing.subscriptions import Subscription, fee_minor, free_credits_id
from billing.tenant_settings import TenantSettings
from config.logging import logger
from db import grants as grant_rows
from db import months as rows
from db import owed as owed_rows
from db import wallets as wallet_rows
from db.months import Due, KnownPeriod, OpenedPeriod, PeriodKey, SubscriptionRow
from db.owed import NewPayment
from db.session import LOCK_TRIES_OF_PARTS, Connection, in_transaction
from services import alone
from services.books import accounts, catalogue
from services.books.ledger import Gift, Identity, Told, open_wallets, payable_debt, shorten, wallet_in, write
from services.desk import tenant_settings

log = logger(__name__)

#: Customers whose month turns in one transaction.
TURNED_AT_ONCE = 1000
#: A month that can't turn is tried again after this, should a person have mended it.
FAILED_AGAIN_AFTER = timedelta(hours=1)
#: One whose wallets somebody holds is tried again after this: each try holds up those who are in the same chunk.
HELD_AGAIN_AFTER = timedelta(minutes=5)
FREE_CREDITS_REASON = "monthly_free_credits"


@dataclass(frozen=True, slots=True)
class Turned:
    """What a look has done: customers looked at, periods begun, fees that fell due, free credits given."""

    customers: int = 0
    periods: int = 0
    fees: int = 0
    credits: int = 0

    def __add__(self, other: "Turned") -> "Turned":
        return Turned(
            self.customers + other.customers,
            self.periods + other.periods,
            self.fees + other.fees,
            self.credits + other.credits,
        )


@dataclass(slots=True)
class _Chunk:
    """What the turns of some customers come to, before any of it is written."""

    now: datetime
    begun: list[OpenedPeriod] = field(default_factory=list)
    unopened: list[PeriodKey] = field(default_factory=list)
    due: list[Due] = field(default_factory=list)
    opened: list[tuple["_Customer", Period]] = field(default_factory=list)
    on_next_plan: list[Identity] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Customer:
    """A customer whose month turns."""

    row: SubscriptionRow
    periods: Sequence[KnownPeriod]

    @property
    def identity(self) -> Identity:
        return self.row.tenant_id, self.row.customer_id

    @property
    def terms(self) -> Terms:
        return accounts.terms_of(self.row)

    @property
    def subscription(self) -> Subscription:
        return Subscription(self.row.billed_from, self.row.paused_at, self.row.ended_at)


def turn_due(now: datetime) -> Turned:
    """Turn the month of some customers for whom it is time; of nobody when all is done.

    Whose month can't turn is told to a person and tried again in an hour, who is held some minutes later; the others'
    months turn.
    """
    customers: list[Identity] = []
    total = Turned()

    def together() -> int:
        nonlocal total
        total = in_transaction(
            lambda connection: _turn_found(connection, customers, now), lock_tries=LOCK_TRIES_OF_PARTS
        )
        return total.customers

    def by_itself(identity: Identity) -> int:
        nonlocal total
        total += in_transaction(
            lambda connection: _turn_alone(connection, identity, now), lock_tries=LOCK_TRIES_OF_PARTS
        )
        return 1

    def later(identity: Identity, after: timedelta) -> None:
        again = Due(*identity, now + after)
        in_transaction(lambda connection: rows.set_due(connection, [again]))

    def set_aside(identity: Identity, error: Exception) -> None:
        later(identity, FAILED_AGAIN_AFTER)
        alone.tell(identity, AlertKind.MONTH_FAILS, "the month can't turn", error, now)

    began = time.perf_counter()
    alone.worked(together, by_itself, customers, set_aside, lambda identity: later(identity, HELD_AGAIN_AFTER))
    if total.customers:
        took_ms = round((time.perf_counter() - began) * 1000)
        log.info("months turned", **{name: getattr(total, name) for name in Turned.__slots__}, took_ms=took_ms)
    return total


def _turn_found(connection: Connection, customers: list[Identity], now: datetime) -> Turned:
    customers[:] = rows.lock_due(connection, now, TURNED_AT_ONCE)
    if not customers:
        return Turned()
    wallet_rows.lock_of_customers(connection, customers)
    return turn(connection, customers, now)


def _turn_alone(connection: Connection, identity: Identity, now: datetime) -> Turned:
    rows.lock_turns(connection, [identity])
    wallet_rows.lock_of_customers(connection, [identity])
    return turn(connection, [identity], now)


def turn(connection: Connection, customers: Sequence[Identity], now: datetime) -> Turned:
    """Bring these customers up to now: every period that has begun has a row, and is opened.

    The caller holds their turns, and then their wallets.
    """
    subscriptions = rows.subscriptions(connection, customers)
    periods = {key: list(mine) for key, mine in groupby(rows.periods_to_turn(connection, customers), itemgetter(0, 1))}
    chunk = _Chunk(now)
    for row in subscriptions:
        _turn_one(_Customer(row, periods.get((row.tenant_id, row.customer_id), [])), chunk)

    _write_periods(connection, chunk)
    plans = catalogue.plans(connection, {(c.row.tenant_id, *period.plan_key) for c, period in chunk.opened})
    covered = [
        (customer, period, plans[customer.row.tenant_id, *period.plan_key])
        for customer, period in chunk.opened
        if customer.subscription.covers(period)
    ]
    fees = _let_fees_fall_due(connection, covered, now)
    return Turned(len(subscriptions), len(chunk.begun), fees, _give_credits(connection, covered, now))


def as_period(known: KnownPeriod) -> Period:
    """The period of a row."""
    span = (known.starts_at, known.ends_at, known.plan_id, known.plan_version)
    return Period(*span, known.is_closed, time_zone=known.time_zone)


def _turn_one(customer: _Customer, chunk: _Chunk) -> None:
    """One customer's periods up to now, each followed by the next. Whoever has ended has no next one."""
    now, row = chunk.now, customer.row
    known = [as_period(one) for one in customer.periods]
    has_ended = row.ended_at is not None and row.ended_at <= now
    # Rows that are there are joined up even then: usage goes on being counted, whatever became of the subscription.
    until = min(known[-1].starts_at, now) if has_ended and known else now
    begun = _begun(tuple(known), until, customer.terms)
    for one, period in zip(customer.periods, known, strict=True):
        if one.opened_at is None and one.starts_at <= now:
            chunk.unopened.append((*customer.identity, one.starts_at))
            chunk.opened.append((customer, period))
    for period in begun:
        span = (period.starts_at, period.ends_at)
        chunk.begun.append(OpenedPeriod(*customer.identity, *span, *period.plan_key, period.time_zone, now))
        chunk.opened.append((customer, period))
    # Usage may have begun a later one; that opens when its time has come.
    last = max(period for period in (*known, *begun) if period.starts_at <= now)
    chunk.due.append(Due(*customer.identity, None if has_ended and last.ends_at <= now else last.ends_at))
    if row.next_plan_at is not None and row.next_plan_at <= last.starts_at:
        chunk.on_next_plan.append(customer.identity)


@lru_cache(maxsize=1000)
def _begun(known: tuple[Period, ...], until: datetime, terms: Terms) -> tuple[Period, ...]:
    """The periods that are to begin; kept, because a thousand customers of one zone and plan all get the same."""
    return tuple(missing(known, until, terms)) if known else (begin(until, (), terms),)


def _write_periods(connection: Connection, chunk: _Chunk) -> None:
    if chunk.begun:
        rows.begin(connection, chunk.begun)
        accounts.forget((period.tenant_id, period.customer_id) for period in chunk.begun)
    if chunk.unopened:
        rows.open_(connection, chunk.unopened, chunk.now)
    if chunk.due:
        rows.set_due(connection, chunk.due)
    if chunk.on_next_plan:
        rows.turn_plans(connection, chunk.on_next_plan)


_Covered = tuple[_Customer, Period, Plan]
"""A period that has begun, of a subscription that goes on in it, and its plan."""


def _let_fees_fall_due(connection: Connection, covered: Iterable[_Covered], now: datetime) -> int:
    """One payment for each period whose plan has a fee; how many are new. The natural key allows no second."""
    fees = [fee for one in covered if (fee := _fee(connection, *one))]
    if not fees:
        return 0
    return owed_rows.fall_due(connection, fees, now, source="calendar", why="a period has begun")


def _fee(connection: Connection, customer: _Customer, period: Period, plan: Plan) -> NewPayment | None:
    amount = fee_minor(plan, period, customer.terms.calendar, customer.row.billed_from)
    if not amount:
        return None
    natural = (*customer.identity, period.starts_at, PaymentKind.SUBSCRIPTION, 0, 0)
    return NewPayment(
        customer.row.tenant_id,
        payment_id(catalogue.installation(connection), *natural),
        customer.row.customer_id,
        period.starts_at,
        PaymentKind.SUBSCRIPTION.value,
        0,
        0,
        amount,
        plan.payment_currency,
    )


def _give_credits(connection: Connection, covered: Iterable[_Covered], now: datetime) -> int:
    """The free credits of each period, once; how many grants are new.

    They pay for what occurs in the period, and what is left of them is broken when its grace is over.
    """
    installation = catalogue.installation(connection)
    given = list(covered)
    undecided = {customer.row.tenant_id for customer, _, plan in given if plan.free_credits is None}
    chosen = tenant_settings.in_force(connection, undecided) if undecided else {}
    gifts = [
        (customer.identity, plan.free_credits_currency, _gift(installation, customer.identity, period, amount, plan))
        for customer, period, plan in given
        if (amount := _free_credits(plan, chosen.get(customer.row.tenant_id)))
    ]
    known = grant_rows.given(connection, [(i[0], gift.grant_id) for i, _, gift in gifts]) if gifts else set()
    new = [one for one in gifts if (one[0][0], one[2].grant_id) not in known]
    if not new:
        return 0
    rows.add_wallets(connection, sorted({(*identity, currency) for identity, currency, _ in new}), now)
    opened = open_wallets(connection, sorted({identity for identity, _, _ in new}), now)
    for identity, currency, gift in new:
        wallet = wallet_in(opened[identity], identity, currency)
        told = Told("grant", f"grants:{gift.source}", gift.reason, period_start=gift.period_start)
        wallet.give(gift, told, payable_debt(connection, wallet, gift))
    write(connection, [wallet for wallets in opened.values() for wallet in wallets])
    return len(new)


def end_credits(connection: Connection, identity: Identity, period: Period, now: datetime) -> None:
    """Let the free credits of a period that ends here pay for what occurs until now, and no longer.

    What remains of them is broken when the grace is over. The caller holds the customer's wallets.
    """
    plan_key = (identity[0], *period.plan_key)
    plan = catalogue.plans(connection, [plan_key])[plan_key]
    grant_id = free_credits_id(catalogue.installation(connection), *identity, period.starts_at)
    shorten(connection, identity, grant_id, now, now + plan.grace)


def _free_credits(plan: Plan, chosen: TenantSettings | None) -> Decimal | None:
    return plan.free_credits if plan.free_credits is not None or chosen is None else chosen.free_tier_credits


def _gift(installation: UUID, identity: Identity, period: Period, amount: Decimal, plan: Plan) -> Gift:
    return Gift(
        free_credits_id(installation, *identity, period.starts_at),
        amount,
        Source.FREE,
        FREE_CREDITS_REASON,
        valid_from=period.starts_at,
        expires_at=period.ends_at,
        breaks_at=period.ends_at + plan.grace,
        period_start=period.starts_at,
    )
