"""A price list beside the live one: what usage would have cost by it, off the usage path.

From its start on, what is charged is rated by it as well, period by period, by the rules that rate a month again
(`services.metering.rerating`). A period in which something was charged since is rated anew as a whole, since a ladder
may add up over it, and its sums are replaced: so it may run twice, at once or half-way, and the sums are right. No
event, wallet or price is touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial

import msgspec

from billing.errors import (
    AlreadyExists,
    CursorMalformed,
    DatabaseBusy,
    DatabaseSlow,
    NotFound,
    Rejected,
    Stopping,
    TenantNotFound,
    Unavailable,
)
from billing.money import ZERO
from billing.rating import Parking
from billing.rerating import PastEvent, Prices, Rerated
from config.logging import logger
from db import corrections as correction_rows
from db import customers as customer_rows
from db import shadowing as rows
from db.prices import NewPrice
from db.session import Connection, in_transaction
from db.shadowing import DaySum, DuePeriod, ShadowRow
from services.cursors import after, cursor
from services.desk.history import PAGE, Page, check_rows
from services.metering.rerating import RatedPeriod, prices_with, rated_pages

log = logger(__name__)

NAME_CHARACTERS_MAX = 64
PRICES_MAX = 5000
#: Periods of a list that are rated at once.
RATED_AT_ONCE = 50
#: A period is rated again no sooner than after this, and after as much more as it has events.
AGAIN_AFTER = timedelta(minutes=5)
EVENTS_A_SECOND = 1000
#: What leaves no trace in a period's counters is found after so long; what was charged just before a stop, too.
STALE_AFTER = timedelta(days=1)
FAILED_AGAIN_AFTER = timedelta(hours=1)


class ShadowNotFound(NotFound):
    """There is no such price list beside the live one; `centavo prices shadow list` shows what there is."""

    code = "unknown_shadow_list"


@dataclass(frozen=True, slots=True)
class Shadow:
    """A list, without its prices."""

    tenant_id: str
    name: str
    prices: int
    started_at: datetime
    stopped_at: datetime | None


@dataclass(frozen=True, slots=True)
class Shown:
    """What usage has cost, and would have cost by a list: in all by currency, and some days of customers."""

    shadow: Shadow
    totals: tuple[DaySum, ...]
    page: Page[DaySum]


@dataclass(slots=True)
class _Day:
    """What a day comes to while its events go by."""

    events: int = 0
    unrated: int = 0
    live: Decimal = ZERO
    shadow: Decimal = ZERO


@dataclass(slots=True)
class _Sums:
    days: dict[tuple[date, str], _Day] = field(default_factory=dict)

    def add(self, event: PastEvent, rated: Rerated | Parking) -> None:
        """Count an event. What is covered by a plan, and costs nothing by either list, has no currency to count in."""
        is_unrated = isinstance(rated, Parking)
        currency = event.currency if isinstance(rated, Parking) else rated.currency
        if currency is None and not is_unrated:
            return
        day = self.days.setdefault((event.occurred_at.astimezone(UTC).date(), currency or ""), _Day())
        day.events += 1
        day.unrated += is_unrated
        day.live += event.cost
        day.shadow += event.cost if isinstance(rated, Parking) else rated.cost


def start(tenant_id: str, name: str, prices: Sequence[NewPrice], now: datetime) -> Shadow:
    """Rate what is charged from now on by these prices, too; they come before all that the book has for their products.

    Raises `TenantNotFound`, `AlreadyExists` (another list of this name), `Rejected` (no such name, no prices).
    """
    if not 0 < len(name) <= NAME_CHARACTERS_MAX or "\0" in name:
        raise Rejected(f"a price list's name has 1 to {NAME_CHARACTERS_MAX} characters", given=len(name))
    if not 0 < len(prices) <= PRICES_MAX:
        raise Rejected(f"a price list beside the live one has 1 to {PRICES_MAX} prices", given=len(prices))
    said = msgspec.json.encode([one._replace(scope=tenant_id) for one in prices]).decode()

    def work(connection: Connection) -> ShadowRow:
        _require_tenant(connection, tenant_id)
        is_new = rows.start(connection, tenant_id, name, said, now)
        found = _find(connection, tenant_id, name)
        if not is_new and (found.stopped_at is not None or _prices_of(found) != _read(said)):
            raise AlreadyExists("there is, or was, another price list of this name; give this one another", name=name)
        return found

    started = in_transaction(work)
    log.info("shadow prices started", tenant_id=tenant_id, name=name, prices=len(prices))
    return _shadow(started)


def stop(tenant_id: str, name: str, now: datetime) -> Shadow:
    """Rate nothing by a list that is charged from now on; what it came to stays. Raises `ShadowNotFound`."""

    def work(connection: Connection) -> ShadowRow:
        rows.stop(connection, tenant_id, name, now)
        return _find(connection, tenant_id, name)

    stopped = in_transaction(work)
    log.info("shadow prices stopped", tenant_id=tenant_id, name=name)
    return _shadow(stopped)


def lists_of(tenant_id: str) -> list[Shadow]:
    """A tenant's lists beside the live one, stopped ones too, by name. Raises `TenantNotFound`."""

    def work(connection: Connection) -> list[ShadowRow]:
        _require_tenant(connection, tenant_id)
        return rows.of_tenant(connection, tenant_id)

    return [_shadow(one) for one in in_transaction(work)]


