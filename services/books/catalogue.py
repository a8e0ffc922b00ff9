"""What a pool child keeps in memory of plans, prices and quotas, without ever disagreeing with another.

Prices and quotas are kept at one revision of their book, and every transaction compares; plans never change once made.
"""

from collections.abc import Iterable
from uuid import UUID

from billing.plans import Plan
from billing.prices import PriceBook
from billing.quotas import Quota, QuotaBook, Scope
from db import customers as customer_rows
from db import prices as price_rows
from db import quotas as quota_rows
from db import scope
from db.session import Connection, when_lost

PlanKey = tuple[str, str, int]
"""tenant, plan, version"""

_plans: dict[PlanKey, Plan] = {}
_books: dict[str | None, PriceBook] = {}
_quota_books: dict[str | None, QuotaBook] = {}
_named_quotas: dict[tuple[str, int], Quota] = {}
"""by tenant and id"""
_installations: dict[str, UUID] = {}
PLANS_KEPT_MAX = 10_000
BOOKS_KEPT_MAX = 256
#: Some 10 MB.
NAMED_QUOTAS_KEPT_MAX = 20_000


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


def quota_book(connection: Connection, revision: int) -> QuotaBook:
    """The quotas, not older than the revision that this transaction has read."""
    whose = scope.tenant()
    kept = _quota_books.get(whose)
    if kept is None or kept.revision != revision:
        if len(_quota_books) >= BOOKS_KEPT_MAX:
            _quota_books.clear()
        kept = QuotaBook.of(revision, quota_rows.general(connection), quota_rows.named_scopes(connection))
        _quota_books[whose] = kept
    return kept


def named_quotas(connection: Connection, asked: Iterable[tuple[str, Scope, str]]) -> list[Quota]:
    """The quotas that these (tenant, scope, subject) have of their own, as they stand now, in order.

    What may have changed of them is read each time, and all else only once.
    """
    standing = quota_rows.named(connection, asked)
    # Threads share what is kept: another may clear it between two looks.
    found = {(one.tenant_id, one.quota_id): _named_quotas.get((one.tenant_id, one.quota_id)) for one in standing}
    changed = [
        one[:2]
        for one, kept in zip(standing, found.values(), strict=True)
        if kept is None or kept.limit != one.limit or kept.is_hard != one.is_hard
    ]
    if changed:
        fresh = {(quota.tenant_id, quota.quota_id): quota for quota in quota_rows.load(connection, changed)}
        if len(_named_quotas) + len(fresh) > NAMED_QUOTAS_KEPT_MAX:
            _named_quotas.clear()
        _named_quotas.update(fresh)
        found |= fresh
    return [quota for quota in found.values() if quota is not None]


def without_quotas(tenant_id: str) -> int | None:
    """At which revision of the quotas this tenant was seen to have none; None: it has some, or nobody has looked.

    Who runs for one customer is shown no quotas, and learns nothing from that.
    """
    kept = _quota_books.get(scope.tenant())
    if kept is None or scope.customer() is not None or tenant_id in kept.general or tenant_id in kept.named:
        return None
    return kept.revision


def look_for_quotas(connection: Connection, revision: int) -> None:
    """Learn who has quotas, as `without_quotas` tells, at the revision that this transaction has read."""
    if scope.customer() is None:
        quota_book(connection, revision)


def plans(connection: Connection, keys: Iterable[PlanKey]) -> dict[PlanKey, Plan]:
    """The plans of these (tenant, plan, version)."""
    wanted = set(keys)
    # Threads share what is kept: another may clear it between two looks.
    found = {key: plan for key in wanted if (plan := _plans.get(key)) is not None}
    missing = wanted - found.keys()
    if missing:
        for plan in customer_rows.load_plans(connection, sorted(missing)):
            found[plan.tenant_id, plan.plan_id, plan.version] = plan
        if len(_plans) + len(missing) > PLANS_KEPT_MAX:
            _plans.clear()
        _plans.update(found)
    return {key: found[key] for key in wanted}


def installation(connection: Connection) -> UUID:
    """Which database this is; it never changes."""
    if "this" not in _installations:
        _installations["this"] = customer_rows.installation_id(connection)
    return _installations["this"]


def forget() -> None:
    """Keep nothing: for a process that turns to another database."""
    _plans.clear()
    _books.clear()
    _quota_books.clear()
    _named_quotas.clear()
    _installations.clear()


when_lost(forget)
