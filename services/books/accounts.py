"""Customers as the usage path sees them, kept between transactions and verified under their locks.

Reading customers, wallets and periods anew took a quarter of what an event costs the database. So a pool child
keeps them. Every change of what is kept moves a revision on the customer's wallets (triggers see to that), and
whoever has locked the wallets compares: what was out of date is read again, and the transaction with it.

On which terms new periods begin is read only of customers who have no period of now. Others need it for very late
usage alone, and each look by a key costs what matters most where customers are many. Likewise a customer's own quotas
are read where somebody of the tenant has some.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from billing.periods import Calendar, Period, PlanKey, Terms
from billing.plans import Plan
from billing.quotas import Quota, Scope
from config.settings import settings
from db import usage as rows
from db.session import Connection, when_lost
from db.usage import AccountRow, AccountWallet, PeriodRow
from services.books import catalogue

Identity = tuple[str, str]
"""tenant, customer"""

#: Some 15 MB.
KEPT_MAX = 20_000
#: Beginnings of periods are read as far back as an event may lie, and two months more.
TWO_MONTHS = timedelta(days=62)

_kept: dict[Identity, "Account"] = {}


class TermsUnread(Exception):
    """On which terms a customer's new periods begin is needed, and was not read."""


@dataclass(slots=True)
class Account:
    """A customer: with which wallets and periods, on which plans.

    Read-only once it is kept, but for what is read later: by `own_quotas`.
    """

    known_terms: Terms | None
    wallets: dict[str, int] = field(default_factory=dict)
    """currency: wallet"""
    revisions: tuple[tuple[int, int], ...] = ()
    """(wallet, revision of the account) of every wallet"""
    periods: tuple[Period, ...] = ()
    plans: dict[PlanKey, Plan] = field(default_factory=dict)
    """those of the periods, and of the terms that are known"""
    own_quotas: tuple[Quota, ...] | None = None
    """None: not read"""

    @property
    def terms(self) -> Terms:
        """On which new periods begin. Raises `TermsUnread`."""
        if self.known_terms is None:
            raise TermsUnread
        return self.known_terms


def find(connection: Connection, asked: set[Identity], now: datetime) -> tuple[dict[Identity, Account], bool]:
    """Those customers that exist, and whether any of them is not fresh from the database."""
    kept = {identity: account for identity in asked if (account := _kept.get(identity))}
    missing = asked - kept.keys()
    return (kept | read(connection, missing, now) if missing else kept), bool(kept)


def read(
    connection: Connection,
    asked: set[Identity],
    now: datetime,
    *,
    with_terms: bool = False,
    oldest: datetime | None = None,
    is_kept: bool = True,
) -> dict[Identity, Account]:
    """Those customers that exist, fresh from the database; they are kept from now on.

    Not so by a transaction that has written some of it: it may yet be rolled back, and never have been.


    With the terms of all, or of those alone who have no period of `now`; with periods as far back as usage may lie, or
    as it does: `oldest`.
    """
    since = min(now - settings().bounds.age_max, oldest or now) - TWO_MONTHS
    found: dict[Identity, Account] = {}
    if not with_terms:
        tenant_ids, customer_ids = zip(*asked, strict=True)
        found = _under_way(_assembled(*rows.read_wallets(connection, tenant_ids, customer_ids, since)), now)
    if rest := asked - found.keys():
        tenant_ids, customer_ids = zip(*rest, strict=True)
        found |= _assembled(*rows.read_accounts(connection, tenant_ids, customer_ids, since))
    plans = catalogue.plans(connection, {(i[0], *key) for i, account in found.items() for key in _plan_keys(account)})
    for (tenant_id, _), account in found.items():
        account.plans = {key: plans[tenant_id, *key] for key in _plan_keys(account)}
    if is_kept:
        if len(_kept) + len(found) > KEPT_MAX:
            _kept.clear()
        _kept.update(found)
    return found


def own_quotas(connection: Connection, known: Mapping[Identity, Account]) -> dict[Identity, tuple[Quota, ...]]:
    """The quotas that these customers have of their own, of those who have some; what is read of them is kept.

    Whatever changes meanwhile moves a revision that was read before.
    """
    unread = {identity: account for identity, account in known.items() if account.own_quotas is None}
    if unread:
        found: defaultdict[Identity, tuple[Quota, ...]] = defaultdict(tuple)
        asked = [(tenant_id, Scope.CUSTOMER, customer_id) for tenant_id, customer_id in unread]
        for quota in catalogue.named_quotas(connection, asked):
            found[quota.tenant_id, quota.subject] += (quota,)
        for identity, account in unread.items():
            account.own_quotas = found[identity]
    return {identity: account.own_quotas for identity, account in known.items() if account.own_quotas}


def forget(identities: Iterable[Identity]) -> None:
    """What is kept of these customers is out of date."""
    for identity in identities:
        _kept.pop(identity, None)


def forget_all() -> None:
    """Keep nothing: for a process that turns to another database."""
    _kept.clear()


def _under_way(found: dict[Identity, Account], now: datetime) -> dict[Identity, Account]:
    """Those who have a period of now, in which nearly all of their usage lies."""
    return {
        identity: account for identity, account in found.items() if any(period.holds(now) for period in account.periods)
    }


def _assembled(
    account_rows: Iterable[AccountRow | AccountWallet], period_rows: Iterable[PeriodRow]
) -> dict[Identity, Account]:
    found: dict[Identity, Account] = {}
    for row in account_rows:
        identity = (row.tenant_id, row.customer_id)
        account = found.get(identity)
        if account is None:
            account = found[identity] = Account(terms_of(row) if isinstance(row, AccountRow) else None)
        if row.currency is not None and row.wallet_id is not None and row.account_revision is not None:
            account.wallets[row.currency] = row.wallet_id
            account.revisions += ((row.wallet_id, row.account_revision),)
    for begun in period_rows:
        # A period may have begun between the two statements, for a customer who came after the first.
        if account := found.get((begun.tenant_id, begun.customer_id)):
            span = (begun.starts_at, begun.ends_at, begun.plan_id, begun.plan_version)
            account.periods += (Period(*span, begun.is_closed, time_zone=begun.time_zone),)
    return found


class OnTerms(Protocol):
    """A row that says what a customer's new periods begin on."""

    @property
    def time_zone(self) -> str: ...
    @property
    def anchor_day(self) -> int: ...
    @property
    def plan_id(self) -> str: ...
    @property
    def plan_version(self) -> int: ...
    @property
    def next_plan_id(self) -> str | None: ...
    @property
    def next_plan_version(self) -> int | None: ...
    @property
    def next_plan_at(self) -> datetime | None: ...


def terms_of(row: OnTerms) -> Terms:
    """What the customer's new periods begin on."""
    calendar = Calendar(row.time_zone, row.anchor_day)
    if row.next_plan_id is None or row.next_plan_version is None:
        return Terms(calendar, (row.plan_id, row.plan_version))
    return Terms(calendar, (row.plan_id, row.plan_version), (row.next_plan_id, row.next_plan_version), row.next_plan_at)


def _plan_keys(account: Account) -> set[PlanKey]:
    keys = {period.plan_key for period in account.periods}
    if terms := account.known_terms:
        keys |= {terms.plan} if terms.next_plan is None else {terms.plan, terms.next_plan}
    return keys


when_lost(forget_all)