def show(
    tenant_id: str, name: str, customer_id: str | None = None, *, limit: int = PAGE, at: str | None = None
) -> Shown:
    """What usage came to by a list, as far as it was rated: in all, and a page by customer and day.

    Raises `ShadowNotFound`, `CursorMalformed`, `Rejected` (no such page).
    """
    check_rows(limit)
    question = ("shadow", tenant_id, name, customer_id)
    place = _place(at, question) if at is not None else None

    def work(connection: Connection) -> tuple[ShadowRow, list[DaySum], list[DaySum]]:
        row = _find(connection, tenant_id, name)
        found = rows.sums(connection, tenant_id, name, customer_id, limit + 1, place)
        return row, rows.totals(connection, tenant_id, name, customer_id), found

    row, totals, found = in_transaction(work)
    last = found[limit - 1] if len(found) > limit else None
    more = cursor(question, (last.customer_id, last.day.isoformat(), last.currency)) if last else None
    return Shown(_shadow(row), tuple(totals), Page(tuple(found[:limit]), more))


def rate_some(now: datetime) -> int:
    """Rate some periods in which something was charged by the lists that there are; how many, 0 when none is due."""
    running = in_transaction(lambda connection: rows.running(connection, now - STALE_AFTER))
    return sum(_rate_list(row, now) for row in running)


def _rate_list(row: ShadowRow, now: datetime) -> int:
    due = in_transaction(lambda connection: rows.due(connection, row, now, now - STALE_AFTER, RATED_AT_ONCE))
    if not due:
        return 0
    prices = in_transaction(lambda connection: prices_with(connection, row.tenant_id, _prices_of(row)))
    for period in due:
        try:
            in_transaction(partial(_rate, row=row, prices=prices, period=period, now=now))
        except (DatabaseSlow, DatabaseBusy) as error:
            whose = {"tenant_id": row.tenant_id, "customer_id": period.customer_id}
            log.warning("a period takes too long", **whose, error=str(error))
        except (Unavailable, Stopping):
            raise
        except Exception:
            log.exception("a period can't be rated", tenant_id=row.tenant_id, customer_id=period.customer_id)
        else:
            continue
        # Nobody else's sums wait for it.
        in_transaction(partial(rows.put_off, row=row, period=period, now=now, due_at=now + FAILED_AGAIN_AFTER))
    return len(due)


def _rate(connection: Connection, row: ShadowRow, prices: Prices, period: DuePeriod, now: datetime) -> None:
    """Rate a period. Reads without a lock, and writes at the end; what is charged meanwhile makes it due again."""
    correction_rows.be_patient(connection)
    until = row.stopped_at or datetime.max.replace(tzinfo=UTC)
    sums = _Sums()
    for page in rated_pages(RatedPeriod(row.tenant_id, period.customer_id, period.period_start, prices), connection):
        for event, rated in page:
            if row.started_at <= event.charged_at < until:
                sums.add(event, rated)
    days = [
        DaySum(period.customer_id, day, currency, one.events, one.unrated, one.live, one.shadow)
        for (day, currency), one in sorted(sums.days.items())
    ]
    wait = AGAIN_AFTER + timedelta(seconds=period.events // EVENTS_A_SECOND)
    rows.keep(connection, row, period, days, now, now + wait)


def _place(at: str, question: Sequence[object]) -> tuple[str, str, str]:
    customer_id, day, currency = after(at, question, (str, str, str))
    try:
        date.fromisoformat(day)
    except ValueError as error:
        raise CursorMalformed from error
    return customer_id, day, currency


def _find(connection: Connection, tenant_id: str, name: str) -> ShadowRow:
    found = rows.find(connection, tenant_id, name)
    if found is None:
        raise ShadowNotFound(tenant_id=tenant_id, name=name)
    return found


def _prices_of(row: ShadowRow) -> list[NewPrice]:
    return _read(row.prices)


def _read(prices: str) -> list[NewPrice]:
    return msgspec.json.decode(prices, type=list[NewPrice])


def _shadow(row: ShadowRow) -> Shadow:
    return Shadow(row.tenant_id, row.name, len(_prices_of(row)), row.started_at, row.stopped_at)


def _require_tenant(connection: Connection, tenant_id: str) -> None:
    if not customer_rows.existing_tenants(connection, [tenant_id]):
        raise TenantNotFound(tenant_id=tenant_id)
