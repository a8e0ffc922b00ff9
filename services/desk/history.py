"""What has happened: usage and ledger page by page, statistics, and usage by hour, day or month. Takes no lock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Generic, TypeVar

from billing.errors import CustomerNotFound, Rejected, TenantNotFound, WalletNotFound
from centavo.events import IDENTIFIER_CHARACTERS_MAX
from db import customers as customer_rows
from db import history as rows
from db.history import Active, Bucket, Collected, EventRow, Group, LedgerRow, MethodSum, Span
from db.session import Connection, in_transaction
from services.books.zones import check_zone
from services.cursors import after, cursor

PAGE_MAX = 200
PAGE = 50
SPAN_MAX = timedelta(days=366)
#: Of a whole tenant, whose events are many: pages are sorted anew for each.
TENANT_SPAN_MAX = timedelta(days=32)
T = TypeVar("T")


class Order(StrEnum):
    """In which order a list comes."""

    NEWEST = "newest"
    OLDEST = "oldest"


class Unit(StrEnum):
    """Into what usage is summed."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class By(StrEnum):
    """By what usage is summed."""

    CUSTOMER = "customer_id"
    USER = "user_id"
    ORGANIZATION = "organization_id"
    OPERATION = "operation"
    FEATURE = "feature"
    SERVICE_TYPE = "service_type"


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and where the list goes on; None: it does not, for now."""

    rows: tuple[T, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose events: of a tenant or one customer, that occurred in a half-open span, with these values.

    A span is at most 366 days for a customer, and 32 for a whole tenant.
    """

    tenant_id: str
    customer_id: str | None
    since: datetime
    until: datetime
    status: str | None = None
    feature: str | None = None
    service_type: str | None = None
    operation: str | None = None
    user_id: str | None = None
    organization_id: str | None = None

    def span(self) -> Span:
        filters = {name: value for name in rows.EVENT_FILTERS if (value := getattr(self, name)) is not None}
        return Span(self.tenant_id, self.customer_id, self.since, self.until, filters)


@dataclass(frozen=True, slots=True)
class Statistics:
    """A span of usage summed up: in groups by status, service type and feature; who used it; what was collected."""

    since: datetime
    until: datetime
    groups: tuple[Group, ...]
    active: Active
    collected: tuple[Collected, ...]
    """Revenue by payments; that of usage, from wallets, is in the groups."""

    @property
    def events(self) -> int:
        return sum(group.events for group in self.groups if group.of == "status")

    @property
    def tokens(self) -> int:
        return sum(group.tokens for group in self.groups if group.of == "status")

    def revenue(self) -> dict[str, Decimal]:
        """What usage of the span has cost by now, by currency; what waits has cost nothing yet."""
        charged = [one for one in self.groups if one.of == "status" and one.name == "charged"]
        return {
            currency: sum((one.cost for one in charged if one.currency == currency), Decimal(0))
            for currency in sorted({one.currency for one in charged if one.currency is not None})
        }


def usage(asked: Asked, *, limit: int = PAGE, at: str | None = None, order: Order = Order.NEWEST) -> Page[EventRow]:
    """A page of usage events, by when they occurred; costs and tokens as they are now, after corrections.

    A cursor goes on where its page ended, whatever was recorded since; it is good for the same question alone. Raises
    `TenantNotFound`, `CustomerNotFound`, `CursorMalformed`, `Rejected` (no such page size, span or value).
    """
    _check(asked, limit)
    question = ("usage", order, *(getattr(asked, name) for name in Asked.__slots__))
    place = after(at, question, (datetime, str)) if at is not None else None

    def work(connection: Connection) -> list[EventRow]:
        _require(connection, asked.tenant_id, asked.customer_id)
        begun = (place[0], place[1]) if place else None
        return rows.events(connection, asked.span(), limit + 1, after=begun, is_ascending=order is Order.OLDEST)

    found = in_transaction(work)
    more = cursor(question, (found[limit - 1].occurred_at, found[limit - 1].key)) if len(found) > limit else None
    return Page(tuple(found[:limit]), more)


@dataclass(frozen=True, slots=True)
class AskedEntries:
    """Whose ledger: a customer's wallet in a currency (or the only one), or all of a tenant's.

    Of what was recorded in a half-open span, and of one kind if told.
    """

    tenant_id: str
    customer_id: str | None
    since: datetime
    until: datetime
    currency: str | None = None
    kind: str | None = None


def ledger(
    asked: AskedEntries, *, limit: int = PAGE, at: str | None = None, order: Order = Order.NEWEST
) -> Page[LedgerRow]:
    """A page of ledger entries: a wallet's in the order of its balances, a tenant's by when they were recorded.

    Raises as `usage`, and `WalletNotFound`.
    """
    _check(asked, limit)
    is_ascending = order is Order.OLDEST
    question = ("ledger", order, *(getattr(asked, name) for name in AskedEntries.__slots__))
    span = (asked.since, asked.until)
    if asked.customer_id is None:
        if asked.currency is not None:
            raise Rejected("a currency is that of a customer's wallet; say whose")
        place = after(at, question, (datetime, int, int)) if at is not None else None
        begun = (place[0], place[1], place[2]) if place else None

        def of_tenant(connection: Connection) -> list[LedgerRow]:
            _require(connection, asked.tenant_id, None)
            return rows.entries_of_tenant(
                connection, asked.tenant_id, span, asked.kind, limit + 1, after=begun, is_ascending=is_ascending
            )

        found = in_transaction(of_tenant)
        return _page(found, limit, question, ("recorded_at", "wallet_id", "seq"))

    seq = after(at, question, (int,))[0] if at is not None else None

    def of_wallet(connection: Connection) -> list[LedgerRow]:
        wallet = (asked.tenant_id, _wallet(connection, asked))
        return rows.entries_of_wallet(
            connection, wallet, span, asked.kind, limit + 1, after=seq, is_ascending=is_ascending
        )

    return _page(in_transaction(of_wallet), limit, question, ("seq",))


