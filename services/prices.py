"""The price book: adding to it, looking into it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from billing.errors import AlreadyExists, Rejected
from billing.prices import Price
from config.logging import logger
from db import prices as rows
from db.prices import NewPrice
from db.session import Connection, in_transaction

log = logger(__name__)

#: A change of a live price begins at least this much ahead, so that no transaction under way disagrees.
NOTICE = timedelta(seconds=60)


def load_prices(prices: Sequence[NewPrice], now: datetime, *, is_correction: bool = False) -> int:
    """Add prices to the book, all or none; how many are new. What is there already is left alone.

    A product's first price may start in the past, so that what was parked for it can be replayed. A change
    starts at least a minute ahead. With `is_correction`, a price that differs from one of the same start is
    added as its next revision. Raises `AlreadyExists` or `Rejected`, naming the price.
    """

    def work(connection: Connection) -> int:
        rows.lock_book(connection)
        known = rows.listed(connection)
        wanted = [price for price in (_to_add(price, known, now, is_correction) for price in prices) if price]
        return rows.add(connection, wanted, now)

    added = in_transaction(work)
    log.info("prices loaded", added=added, given=len(prices))
    return added


def listed(scope: str | None = None, provider: str | None = None) -> list[Price]:
    """The prices of a scope and a provider, or all, in the order of products."""
    return in_transaction(lambda connection: rows.listed(connection, scope, provider))


def _to_add(price: NewPrice, known: Sequence[Price], now: datetime, is_correction: bool) -> NewPrice | None:
    product = (price.scope, price.category, price.provider, price.model, price.unit)
    same = [one for one in known if (one.scope, *one.product) == product]
    starting = [one for one in same if one.effective_from == price.effective_from]
    if starting:
        newest = max(starting, key=lambda one: one.revision)
        if _says(newest) == _says(price):
            return None
        if not is_correction:
            raise AlreadyExists(
                f"{'/'.join(product[1:])} has another price from {price.effective_from.isoformat()} on; "
                "correct it with --correct, or let the new price start later",
                scope=price.scope,
            )
        return price._replace(revision=newest.revision + 1)
    if same and price.effective_from < now + NOTICE:
        raise Rejected(
            f"{'/'.join(product[1:])} has a price already; a new one starts at least 60 seconds ahead, "
            f"not at {price.effective_from.isoformat()}",
            scope=price.scope,
        )
    return price


def _says(price: Price | NewPrice) -> tuple[object, ...]:
    return (
        price.currency,
        price.unit_price,
        price.per,
        price.ladder,
        price.ladder_span,
        price.is_provider_default,
        price.is_ended,
    )
