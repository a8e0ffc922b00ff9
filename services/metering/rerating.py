"""Rating months again, at prices that are right now or that are being tried: what would differ, or correcting it.

All charged events of the periods chosen are rated at the prices given. A dry run says what differs, and locks and
writes nothing. Applied, each customer's period is one transaction, under the customer's lock: one entry in each
wallet, with a correction of each event that changed; the events themselves stay as they were charged. What differs is
reckoned from what events cost with all corrections so far, so a second run finds nothing to do. Events go by in
pages, so a period may have millions of them; meanwhile its customer's new usage waits.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import partial

from billing.errors import CustomerNotFound, Rejected, TenantNotFound
from billing.money import ZERO
from billing.prices import Price
from billing.rating import Parking
from billing.rerating import PastEvent, Prices, Rerated, Rerating
from config.logging import logger
from db import corrections as rows
from db import customers as customer_rows
from db import prices as price_rows
from db.prices import NewPrice
from db.session import Connection, in_transaction
from db.usage import price_revision
from services.books import catalogue
from services.books.correcting import Correcting, refuse_archived
from services.books.ledger import open_wallets, write

log = logger(__name__)

REASON_CHARACTERS_MAX = 500
_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Whole days, from `since` to before `until`, each by the clock of whoever it is about."""

    since: date
    until: date

    @classmethod
    def month(cls, text: str) -> "Span":
        """A month, written like 2026-10. Raises `Rejected`."""
        match = _MONTH.fullmatch(text)
        if match is None or not 1 <= int(match[2]) <= 12 or int(match[1]) == 0:
            raise Rejected(f"{text!r} is not a month; write it like 2026-10")
        year, month = int(match[1]), int(match[2])
        return cls(date(year, month, 1), date(year + month // 12, month % 12 + 1, 1))


@dataclass(frozen=True, slots=True)
class Asked:
    """What to rate again, at which prices, and why. Without prices, at those of the book as it stands now.

    Prices that are given come before all that the book has for the products they list, from ever.
    """

    tenant_id: str
    span: Span
    prices: tuple[NewPrice, ...] | None = None
    customers: tuple[str, ...] | None = None
    reason: str = "rerated"


@dataclass(frozen=True, slots=True)
class Sum:
    """What a customer's usage comes to in one currency, before and after."""

    currency: str
    old: Decimal = ZERO
    new: Decimal = ZERO

    @property
    def difference(self) -> Decimal:
        return self.new - self.old


PeriodKey = tuple[str, str, datetime]
"""tenant, customer, start"""

Page = list[tuple[PastEvent, Rerated | Parking]]
"""events with what they cost at the prices asked for, or why that can't be said"""


@dataclass(frozen=True, slots=True)
class RatedPeriod:
    """One period of one customer, and the prices at which it is rated."""

    tenant_id: str
    customer_id: str
    starts_at: datetime
    prices: Prices


@dataclass(slots=True)
class CustomerResult:
    """What rating again makes of one customer: events looked at and changed, sums, and what could not be rated."""

    customer_id: str
    events: int = 0
    changed: int = 0
    old: dict[str, Decimal] = field(default_factory=dict)
    new: dict[str, Decimal] = field(default_factory=dict)
    unrated: Counter[str] = field(default_factory=Counter)
    """reason: number of events, which stay as they are"""

    @property
    def sums(self) -> list[Sum]:
        """By currency, in order."""
        return [Sum(one, self.old[one], self.new[one]) for one in sorted(self.old)]

    def count(self, page: Page) -> None:
        """Note some events."""
        for event, rated in page:
            self.events += 1
            if isinstance(rated, Parking):
                self.unrated[rated.reason.value] += 1
                self._add(event.currency, event.cost, event.cost)
            else:
                self.changed += bool(rated.difference)
                self._add(rated.currency, event.cost, rated.cost)

    def join(self, other: "CustomerResult") -> None:
        """Take in what another period of the customer came to."""
        self.events += other.events
        self.changed += other.changed
        self.unrated += other.unrated
        for currency in other.old:
            self._add(currency, other.old[currency], other.new[currency])

    def _add(self, currency: str | None, old: Decimal, new: Decimal) -> None:
        if currency is not None:
            self.old[currency] = self.old.get(currency, ZERO) + old
            self.new[currency] = self.new.get(currency, ZERO) + new


OnPeriod = Callable[[int, int], None]
"""hears of each period that is done: how many are, of how many"""


def rerate(
    asked: Asked, now: datetime, *, is_applied: bool, on_period: OnPeriod = lambda _done, _of: None
) -> list[CustomerResult]:
    """Rate what was charged in a span again; what differs for each customer, in the order of their ids.

    A period is in the span if its middle is, by the clock of its zone. Raises `TenantNotFound`, `CustomerNotFound`,
    `UsageArchived`, `Rejected` (no reason, or too long).
    """
    if not 0 < len(asked.reason) <= REASON_CHARACTERS_MAX:
        raise Rejected(f"a reason has 1 to {REASON_CHARACTERS_MAX} characters", given=len(asked.reason))
    periods = in_transaction(lambda connection: _chosen(connection, asked))
    book = _Book(asked)
    results: dict[str, CustomerResult] = {}
    for done, (customer_id, starts_at) in enumerate(periods, 1):
        period = (asked.tenant_id, customer_id, starts_at)
        work = partial(_apply, period, book, now) if is_applied else partial(_look, period, book)
        result = in_transaction(work)
        results.setdefault(customer_id, CustomerResult(customer_id)).join(result)
        on_period(done, len(periods))
    found = [one for one in results.values() if one.events]
    log.info(
        "usage rated again",
        tenant_id=asked.tenant_id,
        customers=len(found),
        events=sum(one.events for one in found),
        changed=sum(one.changed for one in found),
        is_applied=is_applied,
        reason=asked.reason,
    )
    return found


def _chosen(connection: Connection, asked: Asked) -> list[tuple[str, datetime]]:
    if asked.tenant_id not in customer_rows.existing_tenants(connection, [asked.tenant_id]):
        raise TenantNotFound(tenant_id=asked.tenant_id)
    for customer_id in asked.customers or ():
        if customer_rows.find_customer(connection, asked.tenant_id, customer_id) is None:
            raise CustomerNotFound(tenant_id=asked.tenant_id, customer_id=customer_id)
    periods = rows.periods_between(connection, asked.tenant_id, asked.span.since, asked.span.until, asked.customers)
    refuse_archived(connection, asked.tenant_id, periods)
    return periods


@dataclass(slots=True)
class _Book:
    """The prices of a run, which may take long: they are read again when the book has moved.

    What was charged meanwhile, at prices that came meanwhile, would otherwise go back to those of before.
    """

    asked: Asked
    revision: int | None = None
    prices: Prices | None = None

    def now(self, connection: Connection) -> Prices:
        """For whoever has locked the wallets: not older than what their usage was charged by."""
        revision = price_revision(connection)
        if self.prices is None or revision != self.revision:
            self.prices = prices_with(connection, self.asked.tenant_id, self.asked.prices or ())
            self.revision = revision
        return self.prices


def prices_with(connection: Connection, tenant_id: str, given: Iterable[NewPrice]) -> Prices:
    """The book's prices for a tenant, with some given before them."""
    return Prices.of(price_rows.load_all(connection), tenant_id, [_as_price(new) for new in given])


def _as_price(new: NewPrice) -> Price:
    facts = new._asdict()
    del facts["description"]
    return Price(price_id=0, **facts)


def _look(period: PeriodKey, book: _Book, connection: Connection) -> CustomerResult:
    """What would differ. Locks nothing."""
    rows.be_patient(connection)
    result = CustomerResult(period[1])
    for page in rated_pages(RatedPeriod(*period, book.now(connection)), connection):
        result.count(page)
    return result


def _apply(period: PeriodKey, book: _Book, now: datetime, connection: Connection) -> CustomerResult:
    """Correct it: wallets, then the period's row, then corrections, entries and grants."""
    rows.be_patient(connection)
    tenant_id, customer_id, starts_at = period
    identity = (tenant_id, customer_id)
    wallets = open_wallets(connection, [identity], now, with_ended=True).get(identity, [])
    locked = rows.lock_period(connection, *period)
    if locked.archive_id is not None:
        refuse_archived(connection, tenant_id, [(customer_id, starts_at)])
    correcting = Correcting(connection, locked, wallets, book.asked.reason, now)
    result = CustomerResult(customer_id)
    for page in rated_pages(RatedPeriod(*period, book.now(connection)), connection):
        changed = [one for _, one in page if isinstance(one, Rerated) and one.is_changed]
        burned = correcting.burned([one.event for one in changed])
        for one in changed:
            correcting.rerate(one.event, one.lines, one.currency, burned.get(one.event.key, {}))
            correcting.climb(one.climbs)
        correcting.flush()
        result.count(page)
    correcting.enter("correction")
    write(connection, wallets)
    return result


def rated_pages(period: RatedPeriod, connection: Connection) -> Iterator[Page]:
    """The events of a period at the prices asked for, page by page.

    Where a price adds up over the period, all of it is counted before.
    """
    identity = (period.tenant_id, period.customer_id, period.starts_at)
    plan_key = rows.plan_of(connection, *identity)
    plan = catalogue.plans(connection, [plan_key])[plan_key]
    currencies = rows.currencies_of(connection, period.tenant_id, period.customer_id)
    rerating = Rerating(period.prices, plan, currencies)
    if period.prices.climbing:
        for page in rows.of_period(connection, *identity):
            for event in page:
                rerating.count(event)
        rerating.settle()
    for page in rows.of_period(connection, *identity):
        yield [(event, rerating.rate(event)) for event in page]


def totals(results: Sequence[CustomerResult]) -> list[Sum]:
    """What all customers come to, by currency."""
    whole = CustomerResult("")
    for one in results:
        whole.join(one)
    return whole.sums