def statistics(asked: Asked) -> Statistics:
    """A span of usage summed up, in one snapshot of each kind. Raises as `usage`."""
    _check(asked, 1)

    def work(connection: Connection) -> Statistics:
        _require(connection, asked.tenant_id, asked.customer_id)
        span = asked.span()
        return Statistics(
            asked.since,
            asked.until,
            tuple(rows.groups(connection, span, ("status", "service_type", "feature"))),
            rows.active(connection, span),
            tuple(rows.collected(connection, span)),
        )

    return in_transaction(work)


def by_method(asked: Asked) -> list[MethodSum]:
    """How the usage of a span was paid for, by type of service and in each currency, as it was charged.

    `subscription_included` is what cost a wallet nothing; what payments brought in is in `statistics`. An event that
    was paid for in two ways counts in both. Raises as `usage`.
    """
    return _summed(asked, lambda connection: rows.methods(connection, asked.span()))


def largest(asked: Asked, of: By, limit: int = PAGE) -> list[Group]:
    """The users, organisations, … who used most in a span; those that are told of nobody stand together under None.

    Raises as `usage`.
    """
    return _summed(asked, lambda connection: rows.largest(connection, asked.span(), of.value, limit), limit)


def _summed(asked: Asked, work: Callable[[Connection], list[T]], limit: int = 1) -> list[T]:
    _check(asked, limit)

    def within(connection: Connection) -> list[T]:
        _require(connection, asked.tenant_id, asked.customer_id)
        return work(connection)

    return in_transaction(within)


def aggregated(asked: Asked, unit: Unit, time_zone: str = "UTC") -> list[Bucket]:
    """Charged usage by hour, day or month of a time zone; hours of at most 32 days. Raises as `usage`."""
    _check(asked, 1)
    check_zone(time_zone)
    if unit is Unit.HOUR and asked.until - asked.since > TENANT_SPAN_MAX:
        raise Rejected(f"hours are summed over at most {TENANT_SPAN_MAX.days} days; ask for days")
    return _summed(asked, lambda connection: rows.buckets(connection, asked.span(), unit.value, time_zone))


def _page(found: Sequence[LedgerRow], limit: int, question: Sequence[object], place: Sequence[str]) -> Page[LedgerRow]:
    last = found[limit - 1] if len(found) > limit else None
    more = cursor(question, tuple(getattr(last, name) for name in place)) if last is not None else None
    return Page(tuple(found[:limit]), more)


def check_rows(limit: int) -> None:
    """Raises `Rejected` for what is no number of rows of a page."""
    if not 1 <= limit <= PAGE_MAX:
        raise Rejected(f"a page has 1 to {PAGE_MAX} rows, not {limit}")


def _check(asked: Asked | AskedEntries, limit: int) -> None:
    check_rows(limit)
    if asked.since.tzinfo is None or asked.until.tzinfo is None:
        raise Rejected("a span begins and ends at moments with their zone, such as 2026-11-01T00:00:00Z")
    longest = TENANT_SPAN_MAX if asked.customer_id is None else SPAN_MAX
    if not timedelta() < asked.until - asked.since <= longest:
        whose = "a tenant" if asked.customer_id is None else "a customer"
        raise Rejected(f"a span of {whose} ends after it begins, and is at most {longest.days} days")
    for name in asked.__slots__:
        value = getattr(asked, name)
        if isinstance(value, str) and (not 0 < len(value) <= IDENTIFIER_CHARACTERS_MAX or "\0" in value):
            raise Rejected(f"{name} has 1 to {IDENTIFIER_CHARACTERS_MAX} characters, and no NUL")


def _require(connection: Connection, tenant_id: str, customer_id: str | None) -> None:
    if customer_id is not None and customer_rows.find_customer(connection, tenant_id, customer_id) is not None:
        return
    if not customer_rows.existing_tenants(connection, [tenant_id]):
        raise TenantNotFound(tenant_id=tenant_id)
    if customer_id is not None:
        raise CustomerNotFound(tenant_id=tenant_id, customer_id=customer_id)


def _wallet(connection: Connection, asked: AskedEntries) -> int:
    assert asked.customer_id is not None
    wallets = rows.wallets(connection, asked.tenant_id, asked.customer_id)
    if not wallets:
        _require(connection, asked.tenant_id, asked.customer_id)
    if asked.currency in wallets:
        return wallets[asked.currency]
    if asked.currency is None and len(wallets) == 1:
        return next(iter(wallets.values()))
    if asked.currency is None and wallets:
        raise Rejected(f"customer {asked.customer_id} has wallets in {', '.join(wallets)}; say in which currency")
    has = ", ".join(wallets) or "none"
    raise WalletNotFound(f"customer {asked.customer_id} has no wallet in {asked.currency}; there are: {has}")
