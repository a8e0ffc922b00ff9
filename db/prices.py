"""The price book's rows."""

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from billing.prices import LadderSpan, Price, Rung
from db.session import Connection

_COLUMNS = (
    "price_id, scope, category, provider, model, unit, currency, unit_price, effective_from, revision, per, ladder, "
    "ladder_span, is_provider_default, is_ended"
)

_ALL = f"SELECT {_COLUMNS} FROM prices"  # noqa: S608 - column names of ours, no input

_OF_SCOPE = f"""
SELECT {_COLUMNS} FROM prices
WHERE (%(scope)s::text IS NULL OR scope = %(scope)s) AND (%(provider)s::text IS NULL OR provider = %(provider)s)
ORDER BY scope, provider, category, model, unit, effective_from, revision
"""  # noqa: S608 - column names of ours, no input

_ADD = """
INSERT INTO prices (scope, category, provider, model, unit, currency, unit_price, per, ladder, ladder_span,
    is_provider_default, is_ended, effective_from, revision, description, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (scope, category, provider, model, unit, effective_from, revision) DO NOTHING
"""


class NewPrice(NamedTuple):
    """A price to add to the book."""

    scope: str
    category: str
    provider: str
    model: str
    unit: str
    currency: str
    unit_price: Decimal
    per: Decimal
    ladder: tuple[Rung, ...]
    ladder_span: LadderSpan
    is_provider_default: bool
    is_ended: bool
    effective_from: datetime
    revision: int
    description: str | None


def load_all(connection: Connection) -> list[Price]:
    """Every price there is. Takes no lock."""
    return [_price(row) for row in connection.execute(_ALL)]


def load_some(connection: Connection, price_ids: Collection[int]) -> list[Price]:
    """The prices with these ids. Takes no lock."""
    return [_price(row) for row in connection.execute(f"{_ALL} WHERE price_id = ANY(%s)", (list(price_ids),))]


def listed(connection: Connection, scope: str | None = None, provider: str | None = None) -> list[Price]:
    """Prices in the order of their products, of one scope and provider or of all."""
    return [_price(row) for row in connection.execute(_OF_SCOPE, {"scope": scope, "provider": provider})]


def lock_book(connection: Connection) -> None:
    """One writer of prices at a time: locks the single row of the book."""
    connection.execute("SELECT revision FROM price_book FOR UPDATE")


def add(connection: Connection, prices: Sequence[NewPrice], now: datetime) -> int:
    """Add prices to the book, which moves its revision; how many were new. The unique key skips what is there."""
    added = 0
    for price in prices:
        ladder = Jsonb([[_text(rung.up_to), str(rung.unit_price)] for rung in price.ladder]) if price.ladder else None
        values = (*price[:8], ladder, price.ladder_span.value, *price[10:], now)
        added += connection.execute(_ADD, values).rowcount
    return added


def _text(number: Decimal | None) -> str | None:
    return None if number is None else str(number)


def _price(row: Sequence[object]) -> Price:
    values: list[Any] = list(row)
    ladder = values[11] or []
    values[11] = tuple(Rung(None if top is None else Decimal(top), Decimal(price)) for top, price in ladder)
    values[12] = LadderSpan(values[12])
    return Price(*values)
