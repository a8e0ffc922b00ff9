"""What usage would cost, before it happens; and which price a product has."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from billing import quotes as rules
from billing.affordability import Cover
from billing.errors import PriceNotFound, TenantNotFound
from billing.grants import Source
from billing.plans import Plan
from billing.prices import Price, ProductKey
from billing.quotes import Asked, Paid, Quote
from billing.rating import Rated, rate
from centavo import Item
from db import customers as customer_rows
from db import usage as usage_rows
from db.credit_holds import HoldRow
from db.grants import opened
from db.session import Connection, in_transaction
from services.books import catalogue
from services.desk import quoting, standing
from services.desk.standing import Standing


class _EveryCurrency:
    """Of nobody in particular: whatever the prices are in."""

    def __contains__(self, currency: object) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class FoundPrice:
    """The price that usage of a product is rated by at a moment."""

    price: Price
    is_provider_default: bool
    """No price names the model: one of its provider's serves it."""
    is_own: bool
    """The tenant's own, not everybody's."""


def quote(tenant_id: str, customer_id: str | None, items: Sequence[Item], now: datetime) -> Quote:
    """What these items would cost now, for a customer, or for anybody whose plan covers nothing. Takes no lock.

    Rated as their usage would be. Costs are in `Quote.currency`, rounded to 12 places a line. Raises `ItemsMalformed`,
    `PriceNotFound`, `WalletNotFound`, `TenantNotFound`, `CustomerNotFound`.
    """
    quoting.check_items(items)

    def work(connection: Connection) -> Quote:
        if customer_id is None:
            return _for_anybody(connection, tenant_id, items, now)
        found = standing.read(connection, tenant_id, customer_id, now)
        rated = quoting.rate_items(connection, found, items, now)
        revision, has_card = found.row.price_revision, found.row.has_card
        return rules.quote(rated, found.cover(), paid_by(found, rated, now), revision, has_card=has_card)

    return in_transaction(work)


def price_for(tenant_id: str, product: ProductKey, at: datetime) -> FoundPrice:
    """The price of (category, provider, model, unit) for usage that occurs then: the tenant's before everybody's.

    Raises `TenantNotFound`, `PriceNotFound`.
    """

    def work(connection: Connection) -> FoundPrice:
        _require(connection, tenant_id)
        book = catalogue.price_book(connection, usage_rows.price_revision(connection))
        price = book.find(tenant_id, product, at)
        if price is None:
            raise PriceNotFound(f"{'/'.join(product)} has no price at {at.isoformat()}", tenant_id=tenant_id)
        return FoundPrice(price, price.model != product[2], price.scope == tenant_id)

    return in_transaction(work)


def _for_anybody(connection: Connection, tenant_id: str, items: Sequence[Item], now: datetime) -> Quote:
    _require(connection, tenant_id)
    revision = usage_rows.price_revision(connection)
    book = catalogue.price_book(connection, revision)
    bare = Plan(tenant_id, "", 0, "", "", 0, 0, None, 0)
    rated = quoting.or_raise(rate(Asked(tenant_id, "", now, items), bare, _EveryCurrency(), book))
    return rules.quote(rated, Cover(bare), None, revision, has_card=True)


def paid_by(found: Standing, rated: Rated, now: datetime, hold: HoldRow | None = None) -> Paid | None:
    """What the wallet in the currency of the prices would pay from; None where none is needed.

    An open hold pays for usage that names it also from grants that have ended since.
    """
    if rated.currency is None:
        return None
    wallet = found.wallet(rated.currency)
    sources = {grant_id: Source(source) for grant_id, source in wallet.sources.items()}
    kept = (hold.amount - hold.captured, hold.opened_at) if hold and hold.currency == rated.currency else None
    return rules.paid_from(rated.cost, opened(wallet.open_grants), sources, now, kept)


def _require(connection: Connection, tenant_id: str) -> None:
    if not customer_rows.existing_tenants(connection, [tenant_id]):
        raise TenantNotFound(tenant_id=tenant_id)
