"""Items that are asked about are rated as their usage would be: the same book, the same plan, the same rules."""

from collections.abc import Sequence
from datetime import datetime

from billing.errors import ItemsMalformed, PriceNotFound, Rejected, WalletNotFound
from billing.money import written
from billing.quotes import Asked
from billing.rating import Parking, ParkReason, Rated, adds_up, climb, rate
from centavo import Item
from centavo.events import ITEMS_MAX
from config.settings import settings
from db import periods as period_rows
from db.session import Connection
from services.books import catalogue
from services.desk.standing import Standing

#: What usage would be parked for, and what a caller who asks beforehand is told.
_ERRORS: dict[ParkReason, type[Rejected]] = {
    ParkReason.UNPRICED: PriceNotFound,
    ParkReason.CURRENCY_MISMATCH: WalletNotFound,
}


def check_items(items: Sequence[Item]) -> None:
    """Raises `ItemsMalformed` for more, or other, items than an event may have."""
    if not 1 <= len(items) <= ITEMS_MAX:
        raise ItemsMalformed(f"an event has 1 to {ITEMS_MAX} items, not {len(items)}")
    most = settings().quantity_max
    for number, item in enumerate(items):
        if item.quantity > most:
            raise ItemsMalformed(f"items[{number}].quantity {written(item.quantity)} is above {written(most)}")


def rate_items(connection: Connection, standing: Standing, items: Sequence[Item], now: datetime) -> Rated:
    """What a customer's usage of these items would cost now. Takes no lock.

    Raises `PriceNotFound`, `WalletNotFound` (none in the currency of the prices), `ItemsMalformed` (in two
    currencies, or broken tokens).
    """
    book = catalogue.price_book(connection, standing.row.price_revision)
    asked = Asked(standing.tenant_id, standing.customer_id, now, items)
    rated = or_raise(rate(asked, standing.plan, standing.currencies, book))
    return climbed(connection, (standing.tenant_id, standing.customer_id, standing.period.starts_at), rated)


def climbed(connection: Connection, period: tuple[str, str, datetime], rated: Rated) -> Rated:
    """What was rated, with its ladders from where they stand in a (tenant, customer, start of) period."""
    climbing = {line.price.price_id for line in rated.lines if line.price is not None and adds_up(line)}
    return climb(rated, period_rows.climbed(connection, *period, sorted(climbing))) if climbing else rated


def or_raise(rated: Rated | Parking) -> Rated:
    """What was rated; raises what stands against it."""
    if isinstance(rated, Parking):
        raise error_of(rated)
    return rated


def error_of(parking: Parking) -> Rejected:
    """What a caller who waits is told of what a worker would park."""
    return _ERRORS.get(parking.reason, ItemsMalformed)(parking.detail)
