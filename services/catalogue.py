"""What a pool child keeps in memory of plans and prices, without ever disagreeing with another.

Prices are kept at one revision of the book, and every transaction compares; plans never change once made.
"""

from collections.abc import Iterable
from uuid import UUID

from billing.plans import Plan
from billing.prices import PriceBook
from db import customers as customer_rows
from db import prices as price_rows
from db import scope
from db.session import Connection

PlanKey = tuple[str, str, int]
"""tenant, plan, version"""

_plans: dict[PlanKey, Plan] = {}
_books: dict[str | None, PriceBook] = {}
_installations: dict[str, UUID] = {}
PLANS_KEPT_MAX = 10_000
BOOKS_KEPT_MAX = 256


def price_book(connection: Connection, revision: int) -> PriceBook:
    """The price book, not older than the revision that this transaction has read.

    What runs for a tenant is shown no other tenant's prices, so its book is its own; the worker has one for all.
    """
    whose = scope.tenant()
    kept = _books.get(whose)
    if kept is None or kept.revision != revision:
        if len(_books) >= BOOKS_KEPT_MAX:
            _books.clear()
        kept = PriceBook.of(revision, price_rows.load_all(connection))
        _books[whose] = kept
    return kept


def plans(connection: Connection, keys: Iterable[PlanKey]) -> dict[PlanKey, Plan]:
    """The plans of these (tenant, plan, version)."""
    wanted = set(keys)
    missing = wanted - _plans.keys()
    if missing:
        if len(_plans) + len(missing) > PLANS_KEPT_MAX:
            _plans.clear()
            missing = wanted
        for plan in customer_rows.load_plans(connection, sorted(missing)):
            _plans[plan.tenant_id, plan.plan_id, plan.version] = plan
    return {key: _plans[key] for key in wanted}


def installation(connection: Connection) -> UUID:
    """Which database this is; it never changes."""
    if "this" not in _installations:
        _installations["this"] = customer_rows.installation_id(connection)
    return _installations["this"]


def forget() -> None:
    """Keep nothing: for a process that turns to another database."""
    _plans.clear()
    _books.clear()
    _installations.clear()
