"""The price book: adding to it, looking into it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import product

from billing.errors import AlreadyExists, PriceNotFound, Rejected, TenantNotFound
from billing.prices import EVERYBODY, LadderSpan, Price, PriceBook
from config.logging import logger
from db import customers as customer_rows
from db import prices as rows
from db.prices import NewPrice
from db.session import Connection, in_transaction
from services.cursors import after, cursor
from services.desk.history import PAGE, Page, check_rows

log = logger(__name__)

#: A change of a live price begins at least this much ahead, so that no transaction under way disagrees.
NOTICE = timedelta(seconds=60)
#: A model that no price names: what serves it is a provider's default.
UNKNOWN_MODEL = "\0"


def load_prices(prices: Sequence[NewPrice], now: datetime, *, is_correction: bool = False) -> int:
    """Add prices to the book, all or none; how many are new. What is there already is left alone.

    Where nothing has a price yet, one may start in the past, so that what was parked for it can be replayed.
    What takes the place of another price, be it everybody's or a provider's default, starts at least a minute
    ahead. With `is_correction`, a price that differs from one of the same start is added as its next revision.
    Raises `AlreadyExists`, `Rejected` or `TenantNotFound`, naming the price.
    """
    _refuse_contradictions(prices)

    def work(connection: Connection) -> int:
        _refuse_strangers(connection, prices)
        rows.lock_book(connection)
        known = rows.listed(connection)
        wanted = [price for price in (_to_add(price, known, now, is_correction) for price in prices) if price]
        return rows.add(connection, wanted, now)

    added = in_transaction(work)
    log.info("prices loaded", added=added, given=len(prices))
    return added


def add(price: NewPrice, now: datetime, *, is_correction: bool = False) -> Price:
    """Add one price to the book, and it as it stands there; what is there already is left alone.

    What held before it holds until it begins, and stays in the book. Raises as `load_prices`.
    """
    load_prices([price], now, is_correction=is_correction)

    def work(connection: Connection) -> Price:
        same = [one for one in rows.listed(connection, price.scope, price.provider) if _product(one) == _product(price)]
        starting = [one for one in same if one.effective_from == price.effective_from and _says(one) == _says(price)]
        return max(starting, key=lambda one: one.revision)

    return in_transaction(work)


def end(tenant_id: str, price_id: int, at: datetime, now: datetime) -> Price:
    """Let a tenant's own price hold no longer from a moment on; the entry in the book that says so.

    Everybody's price of the product holds from then on, where there is one; else its usage is parked. Raises
    `PriceNotFound` (the tenant has no such price), and as `load_prices`.
    """
    (found,) = in_transaction(lambda connection: rows.load_some(connection, [price_id])) or (None,)
    if found is None or found.scope != tenant_id:
        raise PriceNotFound("this is no price of the tenant's own", price_id=price_id)
    ending = NewPrice(
        scope=found.scope,
        category=found.category,
        provider=found.provider,
        model=found.model,
        unit=found.unit,
        currency=found.currency,
        unit_price=Decimal(0),
        per=Decimal(1),
        ladder=(),
        ladder_span=LadderSpan.EVENT,
        is_provider_default=found.is_provider_default,
        is_ended=True,
        effective_from=at,
        revision=0,
        description=None,
    )
    return add(ending, now)


def listed(scope: str | None = None, provider: str | None = None) -> list[Price]:
    """The prices of a scope and a provider, or all, in the order of products."""
    return in_transaction(lambda connection: rows.listed(connection, scope, provider))


def page(
    tenant_id: str, provider: str | None = None, *, limit: int = PAGE, at: str | None = None
) -> Page[tuple[Price, bool]]:
    """A page of the prices that a tenant is rated by, its own and everybody's, in the order in which they were added.

    Each with whether it is the tenant's own. Raises `TenantNotFound`, `CursorMalformed`, `Rejected` (no such page).
    """
    check_rows(limit)
    question = ("prices", tenant_id, provider)
    place = after(at, question, (int,))[0] if at is not None else 0

    def work(connection: Connection) -> list[Price]:
        if not customer_rows.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        return [one for scope in (tenant_id, EVERYBODY) for one in rows.listed(connection, scope, provider)]

    # Prices are only added, and never removed: by their id a page ends where the next begins.
    found = sorted((one for one in in_transaction(work) if one.price_id > place), key=lambda one: one.price_id)
    more = cursor(question, (found[limit - 1].price_id,)) if len(found) > limit else None
    return Page(tuple((one, one.scope == tenant_id) for one in found[:limit]), more)


def _refuse_contradictions(prices: Sequence[NewPrice]) -> None:
    """Two prices for one product from one moment on: which is meant?"""
    first: dict[tuple[object, ...], NewPrice] = {}
    for price in prices:
        if _says(first.setdefault((*_product(price), price.effective_from), price)) != _says(price):
            raise AlreadyExists(f"{_named(price)} is given twice from {price.effective_from.isoformat()} on")


def _refuse_strangers(connection: Connection, prices: Sequence[NewPrice]) -> None:
    scopes = {price.scope for price in prices} - {EVERYBODY}
    for tenant_id in sorted(scopes - customer_rows.existing_tenants(connection, sorted(scopes))):
        raise TenantNotFound(tenant_id=tenant_id)


def _to_add(price: NewPrice, known: Sequence[Price], now: datetime, is_correction: bool) -> NewPrice | None:
    same = [one for one in known if _product(one) == _product(price)]
    starting = [one for one in same if one.effective_from == price.effective_from]
    if starting:
        newest = max(starting, key=lambda one: one.revision)
        if _says(newest) == _says(price):
            return None
        if not is_correction:
            raise AlreadyExists(
                f"{_named(price)} has another price from {price.effective_from.isoformat()} on; "
                "correct it with --correct, or let the new price start later",
                scope=price.scope,
            )
        return price._replace(revision=newest.revision + 1)
    if price.effective_from < now + NOTICE and _replaces(price, known, now):
        raise Rejected(
            f"{_named(price)} has a price already; a new one starts at least 60 seconds ahead, "
            f"not at {price.effective_from.isoformat()}",
            scope=price.scope,
        )
    return price


def _replaces(price: NewPrice, known: Sequence[Price], now: datetime) -> bool:
    """Whether this price would take the place of another, for any model or tenant, before the notice has passed."""
    rivals = [one for one in known if _served(one) == _served(price)]
    before, after = PriceBook.of(0, rivals), PriceBook.of(0, [*rivals, _as_price(price)])
    ahead = {one.effective_from for one in rivals if price.effective_from < one.effective_from < now + NOTICE}
    scopes = {price.scope} if price.scope else {EVERYBODY, *(one.scope for one in rivals)}
    models = {UNKNOWN_MODEL, price.model, *(one.model for one in rivals)}
    for at, scope, model in product((price.effective_from, *ahead), scopes, models):
        asked = (price.category, price.provider, model, price.unit)
        held = before.find(scope, asked, at)
        if held is not None and after.find(scope, asked, at) is not held:
            return True
    return False


def _served(price: Price | NewPrice) -> tuple[str, str, str]:
    return price.category, price.provider, price.unit


def _as_price(new: NewPrice) -> Price:
    facts = new._asdict()
    del facts["description"]
    return Price(price_id=0, **facts)


def _product(price: Price | NewPrice) -> tuple[str, ...]:
    return price.scope, price.category, price.provider, price.model, price.unit


def _named(price: NewPrice) -> str:
    return "/".join(_product(price)[1:])


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
